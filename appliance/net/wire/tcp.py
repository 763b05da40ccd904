"""The TCP header and its options (RFC 9293 §3.1, §3.2), read and written.

Options from the peer are read leniently: an unknown kind is skipped, an option whose length lies
ends the walk, and either way the segment lives (RFC 9293 §3.1, MUST-5 to MUST-7). Options that we
write are laid out as Linux lays them, so that scripts and middleboxes that grew up with that order
feel at home. What options mean is the trunk's business. Imports `errors` and `checksum`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from appliance.net.checksum import ones_complement_sum, pseudo_header_sum
from appliance.net.errors import WireError

HEADER_LEN: Final = 20
"""Octets without options."""
MAX_OPTIONS: Final = 40
"""Octets: the data offset has four bits of 32-bit words."""
CHECKSUM_OFFSET: Final = 16
"""Octets from the start of the header (virtio's csum_offset)."""
FLAGS_OFFSET: Final = 13
"""Octets from the start of the header."""
PROTOCOL: Final = 6

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
ECE: Final = 0x40
CWR: Final = 0x80

# https://www.iana.org/assignments/tcp-parameters
OPTION_END: Final = 0
OPTION_NOP: Final = 1
OPTION_MSS: Final = 2
OPTION_WINDOW_SCALE: Final = 3
OPTION_SACK_PERMITTED: Final = 4
OPTION_SACK: Final = 5
OPTION_TIMESTAMP: Final = 8
OPTION_USER_TIMEOUT: Final = 28
OPTION_FAST_OPEN: Final = 34
OPTION_EXPERIMENT: Final = 254
FAST_OPEN_EXPERIMENT: Final = b"\xf9\x89"
"""What follows the length in the option of Fast Open before RFC 7413 (RFC 6994)."""

MAX_WINDOW_SCALE: Final = 14
"""Bits (RFC 7323 §2.3)."""

STRUCT: Final = Struct("!HHIIBBHHH")

COUNTERS: Final = ("tcp_truncated", "tcp_data_offset")

_MSS: Final = Struct("!BBH")
_TIMESTAMP: Final = Struct("!II")
_USUAL_SYN: Final = Struct("!HHIIII")
_SACK_BLOCK: Final = Struct("!II")
_U16: Final = Struct("!H")
_NOP_NOP_TIMESTAMP: Final = bytes((OPTION_NOP, OPTION_NOP, OPTION_TIMESTAMP, 10))
_SACK_PERMITTED_TIMESTAMP: Final = bytes((OPTION_SACK_PERMITTED, 2, OPTION_TIMESTAMP, 10))
_MSS_WORD: Final = OPTION_MSS << 8 | 4
_NOP_WINDOW_SCALE: Final = OPTION_NOP << 16 | OPTION_WINDOW_SCALE << 8 | 3
_SACK_PERMITTED_TIMESTAMP_WORD: Final = int.from_bytes(_SACK_PERMITTED_TIMESTAMP)
_NOP_NOP_SACK_PERMITTED: Final = bytes((OPTION_NOP, OPTION_NOP, OPTION_SACK_PERMITTED, 2))
_TIMESTAMP_WORD: Final = int.from_bytes(_NOP_NOP_TIMESTAMP)
_WHOLE_TIMESTAMP: Final = Struct("!III")


class TcpHeader(NamedTuple):
    """One header; `flags` has the eight bits FIN to CWR; offsets are into the buffer."""

    src_port: int
    dst_port: int
    seq: int
    ack: int
    flags: int
    window: int
    checksum: int
    urgent: int
    options_at: int
    payload_at: int
    payload_end: int


class TcpOptions:
    """What a header's options said; None where the option was absent.

    `mss` in octets; `window_scale` in bits, at most 14; `timestamp` is (TSval, TSecr); `sack` holds
    (left, right) sequence numbers as sent; `user_timeout` in seconds (RFC 5482); `malformed` tells
    that an option's length was impossible or wrong for its kind; `fast_open` is a cookie, b"" if
    it asks for one (RFC 7413 §4.1.1), and whether it came in the option of before that RFC.  Made
    for every segment that the fast path leaves, so no tuple: compiled, this costs a tenth of one.
    """

    __slots__ = (
        "fast_open", "malformed", "mss", "sack", "sack_permitted", "timestamp", "user_timeout",
        "window_scale",
    )  # fmt: skip

    def __init__(
        self,
        mss: int | None = None,
        window_scale: int | None = None,
        sack_permitted: bool = False,
        sack: tuple[tuple[int, int], ...] = (),
        timestamp: tuple[int, int] | None = None,
        user_timeout: int | None = None,
        malformed: bool = False,
        fast_open: tuple[bytes, bool] | None = None,
    ) -> None:
        self.mss = mss
        self.window_scale = window_scale
        self.sack_permitted = sack_permitted
        self.sack = sack
        self.timestamp = timestamp
        self.user_timeout = user_timeout
        self.malformed = malformed
        self.fast_open = fast_open

    def _said(self) -> tuple[object, ...]:
        return (
            self.mss, self.window_scale, self.sack_permitted, self.sack, self.timestamp,
            self.user_timeout, self.malformed, self.fast_open,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"TcpOptions{self._said()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TcpOptions) and self._said() == other._said()

    def __hash__(self) -> int:
        return hash(self._said())


NO_OPTIONS: Final = TcpOptions()


def parse(data: bytes | memoryview, at: int, end: int) -> TcpHeader:
    """Read the header in data[at:end]; raises only WireError.

    The checksum is left to `verify`: the link may have looked at it already.
    """
    if end - at < HEADER_LEN or len(data) < end:
        raise WireError("tcp_truncated")
    src_port, dst_port, seq, ack, offset, flags, window, stored, urgent = STRUCT.unpack_from(
        data, at
    )
    payload_at = at + (offset >> 4) * 4
    if payload_at < at + HEADER_LEN or payload_at > end:
        raise WireError("tcp_data_offset")
    return TcpHeader(
        src_port, dst_port, seq, ack, flags, window, stored, urgent,
        at + HEADER_LEN, payload_at, end,
    )  # fmt: skip


def verify(data: bytes | memoryview, at: int, end: int, src: bytes, dst: bytes) -> bool:
    """True if the checksum of the segment in data[at:end] holds (RFC 9293 §3.1, MUST-3)."""
    initial = pseudo_header_sum(src, dst, PROTOCOL, end - at)
    return ones_complement_sum(data[at:end], initial) == 0xFFFF


def parse_options(data: bytes | memoryview, start: int, end: int) -> TcpOptions:
    """Read the options in data[start:end]; never raises.

    A kind that comes twice counts as it came last. End-of-list, or a length of zero, one, or past
    the end, ends the walk; a known kind with a wrong length is skipped.
    """
    if start >= end:
        return NO_OPTIONS
    if len(data) >= end:
        usual = _usual(data, start, end - start)
        if usual is not None:
            return usual
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted = False
    sack: tuple[tuple[int, int], ...] = ()
    timestamp: tuple[int, int] | None = None
    user_timeout: int | None = None
    malformed = False
    fast_open: tuple[bytes, bool] | None = None
    end = min(end, len(data))
    at = start
    while at < end:
        kind = data[at]
        if kind == OPTION_END:
            break
        if kind == OPTION_NOP:
            at += 1
            continue
        length = data[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            malformed = True
            break
        if kind == OPTION_TIMESTAMP and length == 10:
            timestamp = _TIMESTAMP.unpack_from(data, at + 2)
        elif kind == OPTION_SACK and length >= 10 and length % 8 == 2:
            sack = tuple(_SACK_BLOCK.iter_unpack(data[at + 2 : at + length]))
        elif kind == OPTION_MSS and length == 4:
            mss = _U16.unpack_from(data, at + 2)[0]
        elif kind == OPTION_WINDOW_SCALE and length == 3:
            # RFC 7323 §2.3: a shift above 14 MUST be used as 14.
            window_scale = min(data[at + 2], MAX_WINDOW_SCALE)
        elif kind == OPTION_SACK_PERMITTED and length == 2:
            sack_permitted = True
        elif kind == OPTION_USER_TIMEOUT and length == 4:
            # RFC 5482 §3: one bit of granularity (minutes), fifteen of value.
            value = _U16.unpack_from(data, at + 2)[0]
            user_timeout = (value & 0x7FFF) * (60 if value & 0x8000 else 1)
        else:
            malformed = malformed or kind in _KNOWN
            fast_open = _cookie(data, at, length) or fast_open
        at += length
    return TcpOptions(
        mss, window_scale, sack_permitted, sack, timestamp, user_timeout, malformed, fast_open
    )


def _usual(data: bytes | memoryview, start: int, length: int) -> TcpOptions | None:
    """Read the two patterns that nearly all segments fit; None when it is neither."""
    # Of an established connection (RFC 7323 appendix A).
    if length == 12:
        word, tsval, tsecr = _WHOLE_TIMESTAMP.unpack_from(data, start)
        if word == _TIMESTAMP_WORD:
            return TcpOptions(timestamp=(tsval, tsecr))
    # Of a SYN from Linux, and from us.
    elif length == 20:
        first, mss, word, tsval, tsecr, last = _USUAL_SYN.unpack_from(data, start)
        if (
            first == _MSS_WORD
            and word == _SACK_PERMITTED_TIMESTAMP_WORD
            and last >> 8 == _NOP_WINDOW_SCALE
        ):
            shift = min(last & 0xFF, MAX_WINDOW_SCALE)  # RFC 7323 §2.3, as above
            return TcpOptions(mss, shift, True, (), (tsval, tsecr))
    return None


_KNOWN: Final = frozenset(
    (
        OPTION_MSS,
        OPTION_WINDOW_SCALE,
        OPTION_SACK_PERMITTED,
        OPTION_SACK,
        OPTION_TIMESTAMP,
        OPTION_USER_TIMEOUT,
    )
)
_COOKIE_KINDS: Final = frozenset((OPTION_FAST_OPEN, OPTION_EXPERIMENT))
_COOKIE_LENGTHS: Final = frozenset((0, *range(4, 18, 2)))


def _cookie(data: bytes | memoryview, at: int, length: int) -> tuple[bytes, bool] | None:
    """Return what an option says of Fast Open; None: nothing.

    RFC 7413 §4.1.1: a cookie has an even number of octets from 4 to 16, or none, or is ignored.
    """
    kind = data[at]
    if kind not in _COOKIE_KINDS:
        return None
    experimental = kind == OPTION_EXPERIMENT
    body = bytes(data[at + 2 : at + length])
    if experimental:
        if not body.startswith(FAST_OPEN_EXPERIMENT):
            return None  # somebody else's experiment (RFC 6994 §3)
        body = body[len(FAST_OPEN_EXPERIMENT) :]
    return (body, experimental) if len(body) in _COOKIE_LENGTHS else None


def build_syn_options(
    mss: int,
    window_scale: int | None = None,
    sack_permitted: bool = False,
    timestamp: tuple[int, int] | None = None,
) -> bytes:
    """Options of a SYN in Linux's order: MSS, SACK-permitted, timestamps, NOP, window scale.

    A multiple of four octets; `timestamp` is (TSval, TSecr); None leaves an option out.
    """
    if timestamp is not None and sack_permitted and window_scale is not None:
        return _USUAL_SYN.pack(
            _MSS_WORD, mss, _SACK_PERMITTED_TIMESTAMP_WORD, timestamp[0], timestamp[1],
            _NOP_WINDOW_SCALE << 8 | window_scale,
        )  # fmt: skip
    parts = [_MSS.pack(OPTION_MSS, 4, mss)]
    if timestamp is not None:
        # Linux lets SACK-permitted stand where the timestamp's two NOPs would.
        parts.append(_SACK_PERMITTED_TIMESTAMP if sack_permitted else _NOP_NOP_TIMESTAMP)
        parts.append(_TIMESTAMP.pack(*timestamp))
    elif sack_permitted:
        parts.append(_NOP_NOP_SACK_PERMITTED)
    if window_scale is not None:
        parts.append(bytes((OPTION_NOP, OPTION_WINDOW_SCALE, 3, window_scale)))
    return b"".join(parts)


def build_fast_open(cookie: bytes, experimental: bool = False) -> bytes:
    """The Fast Open option of a SYN, padded to a multiple of four (RFC 7413 §4.1.1).

    `cookie` has 4 to 16 octets, or none to ask for one.
    """
    if experimental:
        option = bytes((OPTION_EXPERIMENT, 4 + len(cookie))) + FAST_OPEN_EXPERIMENT + cookie
    else:
        option = bytes((OPTION_FAST_OPEN, 2 + len(cookie))) + cookie
    return option + bytes((OPTION_NOP,)) * (-len(option) % 4)


def build_options(
    timestamp: tuple[int, int] | None, sack_blocks: tuple[tuple[int, int], ...] = ()
) -> bytes:
    """Options of any other segment: timestamps and SACK blocks, each behind two NOPs.

    Blocks beyond the room (three with timestamps, four without) are left out, the first ones kept,
    since the first is the newest (RFC 2018 §4).
    """
    if timestamp is None:
        if not sack_blocks:
            return b""
        out = b""
    else:
        out = _WHOLE_TIMESTAMP.pack(_TIMESTAMP_WORD, timestamp[0], timestamp[1])
        if not sack_blocks:
            return out
    blocks = sack_blocks[: (MAX_OPTIONS - len(out) - 4) // 8]
    out += bytes((OPTION_NOP, OPTION_NOP, OPTION_SACK, 2 + 8 * len(blocks)))
    return out + b"".join(_SACK_BLOCK.pack(left, right) for left, right in blocks)


def header(
    src_port: int,
    dst_port: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    *,
    checksum: int = 0,
    urgent: int = 0,
    options: bytes = b"",
) -> bytes:
    """A header and its options (padded to four octets); the checksum is stored as given."""
    options += bytes(-len(options) % 4)
    if len(options) > MAX_OPTIONS:
        raise ValueError(f"{len(options)} octets of TCP options; {MAX_OPTIONS} fit")
    offset = (HEADER_LEN + len(options)) << 2
    return (
        STRUCT.pack(src_port, dst_port, seq, ack, offset, flags, window, checksum, urgent) + options
    )


def build(
    src: bytes,
    dst: bytes,
    src_port: int,
    dst_port: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    *,
    options: bytes = b"",
    payload: bytes | memoryview = b"",
) -> bytes:
    """A whole segment with its full checksum, for resets, tools and tests (not the fast path)."""
    head = header(src_port, dst_port, seq, ack, flags, window, options=options)
    segment = head + payload
    total = ones_complement_sum(segment, pseudo_header_sum(src, dst, PROTOCOL, len(segment)))
    return segment[:16] + (total ^ 0xFFFF).to_bytes(2) + segment[18:]
