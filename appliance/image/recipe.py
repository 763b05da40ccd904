"""The steps of an image, from sources to something that boots.

    app-names ─┬─ deps-names ─ library ─┬───────────────┐
               └─ dependencies ─────────┼─ objects ─────┤
                                        ├─ content ─ hot ─┬─ cold ─ base ─┬─ initramfs
                  application ──────────┘         └───────┴──────── page ─┤
                  kernel ───────────────────────────────────────────┘   cold ─ state

The initramfs has two parts, one behind the other: `base` changes when Python or a library does, and
`page` when a page does, so an edit costs the making of the content and the writing of a few
megabytes. What the first answer does not need is a squashfs, read a page at a time: from a drive of
its own under `appliance run`, from memory where a machine has but one disk. Imports the standard
library and this package; nothing in an image imports it.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from appliance.image import closure
from appliance.image.graph import Step, files_below
from appliance.image.lock import files_of
from appliance.image.make_content import FREEZER, TRIAL, make_content, make_hot
from appliance.image.make_initramfs import (
    make_base,
    make_cold,
    make_cold_part,
    make_initramfs,
    make_packed,
    make_page,
)
from appliance.image.make_python import (
    COMPILER,
    make_dependencies,
    make_dependency_names,
    make_library,
    make_names,
    make_objects,
    place_modules,
)
from appliance.image.omitted import OMITTED
from appliance.image.state_disk import template_step

HERE: Final = Path(__file__).parent
PACKAGE: Final = HERE.parent
INIT: Final = HERE / "guest" / "init.py"
CHOICE: Final = {name: HERE / f"{name}.py" for name in ("closure", "omitted")}
"""What decides which files an image has."""
GUEST: Final = "appliance/image/guest/"
APP_OMITTED: Final = tuple(f"appliance/{name}" for name in (
    "image/", "fuzz/", "commands/", "__main__.", "cli.", "control.",
    "dns/fetch.", "dns/layout.", "tls/keys.",
    "trace/draw.", "trace/flows.", "trace/picture.", "trace/table.",
    "family.", "net/steer.", "net/vif/queues.", "reloads.", "worker.", "workers.",
))  # fmt: skip
"""Of our own package: what makes images, tests and command lines, what draws, and workers, since a
machine has one processor. `GUEST` is kept."""
LEVEL: Final = 19
"""Of zstd: an edit for a disk then costs a second of packing."""


@dataclass(frozen=True)
class Content:
    """What is to be served."""

    folders: Mapping[str, Path]
    """Folders by the names that they have in a build: site, zones, host/NAME."""
    text: str
    """appliance.toml as the image has it."""
    date: int
    """Of every page, in seconds since the epoch."""


def application_files() -> dict[str, Path]:
    """Our own modules and data that an image has."""
    return {
        name: path
        for name, path in files_below(PACKAGE, "appliance").items()
        if not name.startswith(APP_OMITTED)
        or (name.startswith(GUEST) and path != INIT)
        or name in ("appliance/image/__init__.py", "appliance/image/health.py")
    }


def python_steps() -> dict[str, Step]:
    """The steps that depend on Python, the libraries and our own source alone, by name."""
    app, bundled = application_files(), closure.bundles("appliance")
    deps = {place: path for bundle in bundled.values() for place, path in bundle.files.items()}
    facts = dict(closure.facts())
    requires = {f"{name} requires": " ".join(one.requires) for name, one in bundled.items()}
    tools = CHOICE
    app_names = Step(
        "app-names", partial(make_names, app), files=_sources(app) | tools, values=facts
    )
    deps_names = Step(
        "deps-names",
        partial(make_dependency_names, bundled),
        needs=(app_names,),
        files=_sources(deps) | tools,
        values=facts | requires,
    )
    compiler = {"compiler": COMPILER}
    library = Step(
        "library",
        make_library,
        needs=(app_names, deps_names),
        files=_library_files() | compiler | tools,
        values=facts,
    )
    dependencies = Step(
        "dependencies",
        partial(make_dependencies, bundled),
        needs=(app_names,),
        files=deps | compiler | tools,
        values=facts | requires,
    )
    application = Step(
        "application", partial(place_modules, app), files=app | compiler, values=facts
    )
    program = {"python": Path(sys.executable).resolve()}
    objects = Step("objects", make_objects, needs=(library, dependencies), files=program)
    return {step.name: step for step in (library, dependencies, application, objects)}


def _sources(files: Mapping[str, Path]) -> dict[str, Path]:
    return {place: path for place, path in files.items() if place.endswith(".py")}


def content_steps(wanted: Content, python: Mapping[str, Step], link: str = "") -> dict[str, Step]:
    """The steps that depend on what is served, by name.

    `link` is what the image opens unless told otherwise; empty: the first network card.
    """
    files: dict[str, Path] = {}
    for name, folder in wanted.folders.items():
        files |= files_of(name, folder)
    suffix = f"-{link}" if link else ""
    content = Step(
        f"content{suffix}",
        partial(make_content, files, wanted.text, wanted.date, link),
        needs=(python["application"], python["dependencies"]),
        files=files | {"freeze": FREEZER, "trial": TRIAL},
        values={"date": str(wanted.date), "appliance.toml": wanted.text},
    )
    hot = Step(f"hot{suffix}", make_hot, needs=(content,))
    return {"content": content, "hot": hot}


def initramfs_steps(
    python: Mapping[str, Step], content: Mapping[str, Step], kernel: Step
) -> dict[str, Step]:
    """The two parts of the initramfs, as they are and packed, by name."""
    native = (python["library"], python["dependencies"], python["objects"], content["hot"])
    cpio = {"cpio": HERE / "cpio.py"} | CHOICE
    cold = Step("cold", make_cold, needs=(*native, template_step()), files=cpio)
    base = Step("base", make_base, needs=(*native, kernel), files=cpio)
    cold_part = Step("cold-part", make_cold_part, needs=(cold,), files=cpio)
    page = Step(
        "page",
        partial(make_page, INIT),
        needs=(python["application"], content["content"]),
        files={"init": INIT} | cpio,
    )
    packed = [
        Step(f"{part.name}-packed", partial(make_packed, LEVEL), needs=(part,))
        for part in (base, page)
    ]
    whole = Step("initramfs", make_initramfs, needs=(base, page))
    return {step.name: step for step in (cold, cold_part, base, page, whole, *packed)}


def _library_files() -> dict[str, Path]:
    """Every file of the standard library that could be needed."""
    top = Path(sysconfig.get_paths()["stdlib"])
    omitted = OMITTED | {"tests", "site-packages"}
    return {
        f"library/{name}": path
        for name, path in files_below(top).items()
        if name.endswith((".py", ".so")) and not omitted & set(Path(name).parts)
    }
