"""What the two ends of a simulated connection do: write, read, rest, and end in one way or another.

A `Stream` is the octets of one direction, which everybody can compute: whoever receives octet n
knows what it must be, and so does whoever watches the wire. An `End` says how one end behaves, an
`Application` behaves so; what it hears that no TCP may tell an application goes to `report`.

Imports `net.tcp` and `world`.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from annotated_types import Ge, Gt

from appliance.fuzz.world import World
from appliance.net.seq import MASK
from appliance.net.tcp import Connection

_PERIOD: Final = 65_521
"""Octets after which a stream repeats: a prime, so that no power of two hides a displacement."""
_BLOCK: Final = random_module.Random(9293).randbytes(_PERIOD) * 3
HIGH: Final = 1 << 18
"""Octets that an application writes ahead of the network, like asyncio's transports do."""

Report = Callable[[str, str], None]
"""Called with the name of a broken rule and what happened."""


class Stream:
    """The octets of one direction of one connection; those of different `number`s differ."""

    __slots__ = ("_offset",)

    def __init__(self, number: int) -> None:
        self._offset = number * 7_919 % _PERIOD

    def take(self, at: int, length: int) -> bytes:
        """Return `length` octets from position `at` on."""
        first = (at + self._offset) % _PERIOD
        if first + length <= len(_BLOCK):
            return _BLOCK[first : first + length]
        return b"".join(
            self.take(at + n, min(_PERIOD, length - n)) for n in range(0, length, _PERIOD)
        )

    def matches(self, at: int, data: bytes) -> bool:
        """Tell whether `data` is what stands at position `at`."""
        return self.take(at, len(data)) == data


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How one end of a connection behaves."""

    sends: Annotated[int, Ge(0)] = 0
    """Octets; in each round, when there are rounds."""
    piece: Annotated[int, Gt(0)] = 65_536
    """Octets of the largest write."""
    gap: Annotated[float, Ge(0.0)] = 0.0
    """Seconds between writes; 0: as fast as they are taken."""
    pause_every: Annotated[int, Ge(0)] = 0
    """Deliveries after which it stops reading for a while; 0: never."""
    pause: Annotated[float, Ge(0.0)] = 1.0
    """Seconds that it then rests."""
    ending: Literal["shutdown", "close", "abort"] = "shutdown"
    """Ends its direction; or both; or resets the connection."""
    when: Literal["sent", "done", "eof", "received", "time"] = "sent"
    """It ends once all is written; once all is written and read; once the other end has ended;
    after `after` octets received, or once the other end has ended; after `after` seconds."""
    after: Annotated[float, Ge(0.0)] = 0.0
    early: bool = False
    """Of a client: it writes a first piece before the connection is established (RFC 7413)."""


class Application:
    """One end of one connection; the `TcpUser` of its `Connection`.

    `mine` and `theirs` are the streams, `rounds` the turns of a conversation in which one end
    speaks `first` (0: both send at once), `wanted` the octets that the other end sends in each.
    """

    def __init__(
        self,
        world: World,
        end: End,
        *,
        mine: Stream,
        theirs: Stream,
        wanted: int,
        rounds: int,
        first: bool,
        random: random_module.Random,
        report: Report,
        name: str,
    ) -> None:
        self.end = end
        self.name = name
        self.mine = mine
        self.theirs = theirs
        self.connection: Connection | None = None
        self.established = 0
        self.written = 0
        self.got = 0
        self.eof = False
        self.closed: list[Exception | None] = []
        self.ended = ""
        """How it has ended its side, and "" while it has not."""
        self.total = end.sends * max(rounds, 1)
        self.wanted_total = wanted * max(rounds, 1)
        self._world = world
        self._wanted = wanted
        self._rounds = rounds
        self._first = first
        self._random = random
        self._report = report
        self._deliveries = 0
        self._gap_runs = False

    def attach(self, connection: Connection) -> Application:
        """Be the user of `connection`."""
        self.connection = connection
        return self

    @property
    def conn(self) -> Connection:
        """The connection, which there must be."""
        assert self.connection is not None
        return self.connection

    def began(self, number: int) -> bool:
        """Whether its connection's SYN had this sequence number, as it stood on the wire."""
        return self.connection is not None and self.connection.iss & MASK == number & MASK

    @property
    def over(self) -> bool:
        """Whether it has heard, or decided, that the connection is over."""
        return bool(self.closed) or self.ended == "abort"

    # ------------------------------------------------------------------ what it is told

    def tcp_established(self) -> None:
        """Begin to write."""
        self.established += 1
        if self.established > 1 or self.closed or self.got:
            self._report("upcall", f"{self.name}: established {self.established} times, or late")
        if self.end.when == "time":
            self._world.after(self.end.after, self._end_now)
        self._feed()

    def tcp_data(self, data: bytes) -> None:
        """Compare what came with what was to come."""
        if not data or self.eof or self.closed or self.ended in ("close", "abort"):
            self._report("upcall", f"{self.name}: {len(data)} octets after the end, or none")
        if self.got + len(data) > self.wanted_total:
            self._report("stream", f"{self.name}: {self.got + len(data)} octets came, "
                         f"{self.wanted_total} were sent")  # fmt: skip
        elif not self.theirs.matches(self.got, bytes(data)):
            self._report("stream", f"{self.name}: wrong octets at {self.got}, {len(data)} long")
        self.got += len(data)
        end = self.end
        if end.when == "received" and self.got >= end.after:
            self._end_now()
        elif self.ended not in ("close", "abort"):
            self._deliveries += 1
            if end.pause_every and self._deliveries % end.pause_every == 0:
                self.conn.pause()
                self._world.after(end.pause, self._resume)
            self._feed()

    def tcp_eof(self) -> None:
        """Note that the other end has ended."""
        if self.eof or self.closed:
            self._report("upcall", f"{self.name}: a second end of the stream, or a late one")
        self.eof = True
        if self.end.when == "received" or (self.end.when == "eof" and self.written >= self.total):
            self._end_now()
        else:
            self._feed()

    def tcp_writable(self) -> None:
        """Write on."""
        self._feed()

    def tcp_closed(self, error: Exception | None) -> None:
        """Note how it ended."""
        if self.closed or self.ended == "abort":
            self._report("upcall", f"{self.name}: told of the end twice, or after an abort")
        self.closed.append(error)

    # ------------------------------------------------------------------ what it does

    def hurry(self) -> None:
        """Write a first piece at once, so that the SYN may take it along."""
        size = min(self._random.randint(1, self.end.piece), self._allowed())
        if self.end.early and size and not self.written:
            self.conn.send(self.mine.take(0, size))
            self.written = size

    def _allowed(self) -> int:
        """Octets that may have been written by now, when ends take turns."""
        if not self._rounds:
            return self.total
        turns = self.got // self._wanted if self._wanted else self._rounds
        return min((turns + self._first) * self.end.sends, self.total)

    def _feed(self) -> None:
        """Write what it is time to write, and end when it is time to end."""
        end, conn = self.end, self.connection
        if conn is None or self.ended or self.closed:
            return
        allowed = self._allowed()
        while self.written < allowed and conn.unsent <= HIGH:
            if end.gap and self._gap_runs:
                return
            size = min(self._random.randint(1, end.piece), allowed - self.written)
            conn.send(self.mine.take(self.written, size))
            self.written += size
            if end.gap:
                self._gap_runs = True
                self._world.after(end.gap, self._gap_over)
        if self.written < allowed:
            conn.notify_below = HIGH // 2
        elif self.written >= self.total and self._time_to_end():
            self._end_now()

    def _time_to_end(self) -> bool:
        when = self.end.when
        if when == "sent":
            return True
        if when == "done":
            return self.got >= self.wanted_total
        return when == "eof" and self.eof

    def _end_now(self) -> None:
        if self.ended or self.closed or self.connection is None:
            return
        self.ended = self.end.ending
        if self.ended == "shutdown":
            self.conn.shutdown()
        elif self.ended == "close":
            self.conn.close()
        else:
            self.conn.abort()

    def _gap_over(self) -> None:
        self._gap_runs = False
        self._feed()

    def _resume(self) -> None:
        if self.ended not in ("close", "abort"):
            self.conn.resume()
