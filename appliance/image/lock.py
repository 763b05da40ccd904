"""appliance.lock: everything that an image depends on, written down by `configure`.

`build` builds what the lock says: another Python, package or kernel than the locked one is an
error, and a command away from being accepted. What is served may change without one: its digest and
its date are brought up to date, and that is said. Imports the standard library and this package.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from appliance.files import write_whole
from appliance.image import closure
from appliance.image.graph import BuildError, file_digest, files_below, site_below

FILE: Final = "appliance.lock"
EPOCH: Final = "SOURCE_DATE_EPOCH"
"""The environment's variable that dates what is built (reproducible-builds.org)."""
HEAD: Final = (
    "# Made by `appliance configure`: what the image is built of. Belongs beside the sources.\n"
)


@dataclass(frozen=True)
class Lock:
    """What an image is built of."""

    target: str
    kernel: Mapping[str, str]
    """kind "debian": package, version, sha256; kind "own": source, sha256."""
    python: Mapping[str, str]
    packages: Mapping[str, str]
    """By name: version, and the digest of the list of its files."""
    content: Mapping[str, str]
    """`digest` of site, zones and settings; `date`, in seconds since the epoch."""

    @property
    def date(self) -> int:
        """Seconds since the epoch, of everything that is served."""
        return int(self.content["date"])


def now() -> int:
    """The date of what changes now."""
    given = os.environ.get(EPOCH, "")
    return int(given) if given.isdigit() else int(time.time())


def python_facts() -> dict[str, str]:
    """The interpreter: what it says of itself, and its program's digest."""
    program = Path(sys.executable).resolve()
    return dict(closure.facts()) | {"sha256": file_digest(program)}


def package_facts() -> dict[str, str]:
    """Every distribution that an image holds, by name: version, and the digest of its RECORD."""
    found = {}
    for distribution in closure.dependencies("appliance"):
        record = distribution.read_text("RECORD") or distribution.read_text("installed-files.txt")
        digest = hashlib.sha256((record or "").encode()).hexdigest()
        found[distribution.metadata["Name"]] = f"{distribution.version} sha256:{digest}"
    return found


def files_of(name: str, folder: Path) -> dict[str, Path]:
    """What an image has of a folder of the settings: zones/, site/ or host/NAME/."""
    return files_below(folder, name) if name == "zones" else site_below(folder, name)


def content_digest(text: str, folders: Mapping[str, Path]) -> str:
    """The digest of settings, and of all files of the folders, by their names."""
    digest = hashlib.sha256(text.encode())
    for name, folder in sorted(folders.items()):
        for place, path in files_of(name, folder).items():
            digest.update(f"{place}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def with_content(lock: Lock, digest: str) -> Lock:
    """The lock for this content: dated now if it is not the content of before."""
    if lock.content.get("digest") == digest:
        return lock
    return replace(lock, content={"digest": digest, "date": str(now())})


def differences(lock: Lock) -> list[str]:
    """In words, what of Python and the packages here is not what the lock has."""
    found = []
    for what, locked, here in (
        ("Python's", lock.python, python_facts()),
        ("package", lock.packages, package_facts()),
    ):
        for name in sorted(set(locked) | set(here)):
            theirs, ours = locked.get(name, "absent"), here.get(name, "absent")
            if theirs != ours:
                shown = [value.partition(" ")[0][:20] for value in (ours, theirs)]
                detail = f"{shown[0]}, locked is {shown[1]}"
                if shown[0] == shown[1]:
                    detail = f"{shown[0]}, but with other files than the locked one"
                found.append(f"{what} {name} is {detail}")
    return found


def read(path: Path) -> Lock:
    """Read a lock; raises BuildError when there is none or it is not one."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Lock(
            document["image"]["target"],
            document["kernel"],
            document["python"],
            document["packages"],
            document["content"],
        )
    except FileNotFoundError:
        raise BuildError(f"no {path.name} here: appliance configure") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError) as exc:
        raise BuildError(f"{path} is not a lock ({exc}): appliance configure") from exc


def write(path: Path, lock: Lock) -> None:
    """Write a lock, whole or not at all."""
    tables = {
        "image": {"target": lock.target},
        "kernel": lock.kernel,
        "python": lock.python,
        "content": lock.content,
        "packages": lock.packages,
    }
    lines = [HEAD]
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f'"{key}" = "{value}"' for key, value in sorted(table.items())]
        lines.append("")
    write_whole(path, "\n".join(lines).encode())
