"""TCP Fast Open: octets in the SYN, a round trip before the handshake is complete (RFC 7413).

A server that believes a SYN before it has seen that its sender exists can be made to work, and to
send, for addresses that are not the sender's.  So a client first asks for a *cookie*, which comes
with an ordinary SYN,ACK, and shows it with the SYNs that carry data from then on:

    client   SYN, cookie?                  SYN, cookie, "GET /"
    server            SYN,ACK, cookie                           SYN,ACK of all of it, "200 OK"

The cookie is a keyed hash of the two addresses, so the server keeps none of them; whoever has it
has received something at the client's address.  A SYN that is doubled by the network may deliver
its octets to two connections (§2.1): only an application that does not mind asks for this.

Here is what both ends decide by: `Cookies` and `OpenQueue` for a server, `Servers` for a client,
and `Opening`, which one connection remembers of it.  Cookies are those of Linux, SipHash of the
client's address and ours, so that hosts of either kind behind one address may share a key (§4.1.2).
Nothing here sends; time is handed in.  It imports `siphash` and `counters`.
"""

from __future__ import annotations

from bisect import insort
from hashlib import blake2b
from hmac import compare_digest
from math import inf
from typing import Final, NamedTuple

from appliance.net.counters import Counters
from appliance.siphash import KEY_LEN, siphash24

MIN_COOKIE: Final = 4  # octets; RFC 7413 §2, §4.1.1
MAX_COOKIE: Final = 16
ROTATION: Final = 86_400.0  # seconds for which a key makes cookies; §5.2 wants them to expire
RESET_MEMORY: Final = 60.0  # seconds for which an open that was reset counts (§5.1), as in Linux
SERVERS: Final = 1_024  # servers that a client remembers, at some 0.3 KB each
PAUSE: Final = 60.0  # seconds without Fast Open after lost SYNs, doubled each time (§4.1.3.1)
# Octets of a segment that SYN data leaves to options, as Linux does: a box on the way may add some.
OPTIONS_ROOM: Final = 40


class Verdict(NamedTuple):
    """What becomes of a SYN: it opens at once, or not; `cookie` goes into the SYN,ACK, if any."""

    opens: bool
    cookie: bytes | None


NO_FAST_OPEN: Final = Verdict(False, None)
OPENS: Final = Verdict(True, None)


class OpenQueue:
    """The fast opens of one listener whose handshakes are not complete (RFC 7413 §5.1)."""

    __slots__ = ("_resets", "keys", "pending")

    def __init__(self) -> None:
        self.pending = 0
        self.keys: tuple[bytes, ...] = ()  # of this listener alone; empty: the host's
        self._resets: list[float] = []  # when each of the pending that was reset stops counting

    def is_full(self, limit: int, now: float) -> bool:
        """Tell whether one more would be beyond `limit`."""
        resets = self._resets
        while resets and resets[0] <= now:
            del resets[0]
            self.pending -= 1
        return self.pending >= limit

    def enter(self) -> None:
        """One more is pending."""
        self.pending += 1

    def leave(self, *, reset_until: float = -inf) -> None:
        """One is no longer pending; but one that was reset counts until `reset_until`.

        §5.1: somebody who spoofs addresses may spoof the resets as well, or provoke them from the
        hosts that have those addresses; so a reset gives no room for another SYN.
        """
        if reset_until > -inf:
            insort(self._resets, reset_until)
        else:
            self.pending -= 1


class Cookies:
    """A server's cookies: made by the newest key, known by that and the one before (§4.1.2)."""

    def __init__(self, secret: bytes, counters: Counters) -> None:
        """`secret`: what keys are made of while none is given; several processes may share it."""
        self._secret = secret
        self._counters = counters
        self._given: tuple[bytes, ...] = ()
        self._made: tuple[bytes, ...] = ()
        self._step = -1

    def use_keys(self, keys: tuple[bytes, ...]) -> None:
        """Use these, newest first, and no others; ValueError unless each has 16 octets."""
        if any(len(key) != KEY_LEN for key in keys):
            raise ValueError(f"a key of Fast Open has {KEY_LEN} octets")
        self._given = keys

    def _keys(self, now: float) -> tuple[bytes, ...]:
        """The keys of now: of this day and the day before, counted by the clock of the host."""
        if self._given:
            return self._given
        step = int(now / ROTATION)
        if step != self._step:
            self._step = step
            self._made = tuple(
                blake2b(
                    b"fast open" + day.to_bytes(8, "big", signed=True),
                    digest_size=KEY_LEN,
                    key=self._secret,
                ).digest()
                for day in (step, step - 1)
            )
        return self._made

    def judge(
        self,
        queue: OpenQueue,
        limit: int,
        offered: bytes | None,
        data: bool,
        addresses: bytes,
        now: float,
        *,
        required: bool = True,
    ) -> Verdict:
        """Decide about a SYN that came with a cookie (b"": asking for one) or None, and `data`.

        `addresses` are the client's and ours; `limit` how many may be pending; `required`: only
        who shows a cookie opens at once.  RFC 7413 §4.2.2.
        """
        if offered is None and not data:
            return NO_FAST_OPEN
        counters = self._counters
        if queue.is_full(limit, now):
            # §5.1: at the limit the server does without, and says nothing of cookies either.
            counters.tcp_fast_open_overflows += 1
            return NO_FAST_OPEN
        if not required:
            return OPENS
        if offered is None:
            return NO_FAST_OPEN
        keys = queue.keys or self._keys(now)
        fresh = siphash24(keys[0], addresses)
        if not offered:
            counters.tcp_fast_open_cookies_given += 1
            return Verdict(False, fresh)
        if compare_digest(fresh, offered):
            return OPENS
        for key in keys[1:]:
            if compare_digest(siphash24(key, addresses), offered):
                # Known, but its key retires: it gets another for the next time.
                counters.tcp_fast_open_cookies_given += 1
                return Verdict(True, fresh)
        # §4.2.2, second: one that is not valid is answered by one that is, and an ordinary SYN,ACK.
        counters.tcp_fast_open_cookies_failed += 1
        return Verdict(False, fresh)


