"""The access log: one line for each answer, written by a thread, so that no disk stops the loop.

Three forms: *combined* (what Apache made common and log readers know), *json* (one object a line)
and *human* (for a terminal).  What comes from a peer is escaped, so a line is always one line.
Lines wait in memory for up to a second and are written together; when the disk does not keep up,
lines are dropped and counted rather than requests held up.  Imports the standard library.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

logger = logging.getLogger(__name__)

Form = Literal["combined", "json", "human"]

# Lines waiting to be written: some 20 MB, and half a second of the fastest traffic measured.
MAX_WAITING = 100_000
# Seconds that lines are gathered for.
GATHER = 0.5
# Seconds that the end waits for the disk.
CLOSING = 5.0
# Request heads, and addresses, whose rendering is remembered.
MAX_HEADS = 4096
# Bits of an address that a truncated log keeps: a network, not a household's host.
KEPT_BITS = {4: 24, 6: 48}

_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_FIELD = re.compile(rb"\r\n(referer|user-agent|host):[ \t]*([^\r]*)", re.IGNORECASE)
_ESCAPED = re.compile(r'[\x00-\x1f"\\\x7f-\U0010ffff]')


class LogFile:
    """A file that a thread appends to; opened again when it was moved away."""

    def __init__(self, path: Path | None) -> None:
        """Append to `path`, or to standard output; raises OSError when it cannot be opened."""
        self.path = path
        self.lost = 0  # lines that were dropped
        self._waiting: deque[bytes] = deque()
        self._wake = threading.Event()
        self._ending = False
        self._reopen = False
        self._complained = False
        self._descriptor = self._open()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Take a line; never waits."""
        waiting = self._waiting
        if len(waiting) >= MAX_WAITING:
            self.lost += 1
            return
        waiting.append(line)
        if len(waiting) == 1:
            self._wake.set()

    def reopen(self) -> None:
        """Open the path again before the next line: the file was renamed."""
        self._reopen = True
        self._wake.set()

    def close(self) -> None:
        """Write what waits, and end."""
        self._ending = True
        self._wake.set()
        self._thread.join(CLOSING)

    def _open(self) -> int:
        if self.path is None:
            return os.dup(1)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self.path, flags, 0o640)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if not self._ending and not self._reopen:
                time.sleep(GATHER)
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if lines:
                self._write(lines)
            if self._reopen:
                self._reopen = False
                self._open_again()
            if self._waiting:
                self._wake.set()
            elif self._ending:
                os.close(self._descriptor)
                return

    def _write(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            self._complained = False
        except OSError as error:
            self.lost += bytes(data).count(b"\n")
            if not self._complained:
                self._complained = True
                logger.warning("access log %s: %s", self.path or "on standard output", error)

    def _open_again(self) -> None:
        try:
            descriptor = self._open()
        except OSError as error:
            logger.warning("access log %s: %s; going on with the old file", self.path, error)
            return
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = descriptor


class AccessLog:
    """Makes lines of answers; call it with address, request head, status and octets of body."""

    def __init__(
        self,
        file: LogFile,
        form: Form = "combined",
        *,
        truncate: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Write to `file`; `truncate` keeps only the network of an address."""
        self.file = file
        self._truncate = truncate
        self._clock = clock
        self._second = -1
        self._stamp = b""
        self._addresses: dict[str, bytes] = {}
        self._heads: dict[bytes, tuple[bytes, bytes]] = {}
        self._line, self._render = {
            "combined": (self._combined, _combined),
            "json": (self._json, _json),
            "human": (self._human, _human),
        }[form]

    def __call__(self, address: str, head: bytes, status: int, octets: int) -> None:
        """Log one answer."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._stamp = self._now(second)
        shown = self._addresses.get(address)
        if shown is None:
            if len(self._addresses) >= MAX_HEADS:
                self._addresses.clear()
            shown = self._addresses[address] = self._address(address)
        parts = self._heads.get(head)
        if parts is None:
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            parts = self._heads[head] = self._render(*_read(head))
        self.file.put(self._line(shown, parts, status, octets))

    def _address(self, address: str) -> bytes:
        if self._truncate:
            with contextlib.suppress(ValueError):
                ip = ipaddress.ip_address(address.partition("%")[0])
                bits = KEPT_BITS[ip.version]
                network = ipaddress.ip_network(f"{ip}/{bits}", strict=False)
                return str(network.network_address).encode()
        return address.encode() or b"-"

    def _now(self, second: int) -> bytes:
        # In UTC, whatever the machine's zone, so that logs of two places can be laid together.
        moment = time.gmtime(second)
        if self._render is _json:
            return time.strftime("%Y-%m-%dT%H:%M:%SZ", moment).encode()
        if self._render is _human:
            return time.strftime("%H:%M:%S", time.localtime(second)).encode()
        month = _MONTHS[moment.tm_mon * 3 - 3 : moment.tm_mon * 3]
        return time.strftime(f"%d/{month}/%Y:%H:%M:%S +0000", moment).encode()

    def _combined(
        self, address: bytes, parts: tuple[bytes, bytes], status: int, octets: int
    ) -> bytes:
        return b'%s - - [%s] "%s" %d %d %s\n' % (
            address, self._stamp, parts[0], status, octets, parts[1],
        )  # fmt: skip

    def _json(self, address: bytes, parts: tuple[bytes, bytes], status: int, octets: int) -> bytes:
        return b'{"time":"%s","remote":"%s",%s,"status":%d,"bytes":%d,%s}\n' % (
            self._stamp, address, parts[0], status, octets, parts[1],
        )  # fmt: skip

    def _human(self, address: bytes, parts: tuple[bytes, bytes], status: int, octets: int) -> bytes:
        return b"%s  %d %9d  %s  %s\n" % (self._stamp, status, octets, parts[0], address)


def _read(head: bytes) -> tuple[str, dict[str, str]]:
    """Return the request line of a head and the fields that are logged."""
    line, _, rest = head.partition(b"\r\n")
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(b"\r\n" + rest):
        fields.setdefault(name.decode().lower(), value.strip(b" \t").decode("latin-1"))
    return line[:8192].decode("latin-1"), fields


def _escape(text: str) -> str:
    """Escape what could end a field or a line, as nginx does: \\xHH."""
    return _ESCAPED.sub(lambda match: f"\\x{ord(match[0]):02X}", text)


def _combined(line: str, fields: dict[str, str]) -> tuple[bytes, bytes]:
    referer, agent = (_escape(fields.get(name, "")) or "-" for name in ("referer", "user-agent"))
    return _escape(line).encode() or b"-", f'"{referer}" "{agent}"'.encode()


def _json(line: str, fields: dict[str, str]) -> tuple[bytes, bytes]:
    method, _, rest = line.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    first = {"method": method, "target": target, "protocol": protocol}
    second = {
        "host": fields.get("host", ""),
        "referer": fields.get("referer", ""),
        "user_agent": fields.get("user-agent", ""),
    }
    inner = [json.dumps(part, separators=(",", ":"))[1:-1].encode() for part in (first, second)]
    return inner[0], inner[1]


def _human(line: str, _fields: dict[str, str]) -> tuple[bytes, bytes]:
    method, _, rest = line.partition(" ")
    return _escape(f"{method} {rest.rpartition(' ')[0]}").encode(), b""
