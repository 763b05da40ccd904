"""The query log: a line for each question (or for a sample), as text or JSON.

It stands between the protocols and the catalog, so that a server without a log pays nothing for it.
Lines gather in memory and are written a few times a second, by a thread; when the disk does not
keep up, lines are lost and counted, never answers.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from appliance.dns import names
from appliance.dns.consts import HEADER_LEN, RCODE_NAMES
from appliance.dns.datagrams import is_update
from appliance.dns.edns import QUERIES_TLS
from appliance.dns.errors import WireError
from appliance.dns.names import end_of
from appliance.dns.rrl import address_of
from appliance.dns.text import type_name

WAITING: Final = 100_000
"""Lines in memory at most, about 15 MB; more are lost."""
EVERY: Final = 0.25
"""Seconds between two writes."""


class QueryLog:
    """A holder like the one it stands before, whose catalog writes down what it is asked."""

    def __init__(
        self, inner: Any, path: Path, form: str, sample: float, say: Callable[[str], None]
    ) -> None:
        """`form` is "text" or "json"; of the questions a `sample` (0 to 1) is logged. OSError."""
        self._inner = inner
        self._json = form == "json"
        self._sample = sample
        self._random = Random(0)
        self._say = say
        self._lines: list[str] = []
        self._lost = 0
        self._path = path
        self._file = _open(path)
        self._moved = False  # the file was renamed
        self._full = False  # said that it cannot be written
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    @property
    def current(self) -> QueryLog:
        """What protocols ask: this, in place of the catalog."""
        return self

    @property
    def counters(self) -> Any:
        """The catalog's."""
        return self._inner.current.counters

    def update(self, message: bytes, peer: Any, reply: Callable[[bytes], None]) -> None:
        """An UPDATE, logged with its answer."""

        def told(answer: bytes) -> None:
            self._note(message, answer, "update", peer)
            reply(answer)

        self._inner.update(message, peer, told)

    def answer(self, query: bytes, *, transport: str = "udp", peer: Any = None) -> bytes | None:
        """As the catalog's."""
        answer: bytes | None = self._inner.current.answer(query, transport=transport, peer=peer)
        if answer is None and is_update(query):
            return None
        self.answered(query, answer, transport, peer)
        return answer

    def stream(
        self, query: bytes, *, transport: str = "tcp", peer: Any = None
    ) -> bytes | Iterator[bytes] | None:
        """As the catalog's; a transfer is logged when it begins."""
        answer: bytes | Iterator[bytes] | None
        answer = self._inner.current.stream(query, transport=transport, peer=peer)
        if answer is None and is_update(query):
            return None
        said = answer if isinstance(answer, bytes) or answer is None else b""
        self.answered(query, said, "tls" if transport == QUERIES_TLS else transport, peer)
        return answer

    def answered(self, query: bytes, answer: bytes | None, transport: str, peer: Any) -> None:
        """Note a question that was answered, if it is in the sample."""
        if self._sample == 1 or self._random.random() < self._sample:
            self._note(query, answer, transport, peer)

    def _note(self, query: bytes, answer: bytes | None, transport: str, peer: Any) -> None:
        if len(self._lines) >= WAITING:
            self._lost += 1
            return
        self._lines.append(self._line(query, answer, transport, peer))
        self.counters.logged += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._write)

    def _line(self, query: bytes, answer: bytes | None, transport: str, peer: Any) -> str:
        name, kind = "-", "-"
        try:
            end = end_of(query, HEADER_LEN)
            if len(query) >= end + 4:
                name = names.to_text(query[HEADER_LEN:end])
                kind = type_name(int.from_bytes(query[end : end + 2], "big"))
        except WireError:
            pass
        rcode = "none" if answer is None else "transfer"
        if answer:
            rcode = RCODE_NAMES.get(answer[3] & 15, str(answer[3] & 15))
        now = time.time()
        size = len(answer or b"")
        if self._json:
            return json.dumps(
                {
                    "time": round(now, 6),
                    "client": address_of(peer),
                    "transport": transport,
                    "name": name,
                    "type": kind,
                    "rcode": rcode,
                    "octets": size,
                }
            )
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        moment += f".{int(now * 1000) % 1000:03d}Z"
        return f"{moment} {address_of(peer)} {transport} {name} {kind} {rcode} {size}"

    def _write(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._writing is not None and not self._writing.done():
            self._timer = loop.call_later(EVERY, self._write)
            return
        lines, self._lines = self._lines, []
        if self._lost:
            self._say(f"warning: the query log does not keep up: {self._lost} lines lost")
            self._lost = 0
        self._writing = loop.run_in_executor(None, self._put, lines)

    def _put(self, lines: list[str]) -> None:
        data = memoryview("".join(line + "\n" for line in lines).encode())
        try:
            while data:  # a disk that is nearly full takes a part
                data = data[self._file.write(data) :]
            self._full = False
        except OSError as error:
            if not self._full:
                self._full = True
                why = error.strerror
                self._say(f"error: the query log {self._path}: {why}; lines are lost")
        if self._moved:
            self._moved = False
            self._open_again()

    def _open_again(self) -> None:
        try:
            file = _open(self._path)
        except OSError as error:
            why = error.strerror
            self._say(f"error: the query log {self._path}: {why}; going on with the old file")
            return
        self._file.close()
        self._file = file

    def reopen(self) -> None:
        """Open the path again before the next line: the file was renamed."""
        self._moved = True
        if self._timer is not None:
            self._timer.cancel()
        self._write()

    async def close(self) -> None:
        """Write what waits, and let go of the file."""
        self._sample = 0.0  # datagrams are answered until the stack ends
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await self._writing
        self._put(self._lines)
        self._lines = []
        self._file.close()


def _open(path: Path) -> io.FileIO:
    """Append to a file; who asks for what is for its owner's and their group's eyes. OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return io.FileIO(os.open(path, flags, 0o640), "ab")
