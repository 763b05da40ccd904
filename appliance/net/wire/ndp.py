"""Neighbour Discovery messages and options (RFC 4861 §4), and the RDNSS option (RFC 8106 §5.1).

Bodies begin behind the ICMPv6 checksum: the first 32 bits are the `rest` of `icmpv6`'s message.
The validity that RFC 4861 asks for by length and layout is checked here (§6.1, §7.1, §8.1); what
depends on the receiver's state is the machines' business. Unknown options are skipped; an option
of length nought drops the whole message (§4.6). Imports `errors` and `ipv6`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from appliance.net.errors import WireError
from appliance.net.wire.ipv6 import is_link_local, is_multicast

HOP_LIMIT: Final = 255
"""Of every message: none that was forwarded arrives with it (RFC 4861 §7.1.1)."""

# https://www.iana.org/assignments/icmpv6-parameters (ND option types)
OPTION_SOURCE_LINK: Final = 1
OPTION_TARGET_LINK: Final = 2
OPTION_PREFIX: Final = 3
OPTION_REDIRECTED: Final = 4
OPTION_MTU: Final = 5
OPTION_NONCE: Final = 14
OPTION_RDNSS: Final = 25

ROUTER: Final = 0x8000_0000
SOLICITED: Final = 0x4000_0000
OVERRIDE: Final = 0x2000_0000
"""Flags of a neighbour advertisement in its 32 bits (RFC 4861 §4.4)."""

MAX_PREFIXES: Final = 16
MAX_SERVERS: Final = 8
"""Options of one advertisement that are looked at: no honest router needs more of either."""
INFINITE: Final = 0xFFFF_FFFF
"""Seconds that mean for ever (RFC 4861 §4.6.2)."""

COUNTERS: Final = ("nd_truncated", "nd_option")


class Solicitation(NamedTuple):
    """A neighbour solicitation: target, the sender's MAC (b"" if not told), nonce (b"")."""

    target: bytes
    link: bytes
    nonce: bytes


class Advertisement(NamedTuple):
    """A neighbour advertisement: target, its MAC (b"" if not told) and the three flags."""

    target: bytes
    link: bytes
    router: bool
    solicited: bool
    override: bool


class Prefix(NamedTuple):
    """A prefix information option (RFC 4861 §4.6.2), 0 to 128 bits; lifetimes in seconds."""

    length: int
    on_link: bool
    autonomous: bool
    valid: int
    preferred: int
    prefix: bytes


class RouterAdvertisement(NamedTuple):
    """A router advertisement; times in seconds, 0 where the router leaves it to us."""

    hop_limit: int
    managed: bool
    other: bool
    lifetime: int
    reachable: float
    retransmit: float
    link: bytes
    mtu: int
    prefixes: tuple[Prefix, ...]
    servers: tuple[tuple[int, tuple[bytes, ...]], ...]
    """(lifetime, addresses) of each RDNSS option."""


class Redirect(NamedTuple):
    """A redirect: the better first hop, for which destination, its MAC (b"" if not told)."""

    target: bytes
    destination: bytes
    link: bytes


def parse_solicitation(
    data: bytes | memoryview, at: int, end: int, src: bytes, dst: bytes
) -> Solicitation:
    """Read the body of a neighbour solicitation at `at` (RFC 4861 §7.1.1); raises WireError."""
    target = _target(data, at, end)
    options = _options(data, at + 16, end)
    link = _link(options, OPTION_SOURCE_LINK)
    if not any(src) and (link or dst[:13] != _SOLICITED_NODE):
        # From the unspecified address only to the solicited-node group, and without our option.
        raise WireError("nd_option")
    return Solicitation(target, link, next((v for k, v in options if k == OPTION_NONCE), b""))


def parse_advertisement(
    data: bytes | memoryview, at: int, end: int, dst: bytes, rest: int
) -> Advertisement:
    """Read the body of a neighbour advertisement at `at` (RFC 4861 §7.1.2); raises WireError."""
    target = _target(data, at, end)
    link = _link(_options(data, at + 16, end), OPTION_TARGET_LINK)
    solicited = bool(rest & SOLICITED)
    if solicited and is_multicast(dst):
        raise WireError("nd_option")
    return Advertisement(target, link, bool(rest & ROUTER), solicited, bool(rest & OVERRIDE))


