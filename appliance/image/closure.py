"""Which files an image needs of Python: the standard library's, the dependencies', the shared
objects.

The standard library is walked from the imports in the source of what is to run, so a module that
nobody names stays outside. Dependencies are what the package's own metadata requires, and what that
requires; each whole, but for what is only read by people and type checkers, and for what
`omitted.py` names. Imports the standard library and this package.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.image.graph import BuildError
from appliance.image.omitted import (
    BUILDING,
    ENCODINGS,
    KEPT,
    OMITTED,
    WITHOUT,
    WITHOUT_FILES,
    WITHOUT_LIBRARY,
)
from appliance.image.tools import run

EXTENSION: Final = sysconfig.get_config_var("EXT_SUFFIX")
"""How the file of an extension module ends, as .cpython-311-x86_64-linux-gnu.so."""

ALWAYS: Final = ("encodings", "ctypes", "importlib", "traceback", "tarfile", "site")
"""Named by the interpreter itself, or by PID 1."""

_REQUIRED = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Bundle:
    """A distribution that we require."""

    files: Mapping[str, Path]
    """By their place below site-packages."""
    requires: tuple[str, ...]
    """The names of those that it requires in turn."""

    @property
    def tops(self) -> frozenset[str]:
        """The modules and packages that it brings."""
        return frozenset(place.partition("/")[0].partition(".")[0] for place in self.files)


def standard_library(names: Iterable[str]) -> dict[str, Path]:
    """The library's files that importing `names` needs, by their place among modules."""
    top = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, Path] = {}
    wanted = [*ALWAYS, *names]
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        head = name.partition(".")[0]
        if head in seen or head in OMITTED or head in WITHOUT:
            continue
        seen.add(head)
        for place, path in _files_of(top, head):
            if place in found:
                continue
            found[place] = path
            if path.suffix == ".py":
                wanted += imported(path)
    return found


def _files_of(top: Path, name: str) -> Iterator[tuple[str, Path]]:
    """The files of a module or package of the library."""
    single, package = top / f"{name}.py", top / name
    if package.is_dir() and (package / "__init__.py").exists():
        for path in sorted(package.rglob("*.py")):
            inner = path.relative_to(top)
            if "test" in inner.parts or "tests" in inner.parts or inner.name == "__main__.py":
                continue
            if name == "encodings" and inner.stem not in ENCODINGS:
                continue
            if str(inner).startswith(WITHOUT_LIBRARY):
                continue
            yield str(inner), path
    elif single.exists():
        yield single.name, single
    for path in sorted((top / "lib-dynload").glob(f"{name}.*so")):
        yield path.name, path


def imported(source: Path) -> Iterator[str]:
    """Every name that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def dependencies(name: str) -> list[importlib.metadata.Distribution]:
    """The distributions that one requires to run, and theirs, in the order of names.

    Raises BuildError when one is not installed.
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    wanted = [(name, "")]
    while wanted:
        wish, by = wanted.pop()
        if _key(wish) in found:
            continue
        try:
            distribution = importlib.metadata.distribution(wish)
        except importlib.metadata.PackageNotFoundError:
            raise BuildError(f"{by} requires {wish}, which is not installed") from None
        found[_key(wish)] = distribution
        wanted += [(required, wish) for required in _requirements(distribution)]
    del found[_key(name)]
    return [found[key] for key in sorted(found)]


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()  # PEP 503


def _requirements(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """The names of what a distribution requires to run here."""
    for line in distribution.requires or ():
        requirement, _, marker = line.partition(";")
        name = _REQUIRED.match(requirement.strip())
        if name is not None and not _foreign(marker):
            yield name[0]


def bundles(name: str) -> dict[str, Bundle]:
    """The dependencies of a distribution, by name; raises BuildError when one is missing."""
    found = {}
    for distribution in dependencies(name):
        requires = tuple(sorted(_key(required) for required in _requirements(distribution)))
        found[_key(distribution.name)] = Bundle(distribution_files(distribution), requires)
    return found


def reached(bundled: Mapping[str, Bundle], imported: Iterable[str]) -> list[str]:
    """The bundles that hold what is imported, and what these require; sorted."""
    heads = {name.partition(".")[0] for name in imported}
    wanted = [name for name, bundle in bundled.items() if heads & bundle.tops]
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in bundled and name not in found:
            found.add(name)
            wanted += bundled[name].requires
    return sorted(found)


def _foreign(marker: str) -> bool:
    """Whether a requirement is for an extra, another system or another Python."""
    if "extra" in marker:
        return True
    version = re.search(r"python_(?:full_)?version\s*<=?\s*['\"]3\.(\d+)", marker)
    if version is not None and int(version[1]) <= sys.version_info.minor:
        return True
    system = re.search(r"(sys_platform|platform_system|os_name)\s*==\s*['\"](\w+)", marker)
    if system is not None and system[2].lower() not in ("linux", "posix"):
        return True
    return "PyPy" in marker and "==" in marker.partition("PyPy")[0][-6:]


def distribution_files(distribution: importlib.metadata.Distribution) -> dict[str, Path]:
    """A distribution's modules and data, by their place below site-packages."""
    found = {}
    for file in distribution.files or ():
        name = str(file)
        inner = name.split("/")
        if (
            inner[0] == ".."
            or inner[0].endswith((".dist-info", ".egg-info"))
            or "__pycache__" in inner
            or "tests" in inner
            or name.startswith(WITHOUT_FILES)
            or inner[0] == "bin"
            or name.endswith((".pyi", ".pth", ".typed", ".h", ".c", ".pyx", ".pxd", ".pyc"))
        ):
            continue
        found[name] = Path(str(file.locate()))
    return dict(sorted(found.items()))


def in_image(place: str) -> bool:
    """Whether a dependency's file, as it was placed for building, is wanted in an image as well."""
    if not place.startswith(BUILDING):
        return True
    return place.removesuffix(".pyc") in KEPT or (
        place.startswith("charset_normalizer/") and place.endswith(".pyc")
    )


def shared_objects(file: Path) -> dict[str, Path]:
    """What a program or extension module is linked with, beside itself, by file name.

    Raises BuildError when something is linked with what is not there.
    """
    found: dict[str, Path] = {}
    for line in run(["ldd", file]).splitlines():
        if "not found" in line:
            raise BuildError(f"{file} is linked with {line.split()[0]}, which is not there")
        path = re.search(r"(?:=> )?(/\S+) \(0x", line)
        if path is not None:
            found[Path(path[1]).name] = Path(path[1]).resolve()
    return found


def facts() -> Mapping[str, str]:
    """What there is to say about the interpreter, for keys and locks."""
    return {"python": sys.version.split()[0], "extension": str(EXTENSION)}
