"""Files that keys and certificates live in: owner-only, and written whole or not at all.

A full disk or a crash leaves what was there, and no power cut takes back what is: `appliance.files`
writes them. The directory is for its owner alone (mode 700), so that nothing in it need be.

Imports the standard library, `appliance.files` and this package.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from appliance import files
from appliance.tls.errors import CredentialError

MAX_FILE: Final = 1024 * 1024
"""Octets that are read of one file; keys, chains and accounts have a few thousand."""


class Store:
    """A directory; names are relative to it. Every failure is a CredentialError with the path."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        """Where a file is, or would be."""
        return self.directory / name

    def read(self, name: str) -> bytes | None:
        """The octets of a file, None if it is not there."""
        try:
            with self.path(name).open("rb") as file:
                return file.read(MAX_FILE)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise CredentialError(f"{self.path(name)}: {exc.strerror or exc}") from exc

    def write(self, name: str, data: bytes, *, public: bool = False) -> None:
        """Put a file in place, for its owner alone unless `public`."""
        path = self.path(name)
        try:
            self._make(path.parent)
            files.write_whole(path, data, mode=0o644 if public else 0o600)
        except OSError as exc:
            raise CredentialError(f"{path}: {exc.strerror or exc}; what was there stays") from exc

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            self.path(name).unlink(missing_ok=True)
        except OSError as exc:
            raise CredentialError(f"{self.path(name)}: {exc.strerror or exc}") from exc

    def sweep(self) -> None:
        """Remove what was left by a process that was killed while it wrote."""
        for folder, _, _ in os.walk(self.directory):
            files.sweep(Path(folder))

    def _make(self, directory: Path) -> None:
        if directory != self.directory and directory.parent != directory:
            self._make(directory.parent)
        try:
            directory.mkdir(mode=0o700, parents=directory == self.directory)
            files.sync_folder(directory.parent)
        except FileExistsError:
            if not directory.is_dir():
                raise


def exposed(path: Path) -> str:
    """Who besides its owner can read a key's file, in words; "" if nobody."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if mode & 0o004:
        return "everybody"
    return "its group" if mode & 0o040 else ""
