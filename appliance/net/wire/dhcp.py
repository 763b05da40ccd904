"""DHCPv4 messages (RFC 2131 §2, RFC 2132), read and written as a client needs them.

Options may overflow into the `file` and `sname` fields (RFC 2131 §4.1) and long ones be split
(RFC 3396); both are joined again. Unknown options are kept by number. Imports `errors`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.net.errors import WireError

CLIENT_PORT: Final = 68
SERVER_PORT: Final = 67
"""UDP ports (RFC 2131 §4.1)."""

REQUEST: Final = 1
REPLY: Final = 2
"""Of the field `op`."""

# Message types (RFC 2132 §9.6).
DISCOVER: Final = 1
OFFER: Final = 2
REQUEST_LEASE: Final = 3
DECLINE: Final = 4
ACK: Final = 5
NAK: Final = 6
RELEASE: Final = 7

# https://www.iana.org/assignments/bootp-dhcp-parameters
PAD: Final = 0
SUBNET_MASK: Final = 1
ROUTER: Final = 3
DNS: Final = 6
HOST_NAME: Final = 12
DOMAIN_NAME: Final = 15
MTU: Final = 26
REQUESTED_ADDRESS: Final = 50
LEASE_TIME: Final = 51
OVERLOAD: Final = 52
MESSAGE_TYPE: Final = 53
SERVER_ID: Final = 54
PARAMETER_LIST: Final = 55
MAX_MESSAGE: Final = 57
RENEWAL_TIME: Final = 58
REBINDING_TIME: Final = 59
CLIENT_ID: Final = 61
CLASSLESS_ROUTES: Final = 121
END: Final = 255

MIN_LENGTH: Final = 300
"""Octets that some servers and relays want at least (RFC 1542 §2.1)."""
_FIXED: Final = Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE: Final = b"\x63\x82\x53\x63"
OPTIONS_AT: Final = _FIXED.size

COUNTERS: Final = ("dhcp_truncated", "dhcp_malformed")


class DhcpMessage(NamedTuple):
    """What a client reads of a message; addresses are four octets, `options` by their number."""

    op: int
    xid: int
    yiaddr: bytes
    chaddr: bytes
    options: dict[int, bytes]

    @property
    def kind(self) -> int:
        """The DHCP message type, 0 for plain BOOTP."""
        value = self.options.get(MESSAGE_TYPE, b"\0")
        return value[0] if value else 0

    def address(self, option: int) -> bytes:
        """The first address of an option, b"" without it."""
        value = self.options.get(option, b"")
        return value[:4] if len(value) >= 4 else b""

    def addresses(self, option: int) -> tuple[bytes, ...]:
        """Every address of an option."""
        value = self.options.get(option, b"")
        return tuple(value[i : i + 4] for i in range(0, len(value) - 3, 4))

    def number(self, option: int, size: int) -> int:
        """A big-endian number of `size` octets, 0 without it."""
        value = self.options.get(option, b"")
        return int.from_bytes(value) if len(value) == size else 0


def parse(data: bytes) -> DhcpMessage:
    """Read a UDP payload; raises only WireError."""
    if len(data) < OPTIONS_AT:
        raise WireError("dhcp_truncated")
    (op, htype, hlen, _, xid, _, _, _, yiaddr, _, _, chaddr, sname, file, cookie) = (
        _FIXED.unpack_from(data)
    )
    if cookie != _COOKIE or htype != 1 or hlen != 6:
        raise WireError("dhcp_malformed")
    options: dict[int, bytes] = {}
    _collect(data[OPTIONS_AT:], options)
    # RFC 2131 §4.1: first `file`, then `sname`.
    overload = options.get(OVERLOAD, b"\0")[:1]
    if overload in (b"\1", b"\3"):
        _collect(file, options)
    if overload in (b"\2", b"\3"):
        _collect(sname, options)
    return DhcpMessage(op, xid, yiaddr, chaddr[:6], options)


def _collect(data: bytes, options: dict[int, bytes]) -> None:
    at = 0
    while at < len(data):
        kind = data[at]
        if kind == END:
            return
        if kind == PAD:
            at += 1
            continue
        if at + 1 >= len(data) or at + 2 + data[at + 1] > len(data):
            raise WireError("dhcp_malformed")
        end = at + 2 + data[at + 1]
        # RFC 3396 §7: the parts of one option are put together in their order.
        options[kind] = options.get(kind, b"") + data[at + 2 : end]
        at = end


def build(
    kind: int,
    xid: int,
    mac: bytes,
    options: list[tuple[int, bytes]],
    *,
    op: int = REQUEST,
    seconds: int = 0,
    ciaddr: bytes = bytes(4),
    yiaddr: bytes = bytes(4),
    broadcast: bool = False,
) -> bytes:
    """A whole message of `kind` with `options`, padded to the 300 octets of BOOTP."""
    message = _FIXED.pack(
        op, 1, 6, 0, xid, min(seconds, 0xFFFF), 0x8000 if broadcast else 0,
        ciaddr, yiaddr, bytes(4), bytes(4), mac, b"", b"", _COOKIE,
    )  # fmt: skip
    message += bytes((MESSAGE_TYPE, 1, kind))
    message += b"".join(bytes((code, len(value))) + value for code, value in options)
    message += bytes((END,))
    return message.ljust(MIN_LENGTH, b"\0")


def classless_routes(value: bytes) -> list[tuple[bytes, int, bytes]]:
    """(network, prefix length, router) of option 121 (RFC 3442); raises only WireError."""
    routes = []
    at = 0
    while at < len(value):
        bits = value[at]
        octets = (bits + 7) // 8
        if bits > 32 or at + 1 + octets + 4 > len(value):
            raise WireError("dhcp_malformed")
        network = value[at + 1 : at + 1 + octets].ljust(4, b"\0")
        # RFC 3442: bits behind the mask are to be taken for zero.
        shift = 32 - bits
        network = (int.from_bytes(network) >> shift << shift).to_bytes(4)
        routes.append((network, bits, value[at + 1 + octets : at + 5 + octets]))
        at += 5 + octets
    return routes
