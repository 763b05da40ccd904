"""Which files of a directory belong to a site.

Dotfiles do not (but for `.well-known` at the top), names that begin with `_` are the site's own
material, and a symbolic link is followed only to a place inside the root that could be served by
itself.  What is left out is told, never silently.  Imports `largefile` and the standard library.
"""

from __future__ import annotations

import hashlib
import os
import stat
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from appliance.http.largefile import Identity, LargeFile
from appliance.http.problem import Problem

# Files and directories in one site: 20,000 pages with their assets are far below it, / far above.
MAX_FILES = 200_000
# Directories inside one another.
MAX_DEPTH = 32
# Octets; a larger file is mapped while it is downloaded instead of kept in memory.
LARGE = 4 * 1024 * 1024
# Octets hashed at a time.
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A file that belongs to the site."""

    name: str  # relative to the root, with "/" between its parts
    path: Path
    mtime: int  # seconds since the epoch
    size: int  # octets


@dataclass(slots=True)
class Walk:
    """A directory being walked, and what was left out on the way."""

    root: Path
    problems: list[Problem]
    hidden: list[str] = field(default_factory=list)  # dotfiles, by name
    _real: Path = field(init=False)
    _files: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._real = self.root.resolve()

    def sources(self) -> Iterator[Source]:
        """Yield the files in the order of their names."""
        try:
            there = self.root.is_dir()
        except OSError as error:
            self._left_out(self.root, "error", error.strerror or str(error))
            return
        if not there:
            self._left_out(self.root, "error", "no such directory")
            return
        yield from self._directory(self.root, "", (self._real,))

    def _directory(self, directory: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[Source]:
        """Walk one directory; `above` are the real paths of it and of those it lies in."""
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError as error:
            self._left_out(directory, "error", error.strerror or str(error))
            return
        for entry in entries:
            name = prefix + entry.name
            path = Path(entry.path)
            if entry.name.startswith("_"):
                continue
            # RFC 8615: the one name with a dot that is meant to be seen, and only at the top.
            if entry.name.startswith(".") and name != ".well-known":
                self.hidden.append(name)
                continue
            if not _is_text(entry.name):
                self._left_out(path, "warning", "control characters in the name: not served")
                continue
            if entry.is_symlink() and not self._is_inside(path):
                continue
            try:
                status = entry.stat()
            except OSError as error:
                self._left_out(path, "error", error.strerror or str(error))
                continue
            if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
                self._left_out(path, "warning", "not a file: not served")
            elif self._files >= MAX_FILES:
                if self._files == MAX_FILES:
                    self._files += 1
                    self._left_out(
                        path, "error", f"more than {MAX_FILES} files: the rest is left out"
                    )
            elif stat.S_ISDIR(status.st_mode):
                self._files += 1
                real = path.resolve() if entry.is_symlink() else above[-1] / entry.name
                if real in above:
                    self._left_out(path, "warning", "a link to what it lies in: not followed")
                elif len(above) > MAX_DEPTH:
                    self._left_out(path, "error", f"more than {MAX_DEPTH} directories deep")
                else:
                    yield from self._directory(path, name + "/", (*above, real))
            else:
                self._files += 1
                yield Source(name, path, int(status.st_mtime), status.st_size)

    def _is_inside(self, link: Path) -> bool:
        """Say whether a link leads to something of this site; complain if it does not."""
        try:
            inner = link.resolve(strict=True).relative_to(self._real)
        except ValueError:
            self._left_out(link, "warning", "a link out of the site: not served")
            return False
        except (OSError, RuntimeError):
            self._left_out(link, "warning", "a link that leads nowhere: not served")
            return False
        if any(part.startswith((".", "_")) for part in inner.parts):
            self._left_out(link, "warning", "a link to a hidden file: not served")
            return False
        return True

    def _left_out(self, path: Path, severity: str, why: str) -> None:
        self.problems.append(
            Problem(str(path), 0, "error" if severity == "error" else "warning", why)
        )


def _is_text(name: str) -> bool:
    return not any(ord(character) < 0x20 or ord(character) == 0x7F for character in name)


def read(source: Source) -> bytes:
    """Return the octets of a file; raises OSError."""
    return source.path.read_bytes()


def open_large(source: Source) -> tuple[LargeFile, bytes]:
    """Hash a large file and return it with its entity-tag; raises OSError."""
    digest = hashlib.blake2b(digest_size=15)
    with open(source.path, "rb", buffering=0) as file:
        identity = Identity.of(os.fstat(file.fileno()))
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        if Identity.of(os.fstat(file.fileno())) != identity:
            raise OSError(f"{source.path}: changed while it was read")
    tag = b'"' + urlsafe_b64encode(digest.digest()) + b'"'
    return LargeFile(str(source.path), identity), tag
