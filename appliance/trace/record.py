"""Writing the trace of a running host into a file (`--trace FILE`, [net] trace).

Whole turns are written at once, so that a crash costs the last one. When the disk is full, or the
file has reached its bound, the trace stops, says so once, and the traffic goes on. Imports
`net.trace`, `net.errors` and the operating system.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.net.errors import LinkError
from appliance.net.trace import Trace, Traced
from appliance.net.vif.base import Vif

MAX_OCTETS: Final = 256 << 20
"""Of the file: a million segments, more than a picture can show."""


class TraceFile:
    """A trace that goes into a file; `warn` is told, once, why it stopped.

    Raises LinkError when the file cannot be made.
    """

    def __init__(
        self, path: Path, *, warn: Callable[[str], None], max_octets: int = MAX_OCTETS
    ) -> None:
        self._path = path
        self._warn = warn
        self._room = max_octets
        try:
            # 0o600: addresses of other people stand in it.
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LinkError(
                error.errno or 0, f"cannot trace to {path}: {error.strerror}"
            ) from error
        self.trace = Trace(self._write)

    def around(self, vif: Vif) -> Traced:
        """Return the interface through which the trace sees frames; closing it closes the file."""
        return Traced(vif, self.trace, self.close)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, lines: str) -> None:
        if self._file < 0:
            return
        data = memoryview(lines.encode())
        if len(data) > self._room:
            self._stop("the file is full")
            return
        self._room -= len(data)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            self._stop(str(error.strerror))

    def _stop(self, why: str) -> None:
        self.close()
        self._warn(f"tracing to {self._path} has stopped: {why}")
