"""What a server says besides records: cookies, NSID, keepalive, padding, errors, signatures.

`Extensions` is what one server is configured to say; it outlives the catalogs that ask it. Only
options that the client asked for are sent (RFC 6891 §6.1.2), but for extended errors, which may go
along with any OPT (RFC 8914 §3). Imports `consts`, `cookies`, `errors`, `message`,
`reader`, `rrl`, `tsig`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, NamedTuple

from appliance.dns.consts import DEFAULT_UDP, NOTIMP, OPT, REFUSED, SERVFAIL
from appliance.dns.cookies import Cookies
from appliance.dns.errors import LocalError
from appliance.dns.message import COOKIE, DO, Edns
from appliance.dns.reader import record_at
from appliance.dns.rrl import address_of
from appliance.dns.tsig import Keys, Signer, verify

# Option codes: https://www.iana.org/assignments/dns-parameters (EDNS0 option codes).
NSID: Final = 3
KEEPALIVE: Final = 11
PADDING: Final = 12
EXTENDED_ERROR: Final = 15

NSID_MAX: Final = 64
"""Octets of our NSID: it goes into every answer that asks for it (RFC 5001 §3 sets no bound)."""
PADDING_BLOCK: Final = 468
"""Octets of which padded answers are multiples (RFC 8467 §4.1)."""
QUERY_BLOCK: Final = 128
"""Octets of which padded queries are multiples (RFC 8467 §4.1)."""
OPT_LENGTH: Final = 11
"""Octets of an OPT record without options (RFC 6891 §6.1.2)."""
QUERIES_TLS: Final = "tls-queries"
"""The transport "tls" where no zone is handed over: it is older than TLS 1.3, or ALPN has not
selected "dot" (RFC 9103 §7.1, §7.2); RFC 7858 asks for neither."""
ENCRYPTED: Final = frozenset(("tls", QUERIES_TLS, "https", "quic"))
"""Transports on which padding hides something (RFC 7830 §4)."""

# Extended errors (RFC 8914 §4).
PROHIBITED: Final = 18
NOT_AUTHORITATIVE: Final = 20
NOT_SUPPORTED: Final = 21
NOT_READY: Final = 14
EXTENDED: Final = {REFUSED: NOT_AUTHORITATIVE, NOTIMP: NOT_SUPPORTED, SERVFAIL: NOT_READY}
"""What a response code means when nobody says more."""

_OPT: Final = Struct("!BHHBBHH").pack
"""Root, OPT, size, extended response code, version, flags, length of options (RFC 6891 §6.1.2)."""
_OPTION: Final = Struct("!HH").pack
_OPTION_HEAD: Final = Struct("!HH").unpack_from


def option(code: int, data: bytes) -> bytes:
    """One option in wire form (RFC 6891 §6.1.2)."""
    return _OPTION(code, len(data)) + data


def opt_record(size: int, do: int, rcode: int = 0, options: bytes = b"") -> bytes:
    """An OPT record; of the query's flags `do` only DO is copied (RFC 3225 §3)."""
    return _OPT(0, OPT, size, rcode >> 4, 0, do & DO, len(options)) + options


def extended_error(info: int) -> bytes:
    """An extended error without words (RFC 8914 §2)."""
    return option(EXTENDED_ERROR, info.to_bytes(2, "big"))


class Said(NamedTuple):
    """The answer to a query's options."""

    options: bytes
    """In wire form."""
    known: bool
    """A good cookie came along: the client's address is its own."""
    bad_cookie: bool
    """It sent a server cookie that is not good."""


NO_KEYS: Final = Keys()
NOTHING: Final = Said(b"", False, False)


class Extensions:
    """A server's own part of EDNS."""

    __slots__ = ("_keepalive", "_keys", "_nsid", "clock", "cookies")

    def __init__(
        self,
        *,
        nsid: bytes = b"",
        cookies: Cookies | None = None,
        keys: Keys = NO_KEYS,
        clock: Callable[[], float] = time.time,
        keepalive: float | None = None,
    ) -> None:
        """`clock`: wall-clock seconds, for cookies and TSIG; `keepalive`: seconds of idle streams.

        LocalError if the NSID is too long.
        """
        if len(nsid) > NSID_MAX:
            raise LocalError(f"an NSID has at most {NSID_MAX} octets")
        self._nsid = option(NSID, nsid) if nsid else b""
        self.cookies = cookies
        self._keys = keys
        self.clock = clock
        self._keepalive = b""
        if keepalive is not None:
            # RFC 7828 §3.1: units of 100 milliseconds.
            self._keepalive = option(KEEPALIVE, round(keepalive * 10).to_bytes(2, "big"))

    def signer(self, message: bytes, at: int) -> Signer:
        """Judge the TSIG record at `at`, to sign the answer likewise; WireError if malformed."""
        return Signer(verify(message, at, self._keys, self.clock()))

    def reply(self, edns: Edns, transport: str, peer: Any) -> Said:
        """Answer a query's options; WireError if one of them is malformed.

        `peer` is the sender as asyncio names it: a tuple that begins with the address.
        """
        out = b""
        known = bad_cookie = False
        seen: set[int] = set()
        for code, data in edns.options:
            if code in seen:
                continue  # RFC 7873 §5.2: the first counts; for the others it is as good
            seen.add(code)
            if code == NSID:
                out += self._nsid
            elif code == COOKIE and self.cookies is not None:
                verdict = self.cookies.judge(data, address_of(peer), self.clock())
                out += option(COOKIE, verdict.option)
                known = verdict.good
                bad_cookie = verdict.server_sent and not verdict.good
            elif code == KEEPALIVE and transport != "udp":
                out += self._keepalive  # RFC 7828 §3.2.2; ignored over UDP (§3.2.1)
        return Said(out, known, bad_cookie)


def padding(length: int, edns: Edns, transport: str) -> bytes:
    """A padding option for an answer of `length` octets, if the client pads its queries.

    RFC 7830 §4: only then, and only where the transport is encrypted. Zero octets.
    """
    if transport not in ENCRYPTED or all(code != PADDING for code, _ in edns.options):
        return b""
    return option(PADDING, bytes(-(length + 4) % PADDING_BLOCK))


def private_query(message: bytes, reserved: int = 0) -> bytes:
    """A query without OPT with one for an encrypted stream, beside `reserved` octets behind it.

    RFC 7830 §4: it is padded, and asks for answers that are. RFC 9103 §6: and for how long the
    stream may be kept (RFC 7828 §3.2.1).
    """
    length = len(message) + OPT_LENGTH + 8 + reserved
    options = option(KEEPALIVE, b"") + option(PADDING, bytes(-length % QUERY_BLOCK))
    count = int.from_bytes(message[10:12], "big") + 1
    return (
        message[:10]
        + count.to_bytes(2, "big")
        + message[12:]
        + opt_record(DEFAULT_UDP, 0, 0, options)
    )


def keepalive(message: bytes, at: int, count: int) -> float | None:
    """Seconds of the keepalive option among `count` records from `at` on; None without; WireError.

    RFC 7828 §3.1: two octets of tenths.
    """
    for _ in range(count):
        record, at = record_at(message, at)
        if record.rtype != OPT:
            continue
        rdata, here = record.rdata, 0
        while here + 4 <= len(rdata):
            code, length = _OPTION_HEAD(rdata, here)
            if code == KEEPALIVE and length == 2 and here + 6 <= len(rdata):
                return int.from_bytes(rdata[here + 4 : here + 6], "big") / 10
            here += 4 + length
    return None
