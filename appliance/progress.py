"""A bar for what takes long, on a terminal; nothing anywhere else. Imports the standard library."""

from __future__ import annotations

import sys
import time
from typing import Final, TextIO

AFTER: Final = 0.5
"""Seconds before a bar is drawn: what is sooner done needs none."""
EVERY: Final = 0.1
"""Seconds between two drawings."""
WIDTH: Final = 30
"""Characters of the bar."""


class Bar:
    """One line that is drawn over itself and wiped at the end."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = False
        self._next = time.monotonic() + AFTER
        self._wanted = self._stream.isatty()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that so much of something is done."""
        if not self._wanted or not total:
            return
        now = time.monotonic()
        if now < self._next and done < total:
            return
        if not self._shown and now < self._next:
            return  # over before it was worth showing
        self._next = now + EVERY
        self._shown = True
        full = WIDTH * done // total
        bar = "#" * full + "." * (WIDTH - full)
        self._stream.write(f"\r{what:10s} [{bar}] {done:,} of {total:,}\x1b[K")
        self._stream.flush()

    def end(self) -> None:
        """Leave no trace."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False
