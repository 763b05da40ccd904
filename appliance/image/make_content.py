"""Recipes for what is served: site and zones, made into what a booting machine only reads.

Imports the standard library and this package.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from appliance.image.graph import Bench
from appliance.image.tools import run

FREEZER: Final = Path(__file__).with_name("freeze.py")
TRIAL: Final = Path(__file__).with_name("trial.py")


def make_content(files: Mapping[str, Path], text: str, date: int, link: str, bench: Bench) -> None:
    """The content as `freeze` writes it.

    `files`: of site/, zones/ and host/NAME/; `text`: appliance.toml; `link`: as `content_steps` has
    it.
    """
    bench.say("loading site and zones")
    work, code = bench.scratch / "work", bench.scratch / "code"
    for top in (work, code):
        shutil.rmtree(top, ignore_errors=True)
    for name, path in files.items():
        _copy(path, work / name, date)
    (work / "site").mkdir(exist_ok=True)
    (work / "zones").mkdir(exist_ok=True)
    (work / "appliance.toml").write_text(text)
    # The theme lies in the package; its files have the date of the build as well.
    for step in ("application", "dependencies"):
        modules = bench.inputs[step] / "modules"
        for path in sorted(modules.rglob("*")):
            if path.is_file():
                _copy(path, code / path.relative_to(modules), date)
    for words in (
        [FREEZER, str(date), bench.out, link or "packet:eth0"],
        [TRIAL, bench.out],
    ):
        told = run(
            [sys.executable, "-S", "-s", "-P", *words],
            cwd=work,
            env={"PYTHONPATH": str(code), "PYTHONHASHSEED": "0"},
        )
        for line in told.strip().splitlines():
            bench.say(line)


def make_hot(bench: Bench) -> None:
    """The modules that the first answer needs, what they compile, and what is imported next.

    On its own, so that a page can change without it.
    """
    (content,) = bench.inputs.values()
    names = json.loads((content / "hot.json").read_text())
    kept = [name for name in names if name != "__main__"]
    (bench.out / "hot.json").write_text(json.dumps(kept, indent=1))
    for name in ("made.marshal", "warm.json"):
        shutil.copyfile(content / name, bench.out / name)


def _copy(path: Path, target: Path, date: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    os.utime(target, (date, date))
