"""What all connections of one listener share: site, memo, clock, limits, counters, one timer.

Once a second the timer brings the Date up to date, and looks at the deadline of each connection,
so that no request ever arms or disarms a timer.  The finished octets of small answers are kept
for the rest of the second in which they were made: a head seen twice in a second costs one
dictionary look-up and one write.  Imports asyncio for its types, and this package.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from appliance.http.memo import Memo
from appliance.http.message import STATUS_LINES, Answer
from appliance.http.preconditions import http_date
from appliance.http.semantics import Hosting

# Octets; a larger answer is written head first, then piece by piece as the peer takes it.
SMALL = 256 * 1024
# Octets of finished answers kept within one second; past it they are made anew each time.
MAX_WIRES = 64 * 1024 * 1024
# Statuses whose answers depend on the head alone and are worth remembering.
_REMEMBERED = frozenset({200, 206, 301, 302, 304, 307, 308, 404})

# A log line's raw material: peer name, request head, status, octets of body.
OnRequest = Callable[[Any, bytes, int, int], None]


class Holder(Protocol):
    """Whatever carries the current site; its one attribute is swapped atomically on reload."""

    @property
    def current(self) -> Hosting:
        """The site to serve now."""


class Served(Protocol):
    """What the server asks of each of its connections."""

    def check(self, now: float) -> None:
        """Look at the deadline; called once a second with the loop's time."""

    def drain(self) -> None:
        """Finish the answer under way, and close."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of anything a peer may ask for; times in seconds, sizes in octets."""

    head_seconds: float = 10.0  # for a whole head, from its first octet: slowloris ends here
    idle_seconds: float = 75.0  # between requests: nginx's default, and browsers expect it
    body_seconds: float = 30.0  # for a request body that is being thrown away
    stall_seconds: float = 30.0  # for a reader that takes nothing of an answer
    linger_seconds: float = 5.0  # for a peer to read the last answer and close
    body: int = 64 * 1024  # a body is never wanted; this much is read to keep the connection
    connections: int = 10_000  # about 300 MB with the TCP under them
    http2: bool = True  # by prior knowledge, which ALPN amounts to
    streams: int = 100  # at once on an HTTP/2 connection: what RFC 9113 §6.5.2 asks for at least


class Hit:
    """A finished answer of this second, and how often it was sent since the last tick."""

    __slots__ = ("answer", "count", "wire")

    def __init__(self, answer: Answer, wire: bytes) -> None:
        self.answer = answer
        self.wire = wire
        self.count = 0


