"""What was made of a site's sources at an earlier start, by the hash of what it was made of.

Markdown rendered, documents made by templates, bodies coded: each is a function of octets, and
found again by the hash of these and of the versions that made it.  Kept in one SQLite file, which
may be deleted at any time; whatever goes wrong with it costs the time to make things anew, and
nothing else.  What was not asked for in two weeks is forgotten.  Imports the standard library, and
SQLite only for a site that is large: the image of a machine has none, and keeps nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger(__name__)

NAME = "site.sqlite"
# Days that something stays which no start asks for.
KEPT_DAYS = 14
# Octets of the file past which it is made anew.
MAX_BYTES = 4 * 1024**3
# Things made before the file is written at all: a small site is made sooner than looked up.
WORTHWHILE = 200
# Things read from the file at a time.
BATCH = 500
# What decides what the same source becomes.
_MAKERS = (
    "appliance", "markdown-it-py", "mdit-py-plugins", "pygments", "jinja2", "brotli", "zstandard",
)  # fmt: skip


def digest(*parts: bytes | str) -> bytes:
    """Return a key: 160 bits over parts whose borders count."""
    found = hashlib.blake2b(digest_size=20)
    for part in parts:
        octets = part.encode() if isinstance(part, str) else part
        found.update(len(octets).to_bytes(8))
        found.update(octets)
    return found.digest()


class Cache:
    """A bounded map from keys to octets, on disk; a directory of None keeps nothing."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._path = directory / NAME if directory is not None else None
        self._today = int(time.time() // 86400)
        self._found: dict[bytes, bytes] = {}
        self._stale: list[bytes] = []  # found, but last used on another day
        self._made: dict[bytes, bytes] = {}
        self._connection: sqlite3.Connection | None = None
        if self._path is not None and self._path.exists():
            self._open()

    @property
    def is_new(self) -> bool:
        """Whether nothing was made before, so that there is no use in asking."""
        return self._connection is None

    def _open(self) -> None:
        assert self._path is not None
        try:
            import sqlite3
        except ImportError:
            self._path = None
            return
        try:
            if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                self._path.unlink()
            # Only its owner may write what is going to be served.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self._path, timeout=0.5, isolation_level=None)
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS made "
                "(key BLOB PRIMARY KEY, used INTEGER NOT NULL, octets BLOB NOT NULL)"
            )
            self._connection = connection
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        import sqlite3

        logger.warning("%s: %s; everything is made anew", self._path, error)
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        ):
            with contextlib.suppress(OSError):
                assert self._path is not None
                self._path.unlink()  # not a database, or a broken one

    def prefetch(self, keys: Iterable[bytes]) -> None:
        """Read what there is of many keys at once."""
        if self._connection is None:
            return
        import sqlite3

        wanted = list(keys)
        try:
            for start in range(0, len(wanted), BATCH):
                part = wanted[start : start + BATCH]
                marks = ",".join("?" * len(part))
                for key, used, octets in self._connection.execute(
                    f"SELECT key, used, octets FROM made WHERE key IN ({marks})",  # noqa: S608
                    part,
                ):
                    self._found[key] = octets
                    if used != self._today:
                        self._stale.append(key)
        except sqlite3.Error as error:
            self._give_up(error)

    def get(self, key: bytes) -> bytes | None:
        """Return what was prefetched under a key, once."""
        return self._found.pop(key, None)

    def put(self, key: bytes, octets: bytes) -> None:
        """Keep what was made."""
        if self._path is not None:
            self._made[key] = octets

    def close(self) -> None:
        """Write what is new, if it is worth a file, and forget what is old."""
        if self._connection is None and len(self._made) >= WORTHWHILE:
            assert self._directory is not None
            with contextlib.suppress(OSError):
                self._directory.mkdir(mode=0o700, exist_ok=True)
                self._open()
        connection, self._connection = self._connection, None
        if connection is None:
            return
        import sqlite3

        try:
            with contextlib.closing(connection):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(
                    "INSERT OR REPLACE INTO made VALUES (?, ?, ?)",
                    ((key, self._today, octets) for key, octets in self._made.items()),
                )
                connection.executemany(
                    "UPDATE made SET used = ? WHERE key = ?",
                    ((self._today, key) for key in self._stale),
                )
                connection.execute("DELETE FROM made WHERE used < ?", (self._today - KEPT_DAYS,))
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._give_up(error)


@lru_cache(maxsize=1)
def makers() -> bytes:
    """Return a key of the versions that everything is made by."""
    found = []
    for name in _MAKERS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(name)
    return digest(*found)
