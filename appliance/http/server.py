"""What all connections of one listener share: site, memo, clock, limits, counters, one timer.

Once a second the timer brings the Date up to date, and looks at the deadline of each connection,
so that no request ever arms or disarms a timer.  The finished octets of small answers are kept
for the rest of the second in which they were made: a head seen twice in a second costs one
dictionary look-up and one write.  Imports asyncio for its types, and this package.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from appliance.http.admission import Admission
from appliance.http.largefile import Stretch
from appliance.http.memo import Memo
from appliance.http.message import STATUS_LINES, Answer, Request, plain
from appliance.http.preconditions import http_date
from appliance.http.semantics import Hosting, decide
from appliance.http.tally import Tally, target_of
from appliance.http.target import origin_form

if TYPE_CHECKING:
    from appliance.http.lane import Fields, Ready

logger = logging.getLogger(__name__)

# Octets; a larger answer is written head first, then piece by piece as the peer takes it.
SMALL = 256 * 1024
# Octets of finished answers kept within one second; past it they are made anew each time.
MAX_WIRES = 64 * 1024 * 1024
# Lists of fields whose answers are kept for HTTP/2, one generation of them; some 3 KB each.
MAX_READY = 4096
# Statuses whose answers depend on the head alone and are worth remembering.
_REMEMBERED = frozenset({200, 206, 301, 302, 304, 307, 308, 404})

# Answers a request of a chosen path before the site is asked, with its body and the peer's address;
# None leaves it to the site.  It must not block.
Hook = Callable[[Request, bytes, str], Answer | None]
# A log line's raw material: the peer's address, request head, status, octets of body.
OnRequest = Callable[[str, bytes, int, int], None]


class Holder(Protocol):
    """Whatever carries the current site; its one attribute is swapped atomically on reload."""

    @property
    def current(self) -> Hosting:
        """The site to serve now."""


class Served(Protocol):
    """What the server asks of each of its connections."""

    address: str  # of the peer; "" when it has none

    def waiting_since(self) -> float | None:
        """Return since when nothing is under way but a request to come; None: something is."""

    def shed(self) -> None:
        """Close without a word, to make room."""

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
    stall_seconds: float = 30.0  # over which a reader has to keep `min_rate`
    min_rate: int = 500  # octets a second; GPRS of the year 2000 gave four times as many
    linger_seconds: float = 5.0  # for a peer to read the last answer and close
    body: int = 64 * 1024  # a body is never wanted; this much is read to keep the connection
    connections: int = 10_000  # about 300 MB with the TCP under them
    # Connections of one address: a large office behind one translator, and never all there are.
    connections_each: int = 4096
    http2: bool = True  # by prior knowledge, which ALPN amounts to
    streams: int = 100  # at once on an HTTP/2 connection: what RFC 9113 §6.5.2 asks for at least


# Connections over the limit that are still told so; past these they are cut off without a word.
MAX_REFUSED = 200


class Hit:
    """A finished answer of this second, and how often it was sent since the last tick."""

    __slots__ = ("answer", "count", "last", "wire")

    def __init__(self, answer: Answer, wire: bytes, last: bool) -> None:
        self.answer = answer
        self.wire = wire
        self.last = last  # the connection closes after it
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
        scheme: str = "http",
        hsts: str = "",
        hooks: Mapping[bytes, Hook] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Serve `holder.current`.

        `clock` gives seconds since the epoch; `loop` needs `time`, `call_later` and
        `run_in_executor` and is the running one unless given.  `on_request` is called for each
        answer and must not block.  `hsts` is the value of Strict-Transport-Security, for a
        listener of https.  `hooks` are asked before the site for what they are named after: a
        path, or with a slash at its end whatever lies under it.
        """
        self.holder = holder
        self.site: Hosting = holder.current
        self.limits = limits
        self.clock = clock
        self.on_request = on_request
        self.remember = remember
        self.memo = Memo()
        self.last_memo = Memo()  # of heads after which the connection closes
        self.wires: dict[bytes, Hit] = {}  # by head; emptied each second
        self.ready: dict[Fields, Ready] = {}  # for HTTP/2; emptied when full
        self.connections: set[Served] = set()
        self.draining = False
        self.now = 0.0  # the loop's time at the last tick
        self._loop = loop
        self._finished: dict[tuple[Answer, bool], bytes] = {}  # emptied each second
        self._finished_bytes = 0
        self.scheme = scheme
        # RFC 6797 §7.2: not over http.
        wanted = hsts and scheme == "https"
        self._extra = b"Strict-Transport-Security: %s\r\n" % hsts.encode() if wanted else b""
        self._hooks: dict[bytes, Hook] = {}
        self._prefixes: list[tuple[bytes, Hook]] = []
        self._date = b""
        self._wall = 0.0  # seconds since the epoch at the last tick
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        # Counters.  Those of hits are folded in once a second, or when asked for.
        self.tally = Tally()
        self.accepted = 0
        self.refused_connections = 0  # over a limit of connections
        self.shed_connections = 0  # closed while they waited, to make room
        self._admission = Admission(limits.connections, limits.connections_each)
        self._full_at = -1.0  # the tick at which nobody was found to make room
        self.timeouts = 0  # heads, bodies and readers that were too slow
        self.memo_hits = 0
        self.files_changed = 0  # downloads broken off because the file is another one now
        self.hook_up(hooks or {})

    # -- connections --------------------------------------------------------------------------

    def opened(self, connection: Served) -> bool:
        """Count a connection in; False when there are too many."""
        if self._timer is None:
            self._begin_second()
        self.accepted += 1
        welcome = self._admission.arrive(connection.address)
        if welcome and len(self.connections) >= self.limits.connections:
            welcome = self._make_room()
        self.connections.add(connection)
        if not welcome:
            self.refused_connections += 1
        return welcome

    @property
    def overrun(self) -> bool:
        """Whether so many are refused already that the next is not worth a word."""
        return len(self.connections) > self.limits.connections + MAX_REFUSED

    def _make_room(self) -> bool:
        """Close some that wait; False when there is nobody."""
        if self._full_at == self.now:
            return False
        found = self._admission.to_shed(self.connections, self.now)
        if not found:
            self._full_at = self.now
        self.shed_connections += len(found)
        for connection in found:
            self.connections.discard(connection)
            connection.shed()
        return bool(found)

    def closed(self, connection: Served) -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        self._admission.leave(connection.address)
        # The clock runs on for the rest of the second: the next connection may be a moment away.
        if not self.connections and self._idle is not None and not self._idle.done():
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
        if self.connections:
            self._begin_second()
            return
        self._timer = None
        self._fold()
        self.wires.clear()
        self._forget_finished()

    def _begin_second(self) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        wall = self._wall = self.clock()
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

    # -- hooks --------------------------------------------------------------------------------

    def hook_up(self, hooks: Mapping[bytes, Hook]) -> None:
        """Ask these from now on, and no others."""
        self._hooks = {path: hook for path, hook in hooks.items() if path[-1:] != b"/"}
        self._prefixes = [(path, hook) for path, hook in hooks.items() if path[-1:] == b"/"]
        self._forget()

    def hook(self, target: bytes) -> Hook | None:
        """Return who answers a target before the site does."""
        if not self._hooks and not self._prefixes:
            return None
        path = origin_form(target).partition(b"?")[0]
        hook = self._hooks.get(path)
        if hook is None:
            for prefix, candidate in self._prefixes:
                if path.startswith(prefix):
                    return candidate
        return hook

    def ask(self, hook: Hook, request: Request, body: bytes, address: str) -> Answer:
        """Let a hook answer, or else the site; a hook that fails costs its peer a 500.

        Hooks need not know that an answer to HEAD has no content (RFC 9110 §9.3.2).
        """
        origin = origin_form(request.target)
        asked = request if origin is request.target else request._replace(target=origin)
        try:
            answer = hook(asked, body, address)
        except Exception:
            logger.exception("a hook failed on %r", request.target[:200])
            answer = plain(500)
        if answer is None:
            return decide(self.renew(), request)
        if request.method == b"HEAD" and answer.parts:
            return Answer(answer.status, answer.block)
        return answer

    # -- answers ------------------------------------------------------------------------------

    def renew(self) -> Hosting:
        """Return the site of now, forgetting everything that was decided about another one."""
        current = self.holder.current
        if current is not self.site:
            self._forget()
            self.site = current
        return current

    def _forget(self) -> None:
        """Forget what was decided, after it was counted."""
        self._fold()
        self.memo.clear()
        self.last_memo.clear()
        self.wires.clear()
        self.ready = {}
        self._forget_finished()

    def head(self, answer: Answer, *, close: bool, stay: bool = False) -> bytes:
        """Return the octets of a whole response head; `stay` tells HTTP/1.0 that it may go on."""
        return b"%s%s%s%s%s\r\n" % (
            STATUS_LINES[answer.status],
            self._date,
            answer.block,
            self._extra,
            b"Connection: close\r\n" if close else b"Connection: keep-alive\r\n" if stay else b"",
        )

    @property
    def extra(self) -> bytes:
        """The field lines that every answer of this listener has."""
        return self._extra

    def wire(self, answer: Answer, *, close: bool = False) -> bytes:
        """Return the octets of a small answer."""
        return self.head(answer, close=close) + b"".join(answer.parts)  # type: ignore[arg-type]

    def recall(self, head: bytes, *, last: bool) -> Answer | None:
        """Look a head up in its memo, and keep the octets of its answer for this second."""
        answer = self.last_memo.get(head) if last else self.memo.get(head)
        if answer is None:
            return None
        self.memo_hits += 1
        if answer.length <= SMALL and not self.draining:
            wire = self._finished.get((answer, last))
            if wire is None:
                if self._finished_bytes >= MAX_WIRES:
                    return answer
                wire = self._finished[answer, last] = self.wire(answer, close=last)
                self._finished_bytes += len(wire)
            self.wires[head] = Hit(answer, wire, last)
        return answer

    def keep(self, head: bytes, answer: Answer, *, last: bool) -> None:
        """Remember the answer to a head that may be remembered."""
        if self.remember and answer.status in _REMEMBERED:
            (self.last_memo if last else self.memo).put(head, answer)

    def keep_ready(self, request: Request, fields: Fields, answer: Answer, log: bytes) -> None:
        """Remember the answer to the fields of an HTTP/2 request that ended with its head."""
        if (
            self.remember
            and answer.status in _REMEMBERED
            and answer.length <= SMALL
            and request.method in {b"GET", b"HEAD"}
            and fields not in self.ready
        ):
            if len(self.ready) >= MAX_READY:
                self._fold()
                self.ready = {}
            from appliance.http.lane import Ready  # its peer speaks HTTP/2, so it is here

            self.ready[fields] = Ready(answer, fields, request.target, log)

    # -- counters -----------------------------------------------------------------------------

    def count(self, answer: Answer, target: bytes, version: str = "1.1") -> None:
        """Count one answer that was not a hit of this second."""
        self.tally.count(answer.status, answer.length, target, self._wall, 1, version)

    def _fold(self) -> None:
        for head, hit in self.wires.items():
            if hit.count:
                answer = hit.answer
                self.tally.count(
                    answer.status, answer.length, target_of(head), self._wall, hit.count
                )
                self.memo_hits += hit.count
                hit.count = 0
        for ready in self.ready.values():
            if ready.count:
                answer = ready.answer
                self.tally.count(
                    answer.status, answer.length, ready.target, self._wall, ready.count, "2"
                )
                self.memo_hits += ready.count
                ready.count = 0

    # -- files --------------------------------------------------------------------------------

    def fetch(self, stretch: Stretch, done: Callable[[bytes | None], None]) -> None:
        """Read the next slice in a thread; `done` gets it later, or None when it cannot be had."""
        loop = self._loop
        assert loop is not None  # a connection is open, so the clock runs

        def finish(future: asyncio.Future[bytes]) -> None:
            done(None if future.cancelled() or future.exception() else future.result())

        loop.run_in_executor(None, stretch.read).add_done_callback(finish)

    def counters(self) -> dict[str, int]:
        """Return all counters by name."""
        self._fold()
        return {
            "requests": sum(self.tally.statuses.values()),
            **{f"status_{status}": n for status, n in sorted(self.tally.statuses.items())},
            "body_bytes": self.tally.octets,
            "memo_hits": self.memo_hits,
            "memo_entries": len(self.memo),
            "connections": len(self.connections),
            "connections_accepted": self.accepted,
            "connections_refused": self.refused_connections,
            "connections_shed": self.shed_connections,
            "timeouts": self.timeouts,
            "files_changed": self.files_changed,
        }