class HttpServer:
    """The shared part of a listener; its connections are made as `HttpProtocol(server)`."""

    def __init__(
        self,
        holder: Holder,
        *,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.time,
        on_request: OnRequest | None = None,
        remember: bool = True,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Serve `holder.current`.

        `clock` gives seconds since the epoch; `loop` needs `time` and `call_later` and is the
        running one unless given.  `on_request` is called for each answer and must not block.
        """
        self.holder = holder
        self.site: Hosting = holder.current
        self.limits = limits
        self.clock = clock
        self.on_request = on_request
        self.remember = remember
        self.memo = Memo()
        self.wires: dict[bytes, Hit] = {}  # by head; emptied each second
        self.connections: set[Served] = set()
        self.draining = False
        self.now = 0.0  # the loop's time at the last tick
        self._loop = loop
        self._finished: dict[Answer, bytes] = {}  # emptied each second
        self._finished_bytes = 0
        self._date = b""
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        # Counters.  Those of hits are folded in once a second, or when asked for.
        self._statuses: Counter[int] = Counter()
        self._body_bytes = 0
        self.accepted = 0
        self.refused_connections = 0  # over the limit of connections
        self.timeouts = 0  # heads, bodies and readers that were too slow
        self.memo_hits = 0
        self.files_changed = 0  # downloads broken off because the file is another one now

    # -- connections --------------------------------------------------------------------------

    def opened(self, connection: Served) -> bool:
        """Count a connection in; False when there are too many."""
        if self._timer is None:
            self._tick()
        self.accepted += 1
        self.connections.add(connection)
        if len(self.connections) > self.limits.connections:
            self.refused_connections += 1
            return False
        return True

    def closed(self, connection: Served) -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        if not self.connections:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._fold()
            self.wires.clear()
            self._forget_finished()
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)

    def replaced(self, connection: Served, successor: Served) -> None:
        """Put another protocol in a connection's place."""
        self.connections.discard(connection)
        self.connections.add(successor)

    def drain(self) -> None:
        """Close connections at rest, and the others after the answer they are at."""
        self.draining = True
        self.wires.clear()
        for connection in list(self.connections):
            connection.drain()

    async def drained(self) -> None:
        """Wait until the last connection is gone."""
        if self.connections:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    # -- time ---------------------------------------------------------------------------------

    def _tick(self) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        wall = self.clock()
        # On the second, so that Date is never a second behind.
        self._timer = loop.call_later(1.0 - wall % 1.0 + 0.001, self._tick)
        self.now = loop.time()
        self._date = b"Date: %s\r\n" % http_date(wall)
        self._fold()
        self.wires.clear()
        self._forget_finished()
        for connection in list(self.connections):
            connection.check(self.now)

    @property
    def date(self) -> bytes:
        """The Date field line of this second."""
        return self._date

    def _forget_finished(self) -> None:
        self._finished.clear()
        self._finished_bytes = 0

    # -- answers ------------------------------------------------------------------------------

    def renew(self) -> Hosting:
        """Return the site of now, forgetting everything that was decided about another one."""
        current = self.holder.current
        if current is not self.site:
            self._fold()
            self.memo.clear()
            self.wires.clear()
            self._forget_finished()
            self.site = current
        return current

    def head(self, answer: Answer, *, close: bool) -> bytes:
        """Return the octets of a whole response head."""
        return b"%s%s%s%s\r\n" % (
            STATUS_LINES[answer.status],
            self._date,
            answer.block,
            b"Connection: close\r\n" if close else b"",
        )

    def wire(self, answer: Answer) -> bytes:
        """Return the octets of a small answer on a connection that goes on."""
        return self.head(answer, close=False) + b"".join(answer.parts)  # type: ignore[arg-type]

    def recall(self, head: bytes) -> Answer | None:
        """Look a head up in the memo, and keep the octets of its answer for this second."""
        answer = self.memo.get(head)
        if answer is None:
            return None
        self.memo_hits += 1
        if answer.length <= SMALL and not self.draining:
            wire = self._finished.get(answer)
            if wire is None:
                if self._finished_bytes >= MAX_WIRES:
                    return answer
                wire = self._finished[answer] = self.wire(answer)
                self._finished_bytes += len(wire)
            self.wires[head] = Hit(answer, wire)
        return answer

    def keep(self, head: bytes, answer: Answer) -> None:
        """Remember the answer to a head that may be remembered."""
        if self.remember and answer.status in _REMEMBERED:
            self.memo.put(head, answer)

    # -- counters -----------------------------------------------------------------------------

    def count(self, answer: Answer) -> None:
        """Count one answer that was not a hit of this second."""
        self._statuses[answer.status] += 1
        self._body_bytes += answer.length

    def _fold(self) -> None:
        for hit in self.wires.values():
            if hit.count:
                self._statuses[hit.answer.status] += hit.count
                self._body_bytes += hit.count * hit.answer.length
                self.memo_hits += hit.count
                hit.count = 0

    def counters(self) -> dict[str, int]:
        """Return all counters by name."""
        self._fold()
        return {
            "requests": sum(self._statuses.values()),
            **{f"status_{status}": n for status, n in sorted(self._statuses.items())},
            "body_bytes": self._body_bytes,
            "memo_hits": self.memo_hits,
            "memo_entries": len(self.memo),
            "connections": len(self.connections),
            "connections_accepted": self.accepted,
            "connections_refused": self.refused_connections,
            "timeouts": self.timeouts,
            "files_changed": self.files_changed,
        }
