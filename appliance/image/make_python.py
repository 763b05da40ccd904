"""Recipes for what Python consists of: bytecode, extension modules, shared objects.

Every output has a folder `modules`, laid out as on a module search path, without sources. Imports
the standard library and this package.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from appliance.image import closure
from appliance.image.graph import Bench
from appliance.image.tools import run

COMPILER: Final = Path(__file__).with_name("bytecode.py")
LOADER: Final = "ld-linux"
"""How the dynamic loader's name begins; the program names it by its full path, /lib64/..."""


def make_names(files: Mapping[str, Path], bench: Bench) -> None:
    """The modules that the sources among files import, one a line."""
    names = {name for source in _sources(files).values() for name in closure.imported(source)}
    (bench.out / "names").write_text("\n".join(sorted(names)))


def make_dependency_names(bundled: Mapping[str, closure.Bundle], bench: Bench) -> None:
    """The modules that the dependencies import, of those that our own source reaches."""
    make_names(_reached(bundled, bench), bench)


def make_dependencies(bundled: Mapping[str, closure.Bundle], bench: Bench) -> None:
    """The dependencies that our own source reaches: an image has no command that tests."""
    place_modules(_reached(bundled, bench), bench)


def _reached(bundled: Mapping[str, closure.Bundle], bench: Bench) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for name in closure.reached(bundled, _names(bench, "app-names")):
        files |= bundled[name].files
    return files


def _sources(files: Mapping[str, Path]) -> dict[str, Path]:
    return {place: path for place, path in files.items() if place.endswith(".py")}


def _names(bench: Bench, *steps: str) -> set[str]:
    return {name for step in steps for name in (bench.inputs[step] / "names").read_text().split()}


def make_library(bench: Bench) -> None:
    """The part of the standard library that what was named needs."""
    names = _names(bench, "app-names", "deps-names")
    place_modules(closure.standard_library(names), bench)


def place_modules(files: Mapping[str, Path], bench: Bench) -> None:
    """Bytecode for sources, extension modules without symbols, data as it is."""
    modules = bench.out / "modules"
    sources = [(str(path), name) for name, path in files.items() if name.endswith(".py")]
    bench.say(f"{len(sources)} modules to bytecode")
    listed = bench.scratch / "sources.json"
    listed.write_text(json.dumps(sorted(sources, key=lambda pair: pair[1])))
    run(
        [sys.executable, "-S", "-s", "-P", COMPILER, listed, modules],
        env={"PYTHONHASHSEED": "0"},
    )
    for name, path in files.items():
        if name.endswith(".py"):
            continue
        target = modules / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if ".so" in path.suffixes or path.suffix == ".so":
            strip(path, target)
        else:
            shutil.copyfile(path, target)


def strip(path: Path, target: Path) -> None:
    """Copy a shared object without its symbols, which nobody in an image could look at."""
    run(["strip", "--strip-unneeded", "-o", target, path])
    target.chmod(0o755)


def make_objects(bench: Bench) -> None:
    """The interpreter, and every shared object that it or an extension module is linked with.

    `linked.json` says who needs which: extension modules by their place, the interpreter as "".
    """
    program = Path(sys.executable).resolve()
    linked: dict[str, list[str]] = {}
    libraries = closure.shared_objects(program)
    linked[""] = sorted(libraries)
    for step in ("library", "dependencies"):
        modules = bench.inputs[step] / "modules"
        for path in sorted(modules.rglob("*.so*")):
            needed = {
                name: found
                for name, found in closure.shared_objects(path).items()
                if modules not in found.parents
            }
            linked[str(path.relative_to(modules))] = sorted(needed)
            libraries |= needed
    (bench.out / "bin").mkdir()
    strip(program, bench.out / "bin" / "python3")
    (bench.out / "lib").mkdir()
    for name, path in sorted(libraries.items()):
        strip(path, bench.out / "lib" / name)
        bench.found[f"library {name}"] = path
    (bench.out / "linked.json").write_text(json.dumps(linked, sort_keys=True, indent=1))
