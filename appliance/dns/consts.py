"""The numbers of DNS that the engine decides by, each with its registry or RFC. Imports nothing.

Types that are only stored and sent need no entry here: their names and formats are dnspython's.
"""

from __future__ import annotations

from typing import Final

HEADER_LEN: Final = 12
"""Octets of the message header (RFC 1035 §4.1.1)."""
MAX_NAME: Final = 255
"""Octets of a name in wire form, the root's zero octet included (RFC 1035 §2.3.4)."""
MAX_LABEL: Final = 63
"""Octets of one label (RFC 1035 §2.3.4)."""
MAX_MESSAGE: Final = 65535
"""Octets of a message over TCP: its length field has 16 bits (RFC 1035 §4.2.2)."""
CLASSIC_UDP: Final = 512
"""Octets of a UDP message without EDNS (RFC 1035 §4.2.1); the least EDNS size (RFC 6891 §6.2.3)."""
DEFAULT_UDP: Final = 1232
"""Octets that we send over UDP at most and advertise: no fragments on any path with IPv6's minimum
MTU (1280 − 40 − 8; the DNS flag day of 2020, RFC 9715 §3.1)."""
MAX_CHAIN: Final = 18
"""CNAMEs and DNAMEs followed in one answer; NSD's bound, and resolvers follow fewer still."""
MAX_TTL: Final = 0x7FFFFFFF
"""Seconds (RFC 2181 §8)."""

# Types: https://www.iana.org/assignments/dns-parameters (resource record types).
A: Final = 1
NS: Final = 2
MD: Final = 3
MF: Final = 4
CNAME: Final = 5
SOA: Final = 6
MB: Final = 7
MG: Final = 8
MR: Final = 9
PTR: Final = 12
MINFO: Final = 14
MX: Final = 15
TXT: Final = 16
SIG: Final = 24
KEY: Final = 25
AAAA: Final = 28
SRV: Final = 33
NAPTR: Final = 35
DNAME: Final = 39
OPT: Final = 41
DS: Final = 43
RRSIG: Final = 46
NSEC: Final = 47
DNSKEY: Final = 48
NSEC3: Final = 50
NSEC3PARAM: Final = 51
TLSA: Final = 52
SVCB: Final = 64
HTTPS: Final = 65
TKEY: Final = 249
TSIG: Final = 250
IXFR: Final = 251
AXFR: Final = 252
MAILB: Final = 253
MAILA: Final = 254
ANY: Final = 255
CAA: Final = 257

HINFO: Final = 13

# Classes (RFC 1035 §3.2.4, §3.2.5).
IN: Final = 1
CH: Final = 3
CLASS_NONE: Final = 254
CLASS_ANY: Final = 255

# Opcodes (RFC 1035 §4.1.1, RFC 1996, RFC 2136).
OPCODE_QUERY: Final = 0
OPCODE_NOTIFY: Final = 4
OPCODE_UPDATE: Final = 5

# Response codes (RFC 1035 §4.1.1, RFC 2136 §2.2, RFC 6891 §9, RFC 7873 §8).
NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
YXDOMAIN: Final = 6
YXRRSET: Final = 7
NXRRSET: Final = 8
NOTAUTH: Final = 9
NOTZONE: Final = 10
BADVERS: Final = 16
BADCOOKIE: Final = 23

RCODE_NAMES: Final = {
    NOERROR: "noerror",
    FORMERR: "formerr",
    SERVFAIL: "servfail",
    NXDOMAIN: "nxdomain",
    NOTIMP: "notimp",
    REFUSED: "refused",
    YXDOMAIN: "yxdomain",
    YXRRSET: "yxrrset",
    NXRRSET: "nxrrset",
    NOTAUTH: "notauth",
    NOTZONE: "notzone",
    BADVERS: "badvers",
    BADCOOKIE: "badcookie",
}
"""Names for counters and logs."""

NAME_FIELDS: Final[dict[int, tuple[int, int]]] = {
    NS: (0, 1),
    MD: (0, 1),
    MF: (0, 1),
    CNAME: (0, 1),
    SOA: (0, 2),
    MB: (0, 1),
    MG: (0, 1),
    MR: (0, 1),
    PTR: (0, 1),
    MINFO: (0, 2),
    MX: (2, 1),
}
"""Types whose rdata may be compressed: octets before the names, and how many names follow each
other there. RFC 3597 §4: only the types of RFC 1035; no later type, known or unknown."""
