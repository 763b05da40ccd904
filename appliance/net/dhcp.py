"""A DHCPv4 client (RFC 2131 §4.4): an address that is lent, renewed in time, and given back.

    INIT -> SELECTING -> REQUESTING -> CHECKING -> BOUND <-> RENEWING -> REBINDING -> INIT

CHECKING is the probe of RFC 5227: an address that answers is declined. Half-way through the lease
its server is asked to go on, at seven eighths anyone is; at the end the address is given up.

The client asks for a reply to its own MAC (no broadcast flag), so its host must take datagrams to
port 68 before it has an address. INIT-REBOOT is not done: nothing is remembered over a restart,
and servers give the same client the same address anyway. Sans-I/O. Imports `wire`, `errors`.
"""

from __future__ import annotations

import random as random_module
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from appliance.net.errors import WireError
from appliance.net.wire import dhcp, ipv4

FIRST_RETRY: Final = 4.0
LAST_RETRY: Final = 64.0
"""Seconds between retransmissions, doubled from first to last, each ± 1 (RFC 2131 §4.1)."""
RENEW_RETRY: Final = 60.0
"""Seconds at least between requests to go on (RFC 2131 §4.4.5)."""
DECLINE_WAIT: Final = 10.0
"""Seconds to wait after a decline (RFC 2131 §3.1 (5))."""
MAX_CONFLICTS: Final = 10
RATE_LIMIT_INTERVAL: Final = 60.0
"""Declined addresses after which there is a wait of so many seconds (RFC 5227 §1.1)."""
REQUEST_TRIES: Final = 4
"""Requests that stay without an answer before everything begins anew (RFC 2131 §3.1 (5))."""
MIN_LEASE: Final = 10.0
"""Seconds: a shorter lease is not taken, as the probe before its use may take seven (RFC 5227)."""
INFINITE: Final = 0xFFFF_FFFF
"""Seconds that mean for ever (RFC 2131 §3.3)."""
MAX_ROUTES: Final = 32
"""Classless routes taken of one lease."""

NOBODY: Final = bytes(4)
EVERYBODY: Final = b"\xff" * 4

INIT: Final = "init"
SELECTING: Final = "selecting"
REQUESTING: Final = "requesting"
CHECKING: Final = "checking"
BOUND: Final = "bound"
RENEWING: Final = "renewing"
REBINDING: Final = "rebinding"