class Server:
    """What a client knows of one server (RFC 7413 §4.1.3)."""

    __slots__ = ("asked", "cookie", "experimental", "losses", "mss", "paused_until")

    def __init__(self) -> None:
        self.cookie = b""
        self.experimental = False  # the cookie came in the option that was there before RFC 7413
        self.mss = 0  # octets that its last SYN,ACK announced; 0: unknown
        self.asked = 0  # 1: in vain by the option of RFC 7413; 2: by the older one as well
        self.losses = 0  # SYNs with data in a row that seem to have been lost for it
        self.paused_until = -inf


class Opening:
    """What one connection that opens fast, at either end, remembers of it."""

    __slots__ = ("cookie", "experimental", "octets", "queue", "server", "servers", "taken")

    def __init__(self, cookie: bytes | None, experimental: bool) -> None:
        self.cookie = cookie  # to be sent with the SYN or SYN,ACK; b"" asks; None: no option
        self.experimental = experimental
        self.octets = 0  # of data that the SYN carried
        self.taken = False  # the server has taken all of them
        self.queue: OpenQueue | None = None  # of the listener, while the handshake is pending
        self.servers: Servers | None = None  # of the client
        self.server = b""  # its address

    def room(self, segment: int) -> int:
        """Octets of data that may go with the SYN, `segment` being what the path carries."""
        servers = self.servers
        if servers is None or self.cookie == b"":
            return 0
        # RFC 7413 §4.1.3: the MSS of before.  Where none is known, which is without cookies, as
        # much as the path carries, as in Linux; 536 would be the least that every host takes.
        known = servers.mss_of(self.server)
        return max(min(segment, known or segment) - OPTIONS_ROOM, 0)

    def complete(self) -> None:
        """The handshake is."""
        if self.queue is not None:
            self.queue.leave()
            self.queue = None

    def over(self, heard: float, *, was_reset: bool) -> None:
        """The connection is, whose peer was heard last at `heard`; `was_reset`: by the peer."""
        if self.queue is not None:
            self.queue.leave(reset_until=heard + RESET_MEMORY if was_reset else -inf)
            self.queue = None


class Servers:
    """The servers that a client remembers, by address; the one not met for longest goes first."""

    def __init__(self, limit: int = SERVERS) -> None:
        self._limit = limit
        self._known: dict[bytes, Server] = {}

    def __len__(self) -> int:
        return len(self._known)

    def forget(self) -> None:
        """Forget them all."""
        self._known.clear()

    def knows_cookie(self, address: bytes) -> bool:
        """Tell whether a SYN to `address` could carry data."""
        server = self._known.get(address)
        return server is not None and bool(server.cookie)

    def mss_of(self, address: bytes) -> int:
        """Octets that the server's last SYN,ACK announced; 0: unknown."""
        server = self._known.get(address)
        return server.mss if server is not None else 0

    def begin(self, address: bytes, now: float, *, cookies: bool = True) -> Opening | None:
        """Begin an open to `address`; None: better in the ordinary way.

        `cookies` False: data goes with the SYN without one (RFC 7413 §7.3).
        """
        server = self._known.get(address)
        if server is not None and now < server.paused_until:
            return None
        if not cookies:
            opening = Opening(None, False)
        elif server is None:
            opening = Opening(b"", False)
        elif server.cookie:
            opening = Opening(server.cookie, server.experimental)
        else:
            opening = Opening(b"", server.asked == 1)
        opening.servers = self
        opening.server = address
        return opening

    def answered(
        self,
        opening: Opening,
        said: tuple[bytes, bool] | None,
        mss: int,
        repeats: int,
        taken: int,
        now: float,
    ) -> None:
        """A SYN,ACK came with `mss` octets, to SYNs that were sent again `repeats` times.

        `said`: the cookie, and whether in the older option; or None.  `taken` of the octets that
        the SYN carried were acknowledged.  RFC 7413 §4.2.1, §4.2.2.
        """
        address = opening.server
        server = self._known.pop(address, None) or Server()
        self._known[address] = server
        if len(self._known) > self._limit:
            del self._known[next(iter(self._known))]
        server.mss = mss
        if opening.cookie is not None and said is not None and said[0]:
            server.cookie, server.experimental = said
        elif opening.cookie == b"" and not repeats and not server.cookie:
            # The option of before RFC 7413 is tried once, as Linux does, and then no more.
            server.asked = max(server.asked, 2 if opening.experimental else 1)
        if repeats and opening.octets and not taken and said is None:
            # §4.1.3.1: perhaps something on the way drops SYNs with data, or with the option.
            server.losses += 1
            if server.losses > 1:
                server.paused_until = now + PAUSE * (1 << min(server.losses, 8))
        else:
            server.losses = 0
        opening.taken = 0 < opening.octets == taken
