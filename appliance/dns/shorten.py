"""An answer that is too long for its path, made short enough: its question with TC, and its OPT.

Whoever forges what routers say can have answers cut into fragments, of which it then sends one of
its own (RFC 9715 §1). A client that sees TC comes back over TCP instead.

Imports `consts`, `errors`, `names`, `prepared`.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError  # noqa: N812 - an exception, whatever its module calls it
from typing import Final

from appliance.dns.consts import HEADER_LEN, OPT, TSIG
from appliance.dns.errors import WireError
from appliance.dns.names import skip
from appliance.dns.prepared import TC

_COUNTS: Final = Struct("!HHHH")
_TYPE_AND_LENGTH: Final = Struct("!H6xH")


def shortened(answer: bytes) -> bytes | None:
    """What is left of an answer when no record goes in (RFC 9715 §3.1, R4).

    None for one that must stay as it is, being signed (RFC 8945 §5.3), or that is none.
    """
    try:
        asked, *counts = _COUNTS.unpack_from(answer, 4)
        at = HEADER_LEN
        for _ in range(asked):
            at = skip(answer, at) + 4
        end, opt = at, b""
        for _ in range(sum(counts)):
            start = at
            at = skip(answer, at)
            rtype, length = _TYPE_AND_LENGTH.unpack_from(answer, at)
            at += 10 + length
            if rtype == TSIG:
                return None
            if rtype == OPT:
                opt = answer[start:at]
    except (StructError, WireError):
        return None
    flags = bytes((answer[2] | TC, answer[3]))
    return b"".join(
        (answer[:2], flags, _COUNTS.pack(asked, 0, 0, bool(opt)), answer[HEADER_LEN:end], opt)
    )