_PARAMETERS: Final = bytes(
    # RFC 3442: classless routes before routers.
    (dhcp.SUBNET_MASK, dhcp.CLASSLESS_ROUTES, dhcp.ROUTER, dhcp.DNS, dhcp.DOMAIN_NAME, dhcp.MTU,
     dhcp.LEASE_TIME, dhcp.RENEWAL_TIME, dhcp.REBINDING_TIME)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lease:
    """What a server has lent; addresses are four octets, times absolute seconds."""

    address: bytes
    prefix_len: int
    server: bytes
    routes: tuple[tuple[bytes, int, bytes], ...]  # network, prefix length, router (0: on-link)
    servers: tuple[bytes, ...]  # resolvers
    mtu: int  # 0: not told
    renew_at: float
    rebind_at: float
    expires_at: float


class Owner(Protocol):
    """What the client has its host do."""

    def send_dhcp(self, message: bytes, src: bytes, dst: bytes) -> None:
        """Send from `src` port 68 to `dst` port 67; from 0.0.0.0 it is a broadcast."""

    def check(self, address: bytes) -> None:
        """Probe `address` (RFC 5227), then call `checked`."""

    def bound(self, lease: Lease) -> None:
        """The lease is ours, or goes on, perhaps with other options."""

    def unbound(self, lease: Lease) -> None:
        """The lease is over."""


class Client:
    """The client of one interface; `name` is what it calls itself to the server, if anything."""

    def __init__(
        self, owner: Owner, mac: bytes, *, random: random_module.Random, name: str = ""
    ) -> None:
        self._owner = owner
        self._mac = mac
        self._random = random
        self._name = name.encode("ascii", "replace")[:63]
        self.state = INIT
        self.lease: Lease | None = None
        self.attempts = 0
        """Messages sent in this state without an answer."""
        self.unanswered = 0
        """Discovers since anyone was last heard."""
        self._offer: dhcp.DhcpMessage | None = None
        self._xid = 0
        self._due = inf
        self._began = 0.0
        self._asked_at = 0.0  # when the last request was sent: lifetimes count from there
        self._declined = 0  # addresses in a row
        self._refused = 0  # requests in a row that were answered by NAK

    def start(self, now: float) -> None:
        """Begin to look for a server, within a second (RFC 2131 §4.4.1 would take ten)."""
        self._due = now + self._random.random()

    def stop(self, now: float) -> None:
        """Give the lease back (RFC 2131 §4.4.6) and be silent."""
        lease = self.lease
        if lease is not None:
            self._send(
                dhcp.RELEASE,
                [(dhcp.SERVER_ID, lease.server), self._identifier()],
                now,
                ciaddr=lease.address,
                to=lease.server,
            )
        self._due = inf
        self.state = INIT

    def deadline(self) -> float:
        """When `advance` is due, seconds; inf: never."""
        return self._due

    # ------------------------------------------------------------------ time

    def advance(self, now: float) -> None:
        """Send what is due, or move on."""
        if self._due > now:
            return
        if self.state in (INIT, SELECTING):
            if self._offer is not None:
                self._request(now)
            else:
                self._discover(now)
        elif self.state == REQUESTING:
            if self.attempts >= REQUEST_TRIES:
                self._begin_again(now)
            else:
                self._ask_for_offer(now)
        elif self.state in (BOUND, RENEWING, REBINDING):
            self._extend(now)
        else:
            self._due = inf

    def _discover(self, now: float) -> None:
        if self.state == INIT:
            self.state = SELECTING
            self.attempts = 0
            self._began = now
            # RFC 2131 §4.1 leaves the choice: one number for all of them, since a server that
            # pings first (§2.2) may well offer after we have asked again.
            self._xid = self._random.getrandbits(32)
        self.attempts += 1
        self.unanswered += 1
        self._send(dhcp.DISCOVER, self._wishes(), now)
        self._due = now + self._backoff()

    def _request(self, now: float) -> None:
        self.state = REQUESTING
        self.attempts = 0
        self._ask_for_offer(now)

    def _ask_for_offer(self, now: float) -> None:
        offer = self._offer
        assert offer is not None
        self.attempts += 1
        # RFC 2131 §4.3.2, SELECTING: server and address are named, ciaddr is not.
        options = [
            (dhcp.SERVER_ID, offer.address(dhcp.SERVER_ID)),
            (dhcp.REQUESTED_ADDRESS, offer.yiaddr),
            *self._wishes(),
        ]
        self._send(dhcp.REQUEST_LEASE, options, now)
        self._due = now + self._backoff()

    def _extend(self, now: float) -> None:
        """RFC 2131 §4.4.5: T1, T2, and the end."""
        lease = self.lease
        assert lease is not None
        if now >= lease.expires_at:
            self._give_up(now)
            return
        if now >= lease.rebind_at:
            state, until, to = REBINDING, lease.expires_at, EVERYBODY
        else:
            state, until, to = RENEWING, lease.rebind_at, lease.server
        if self.state != state:
            self.state = state
            self._xid = self._random.getrandbits(32)
            self._began = now
        # ciaddr is filled in, server and requested address are not named.
        self._send(dhcp.REQUEST_LEASE, self._wishes(), now, ciaddr=lease.address, to=to)
        # Half of what is left, but no more often than once a minute.
        self._due = min(now + max((until - now) / 2, RENEW_RETRY), until)

    def _backoff(self) -> float:
        wait = min(FIRST_RETRY * (1 << min(self.attempts - 1, 8)), LAST_RETRY)
        return wait + self._random.uniform(-1.0, 1.0)

    def _begin_again(self, now: float, wait: float = 0.0) -> None:
        self.state = INIT
        self._offer = None
        self._due = now + wait

    def _give_up(self, now: float, wait: float = 0.0) -> None:
        lease, self.lease = self.lease, None
        if lease is not None:
            self._owner.unbound(lease)
        self._begin_again(now, wait)

    # ------------------------------------------------------------------ messages

    def received(self, data: bytes, now: float) -> None:
        """A datagram to port 68; raises only WireError."""
        message = dhcp.parse(data)
        if message.op != dhcp.REPLY or message.xid != self._xid or message.chaddr != self._mac:
            return
        if message.kind == dhcp.OFFER and self.state == SELECTING:
            self._offered(message, now)
        elif message.kind == dhcp.ACK and self.state in (REQUESTING, RENEWING, REBINDING):
            self._acknowledged(message, now)
        elif message.kind == dhcp.NAK and self.state in (REQUESTING, RENEWING, REBINDING):
            # RFC 2131 §4.4.5: the address must not be used any longer.
            if self.state == REQUESTING and self._from_another(message):
                return
            self._give_up(now, self._after_refusal())

    def _after_refusal(self) -> float:
        """Seconds until we ask again: at once, but not of a server that refuses what it offers."""
        self._refused += 1
        if self._refused == 1:
            return 0.0
        return min(FIRST_RETRY * (1 << min(self._refused - 2, 8)), LAST_RETRY)

    def _from_another(self, message: dhcp.DhcpMessage) -> bool:
        offer = self._offer
        return offer is not None and message.address(dhcp.SERVER_ID) != offer.address(
            dhcp.SERVER_ID
        )

    def _offered(self, message: dhcp.DhcpMessage, now: float) -> None:
        if not _usable(message.address(dhcp.SERVER_ID)) or not _usable(message.yiaddr):
            return
        if self._offer is None:
            self._offer = message
            self.unanswered = 0
            self._due = now

    def _acknowledged(self, message: dhcp.DhcpMessage, now: float) -> None:
        if self.state == REQUESTING and self._from_another(message):
            return
        lease = self._lease(message)
        if lease is None:
            return
        if self.state == REQUESTING:
            self.lease = lease
            self.state = CHECKING
            self._due = inf
            self._owner.check(lease.address)
            return
        if self.lease is not None and self.lease.address != lease.address:
            self._give_up(now)
            return
        self._take(lease)

    def checked(self, free: bool, now: float) -> None:
        """Nobody has the address that was to be checked, or somebody has (RFC 2131 §3.1 (5))."""
        lease = self.lease
        if lease is None or self.state != CHECKING:
            return
        if free:
            self._take(lease)
        else:
            self._decline(lease, now)

    def conflict(self, now: float) -> None:
        """Somebody uses our address: it is given back (RFC 5227 §2.4 (a), RFC 2131 §4.4.1)."""
        lease = self.lease
        if lease is None:
            return
        if self.state != CHECKING:
            self._owner.unbound(lease)
        self._decline(lease, now)

    def _decline(self, lease: Lease, now: float) -> None:
        self.lease = None
        options = [
            (dhcp.SERVER_ID, lease.server),
            (dhcp.REQUESTED_ADDRESS, lease.address),
            self._identifier(),
        ]
        self._send(dhcp.DECLINE, options, now)
        self._declined += 1
        # RFC 5227 §2.1.1: after so many conflicts, one attempt a minute and no more.
        often = self._declined >= MAX_CONFLICTS
        self._begin_again(now, RATE_LIMIT_INTERVAL if often else DECLINE_WAIT)

    def _take(self, lease: Lease) -> None:
        self.lease = lease
        self.state = BOUND
        self._declined = self._refused = 0
        self._offer = None
        self._due = min(lease.renew_at, lease.expires_at)
        self._owner.bound(lease)

    def _lease(self, message: dhcp.DhcpMessage) -> Lease | None:
        """The lease that an acknowledgment grants; None when it makes no sense."""
        seconds = message.number(dhcp.LEASE_TIME, 4)
        prefix_len = _prefix_len(message)
        if seconds < MIN_LEASE or not _is_host(message.yiaddr, prefix_len):
            return None
        length = inf if seconds == INFINITE else float(seconds)
        t1 = message.number(dhcp.RENEWAL_TIME, 4) or length * 0.5
        t2 = message.number(dhcp.REBINDING_TIME, 4) or length * 0.875
        if not t1 <= t2 <= length:
            t1, t2 = length * 0.5, length * 0.875
        mtu = message.number(dhcp.MTU, 2)
        known = self.lease.server if self.lease is not None else NOBODY
        return Lease(
            message.yiaddr,
            prefix_len,
            message.address(dhcp.SERVER_ID) or known,
            _routes(message),
            tuple(filter(_usable, message.addresses(dhcp.DNS)))[:8],
            mtu if mtu >= ipv4.MIN_REASSEMBLY else 0,
            # RFC 2131 §4.4.5: from when the request was sent, not from when the answer came.
            self._asked_at + t1,
            self._asked_at + t2,
            self._asked_at + length,
        )

    def _identifier(self) -> tuple[int, bytes]:
        """RFC 2131 §4.2: who has an identifier MUST use it in every message."""
        return dhcp.CLIENT_ID, b"\1" + self._mac

    def _wishes(self) -> list[tuple[int, bytes]]:
        options = [
            self._identifier(),
            (dhcp.PARAMETER_LIST, _PARAMETERS),
            (dhcp.MAX_MESSAGE, (1472).to_bytes(2)),
        ]
        if self._name:
            options.append((dhcp.HOST_NAME, self._name))
        return options

    def _send(
        self,
        kind: int,
        options: list[tuple[int, bytes]],
        now: float,
        *,
        ciaddr: bytes = NOBODY,
        to: bytes = EVERYBODY,
    ) -> None:
        if kind == dhcp.REQUEST_LEASE:
            self._asked_at = now
        seconds = int(now - self._began)
        message = dhcp.build(
            kind, self._xid, self._mac, options, seconds=max(seconds, 0), ciaddr=ciaddr
        )
        self._owner.send_dhcp(message, ciaddr, to)


def _usable(address: bytes) -> bool:
    return len(address) == 4 and 0 < address[0] < 224 and address[0] != 127


def _is_host(address: bytes, prefix_len: int) -> bool:
    """Whether an address can be one host's: not its network's broadcast (RFC 1122 §3.2.1.3 (e))."""
    hosts = (1 << (32 - prefix_len)) - 1
    return _usable(address) and (hosts < 2 or int.from_bytes(address) & hosts != hosts)


def _prefix_len(message: dhcp.DhcpMessage) -> int:
    """Of the network; 24 without a mask, or with one that is none (RFC 950 §2.1 allows gaps)."""
    mask = int.from_bytes(message.address(dhcp.SUBNET_MASK))
    gaps = ~mask & 0xFFFF_FFFF
    return mask.bit_count() if mask and not gaps & (gaps + 1) else 24


def _routes(message: dhcp.DhcpMessage) -> tuple[tuple[bytes, int, bytes], ...]:
    """RFC 3442: classless routes, if there are any, replace the router option."""
    value = message.options.get(dhcp.CLASSLESS_ROUTES, b"")
    if value:
        try:
            routes = dhcp.classless_routes(value)[:MAX_ROUTES]
            # RFC 3442: a router of 0.0.0.0 is nobody: the network is on the link.
            return tuple(r for r in routes if r[2] == NOBODY or _usable(r[2]))
        except WireError:
            pass  # §"DHCP Client Behavior": what is malformed is ignored
    routers = filter(_usable, message.addresses(dhcp.ROUTER))
    return tuple((NOBODY, 0, router) for router in list(routers)[:4])
