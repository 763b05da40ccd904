"""A project as the commands see it: settings, lock, and the graph of what can be built of them.

Imports the standard library, the settings and this package.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.image import kernel as kernels
from appliance.image import lock as locks
from appliance.image.graph import BuildError, Graph, Outcome, Say, Step
from appliance.image.guest.machine import one_process
from appliance.image.recipe import Content, content_steps, initramfs_steps, python_steps

if TYPE_CHECKING:
    from appliance.settings import Settings

TARGETS: Final[Mapping[str, str]] = {
    "qemu": "kernel and initramfs, for `appliance run`",
    "disk": "a disk that boots with BIOS and UEFI, raw and as qcow2",
    "oci": "an image for podman, docker and their kin",
}
OUTPUT: Final = Path("build/image")
"""Where things are made, relative to appliance.toml: `store` and a folder for each target."""


@dataclass(frozen=True)
class Project:
    """Where things lie, and what is to be served."""

    config: Path
    settings: Settings

    @property
    def root(self) -> Path:
        """The folder of appliance.toml."""
        return self.config.parent

    @property
    def output(self) -> Path:
        """The folder that everything is made in."""
        return self.root / OUTPUT

    @property
    def lock_path(self) -> Path:
        """Where the lock lies."""
        return self.root / locks.FILE

    @property
    def folders(self) -> dict[str, Path]:
        """The folders that are served from, by the names that they have in a build."""
        found = {"site": self.settings.site.directory, "zones": self.settings.dns.zones}
        for host in self.settings.host:
            found[f"host/{host.name}"] = host.directory
        return found

    def state_files(self) -> dict[str, Path]:
        """The keys and certificates that settings name, by their places on a state disk.

        They stay out of images, which look for them there. BuildError for one that lies elsewhere.
        """
        settings = self.settings
        named: list[Path | None] = [key.file for key in settings.dns.key]
        for pair in settings.certificate:
            named += [pair.chain, pair.key]
        named += [settings.dns.cookie_secret, settings.acme.eab_key, settings.acme.ca_file]
        named += [primary.tls_ca_file for primary in settings.dns.primary]
        found = {}
        for path in named:
            if path is None:
                continue
            if not path.is_relative_to(self.root):
                raise BuildError(f"{path} lies outside {self.root}, so no image can look for it")
            found[str(path.relative_to(self.root))] = path
        return found

    def notes(self) -> list[str]:
        """What of the settings an image does without, in lines."""
        workers = self.settings.net.workers
        return [one_process(workers)] if workers > 1 else []

    def content_digest(self) -> str:
        """The digest of everything that is served, and of the settings."""
        return locks.content_digest(self.config.read_text(encoding="utf-8"), self.folders)

    def content(self, lock: locks.Lock) -> Content:
        """What is served, for the recipes."""
        return Content(self.folders, self.config.read_text(encoding="utf-8"), lock.date)


def kernel_step(lock: locks.Lock) -> Step:
    """The kernel that the lock has; raises BuildError."""
    facts = lock.kernel
    if facts.get("kind") == "own":
        return kernels.own_step(Path(facts["source"]), kernels.processors())
    return kernels.debian_step(facts["package"], facts["version"], facts["sha256"])


def steps_for(project: Project, lock: locks.Lock, target: str) -> list[Step]:
    """The last steps of a target, which bring all others with them."""
    python = python_steps()
    if target == "oci":
        from appliance.image.oci import oci_steps

        return [oci_steps(python, content_steps(project.content(lock), python, link="pair"))]
    content = content_steps(project.content(lock), python)
    kernel = kernel_step(lock)
    parts = initramfs_steps(python, content, kernel)
    if target == "disk":
        from appliance.image.disk import disk_step

        return [disk_step(kernel, parts["base-packed"], parts["page-packed"], parts["cold-part"])]
    return [kernel, parts["initramfs"], parts["cold"], content["content"]]


def build(project: Project, lock: locks.Lock, target: str, say: Say) -> dict[str, Outcome]:
    """Build a target and lay its products into the output folder; raises BuildError."""
    graph = Graph(project.output / "store", say)
    last = steps_for(project, lock, target)
    outcomes = graph.build(last)
    place, note = project.output / target, project.output / f"{target}.json"
    made = {step.name: outcomes[step.name].digest for step in last}
    of = json.dumps({"content": lock.content["digest"], "steps": made}, sort_keys=True)
    # Not whether a step was made now: what an edit undone asks for is in the store already.
    if not place.exists() or _text(note) != of:
        note.unlink(missing_ok=True)
        fresh = project.output / f"{target}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for step in last:
            for path in outcomes[step.name].out.iterdir():
                if path.is_dir():
                    shutil.copytree(path, fresh / path.name, copy_function=_link)
                else:
                    _link(path, fresh / path.name)
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
        note.write_text(of)
    return outcomes


def is_stale(project: Project, target: str) -> bool:
    """Whether what is served has changed since a target was last built."""
    try:
        digest = json.loads(_text(project.output / f"{target}.json"))["content"]
    except (ValueError, KeyError):
        return True
    return bool(digest != project.content_digest())


def _text(path: Path) -> str:
    """What stands in a file; nothing when there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _link(source: Path | str, target: Path | str) -> Path | str:
    """A second name for a file, since nobody changes products in place; a copy where that fails."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
    return target


def load(path: Path) -> Project:
    """Read settings; raises ConfigError and, for what a build cannot have, BuildError."""
    from appliance.config import load as load_settings

    settings = load_settings(path)
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    for table in ("site", "dns"):
        if not isinstance(document.get(table, {}), dict):
            raise BuildError(f"{path}: [{table}] is not a table")
    return Project(path.absolute(), settings)
