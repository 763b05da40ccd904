"""SYN cookies: answering a SYN without remembering it (RFC 4987 §3.6).

When the SYN queue is full, what must be remembered is sent to the peer instead, inside the numbers
that it has to give back: our initial sequence number is a keyed hash of the flow, the peer's
number and a slow clock, with the peer's MSS (rounded down to one of eight) in its lowest bits; the
low bits of our timestamp carry window scale and SACK.  An ACK that acknowledges a number which
this hash can have produced in the last two minutes was preceded by our SYN,ACK.

It costs a little: no retransmission of the SYN,ACK, coarse MSS, no options without timestamps.
So it serves only while the queue is full.  It imports `isn` and `wire`.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from appliance.net.isn import keyed_hash
from appliance.net.seq import HALF, MASK
from appliance.net.wire.tcp import TcpOptions

PERIOD: Final = 64.0  # seconds per step of the slow clock; a cookie lives for one to two of them
# MSS values that three bits can name: the common ones, and the least that a peer is heard to ask
# for (`tcp.MIN_MSS`), since MUST-16 of RFC 9293 §3.7.1 allows rounding down alone.
MSS_TABLE: Final = (88, 536, 1220, 1400, 1440, 1452, 1460, 8960)
_INDEX_BITS: Final = 3
_OPTION_BITS: Final = 6
_NO_SCALE: Final = 15  # RFC 7323 §2.3: real shifts end at 14


def _hash(secret: bytes, key: bytes, irs: int, step: int) -> int:
    data = b"cookie" + key + irs.to_bytes(4) + step.to_bytes(8)
    return keyed_hash(secret, data) & ~((1 << _INDEX_BITS) - 1)


def sequence_number(secret: bytes, key: bytes, irs: int, mss: int, now: float) -> int:
    """Return the ISN, 32 bits, that remembers a SYN numbered `irs` (wire) asking for `mss`."""
    index = max(bisect_right(MSS_TABLE, mss) - 1, 0)
    return _hash(secret, key, irs, int(now / PERIOD)) | index


def timestamp(clock: int, options: TcpOptions) -> int:
    """Return our timestamp with the peer's `options` in its low bits, not later than `clock`."""
    scale = _NO_SCALE if options.window_scale is None else options.window_scale
    bits = scale | (0x10 if options.sack_permitted else 0)
    value = (clock & ~((1 << _OPTION_BITS) - 1)) | bits
    if (value - clock) & MASK <= HALF and value != clock:
        value -= 1 << _OPTION_BITS
    return value & MASK


def read(
    secret: bytes, key: bytes, wire_seq: int, wire_ack: int, options: TcpOptions, now: float
) -> TcpOptions | None:
    """Return the options of the SYN that a segment's numbers attest; None: they attest none."""
    irs, iss = (wire_seq - 1) & MASK, (wire_ack - 1) & MASK
    index = iss & ((1 << _INDEX_BITS) - 1)
    step = int(now / PERIOD)
    if iss - index not in (
        _hash(secret, key, irs, step),
        _hash(secret, key, irs, max(step - 1, 0)),
    ):
        return None
    mss = MSS_TABLE[index]
    if options.timestamp is None:
        return TcpOptions(mss=mss)
    bits = options.timestamp[1] & ((1 << _OPTION_BITS) - 1)
    scale = bits & 0xF
    return TcpOptions(
        mss=mss,
        window_scale=None if scale == _NO_SCALE else scale,
        sack_permitted=bool(bits & 0x10),
        timestamp=options.timestamp,
    )