def parse_router_advertisement(
    data: bytes | memoryview, at: int, end: int, src: bytes, rest: int
) -> RouterAdvertisement:
    """Read the body of a router advertisement at `at` (RFC 4861 §6.1.2); raises WireError."""
    if end - at < 8 or len(data) < end:
        raise WireError("nd_truncated")
    if not is_link_local(src):
        raise WireError("nd_option")
    options = _options(data, at + 8, end)
    mtu = 0
    prefixes: list[Prefix] = []
    servers: list[tuple[int, tuple[bytes, ...]]] = []
    for kind, value in options:
        if kind == OPTION_PREFIX and len(value) == 30 and len(prefixes) < MAX_PREFIXES:
            if value[0] <= 128:
                prefixes.append(_prefix(value))
        elif kind == OPTION_MTU and len(value) == 6:
            mtu = int.from_bytes(value[2:])
        elif kind == OPTION_RDNSS and len(value) >= 22 and len(value) % 16 == 6:
            # RFC 8106 §5.3.1: length of at least three units, and odd.
            addresses = tuple(value[i : i + 16] for i in range(6, len(value), 16))
            if len(servers) < MAX_SERVERS:
                servers.append((int.from_bytes(value[2:6]), addresses[:MAX_SERVERS]))
    return RouterAdvertisement(
        rest >> 24,
        bool(rest & 0x0080_0000),
        bool(rest & 0x0040_0000),
        rest & 0xFFFF,
        int.from_bytes(data[at : at + 4]) / 1000.0,
        int.from_bytes(data[at + 4 : at + 8]) / 1000.0,
        _link(options, OPTION_SOURCE_LINK),
        mtu,
        tuple(prefixes),
        tuple(servers),
    )


def parse_redirect(data: bytes | memoryview, at: int, end: int, src: bytes) -> Redirect:
    """Read the body of a redirect at `at` (RFC 4861 §8.1); raises WireError."""
    if end - at < 32 or len(data) < end:
        raise WireError("nd_truncated")
    target, destination = bytes(data[at : at + 16]), bytes(data[at + 16 : at + 32])
    if (
        not is_link_local(src)
        or is_multicast(destination)
        or not (target == destination or is_link_local(target))
    ):
        raise WireError("nd_option")
    link = _link(_options(data, at + 32, end), OPTION_TARGET_LINK)
    return Redirect(target, destination, link)


def solicitation(target: bytes, link: bytes = b"", nonce: bytes = b"") -> bytes:
    """Body of a neighbour solicitation; `link` is our MAC, left out from "::" (RFC 4861 §4.3)."""
    body = target
    if link:
        body += bytes((OPTION_SOURCE_LINK, 1)) + link
    if nonce:
        body += bytes((OPTION_NONCE, 1)) + nonce
    return body


def advertisement(target: bytes, link: bytes) -> bytes:
    """Body of a neighbour advertisement with our MAC (RFC 4861 §4.4)."""
    return target + bytes((OPTION_TARGET_LINK, 1)) + link


def router_solicitation(link: bytes = b"") -> bytes:
    """Body of a router solicitation; no MAC while we have no address (RFC 4861 §4.1)."""
    return bytes((OPTION_SOURCE_LINK, 1)) + link if link else b""


_SOLICITED_NODE: Final = bytes.fromhex("ff0200000000000000000001ff")


def _target(data: bytes | memoryview, at: int, end: int) -> bytes:
    if end - at < 16 or len(data) < end:
        raise WireError("nd_truncated")
    target = bytes(data[at : at + 16])
    if is_multicast(target):
        raise WireError("nd_option")
    return target


def _options(data: bytes | memoryview, at: int, end: int) -> list[tuple[int, bytes]]:
    """(type, octets behind the length) of every option; raises WireError (RFC 4861 §4.6)."""
    options: list[tuple[int, bytes]] = []
    while at < end:
        if end - at < 2 or not data[at + 1] or at + 8 * data[at + 1] > end:
            raise WireError("nd_option")
        size = 8 * data[at + 1]
        options.append((data[at], bytes(data[at + 2 : at + size])))
        at += size
    return options


def _link(options: list[tuple[int, bytes]], wanted: int) -> bytes:
    """The MAC of an Ethernet link-layer address option (RFC 2464 §6), b"" without one."""
    return next((value for kind, value in options if kind == wanted and len(value) == 6), b"")


def _prefix(value: bytes) -> Prefix:
    length, flags = value[0], value[1]
    return Prefix(
        length,
        bool(flags & 0x80),
        bool(flags & 0x40),
        int.from_bytes(value[2:6]),
        int.from_bytes(value[6:10]),
        value[14:30],
    )
