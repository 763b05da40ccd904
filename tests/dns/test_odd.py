"""Odd messages, put together octet by octet, and what the others say to them.

NSD 4.6, Knot 3.2 and BIND 9.18 were asked the same over a zone like this one. Where an RFC decides,
it is named; where they differ and no RFC does, ours is with one of them at least.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from struct import pack
from typing import Final

import dns.rcode
import pytest

from appliance.dns import LoadedZones
from appliance.dns.authority import Authority, Options
from tests.dns.test_compliance import PEER, by_stream
from tests.dns.test_protocol import FakeLoop
from tests.dns.util import zone

ZONE: Final = zone(
    "a A 192.0.2.1\n*.w TXT wild\ne.n.t A 192.0.2.2\nsub NS ns.sub\nns.sub A 192.0.2.3\n"
    "sub DS 1 8 2 49FD46E6C4B45C55D4AC69CBD3CD34AC1AFE51DE49FD46E6C4B45C55D4AC69CB\n"
    "svc SVCB 1 a alpn=h2\nali SVCB 0 svc\ndn DNAME n.t\n"
)
QR, AA, TC, RD, RA, AD, CD = (1 << bit for bit in (15, 10, 9, 8, 7, 5, 4))


def wire(name: str) -> bytes:
    parts = [part.encode() for part in name.rstrip(".").split(".") if part]
    return b"".join(bytes((len(part),)) + part for part in parts) + b"\0"


APEX: Final = wire("example.test.")
HOST: Final = wire("a.example.test.")
OPT: Final = b"\0" + pack("!HHIH", 41, 1232, 0, 0)
ADDRESS: Final = b"\xc0\x0c" + pack("!HHIH", 1, 1, 60, 4) + bytes(4)


def ask(
    name: bytes = HOST,
    rdtype: int = 1,
    rclass: int = 1,
    flags: int = 0,
    counts: tuple[int, int, int, int] = (1, 0, 0, 0),
    more: bytes = b"",
) -> bytes:
    return pack("!HHHHHH", 0x1234, flags, *counts) + name + pack("!HH", rdtype, rclass) + more


def head(opcode: int = 0, questions: int = 0) -> bytes:
    return pack("!HHHHHH", 0x1234, opcode << 11, questions, 0, 0, 0)


def by_datagram(server: Authority, message: bytes) -> bytes:
    answer = server.current.answer(message, peer=PEER)
    assert answer is not None
    return answer


@pytest.fixture(params=[by_datagram, by_stream])
def say(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bytes], bytes]:
    monkeypatch.setattr(asyncio, "get_running_loop", FakeLoop)
    server = Authority(Options(), random=Random(1))
    server.begin(LoadedZones((ZONE,), ()))
    return lambda message: bytes(request.param(server, message))


CASES: Final[dict[str, tuple[bytes, str]]] = {
    # RFC 1035 §4.1.1, RFC 9619: one question, no more and no less.
    "no question": (head(), "FORMERR"),
    "a question that is missing": (head(questions=1), "FORMERR"),
    "two questions": (ask(counts=(2, 0, 0, 0), more=APEX + b"\0\6\0\1"), "FORMERR"),
    "one question twice": (ask(counts=(2, 0, 0, 0), more=b"\xc0\x0c\0\1\0\1"), "FORMERR"),
    "65,535 questions": (ask(counts=(65535, 0, 0, 0)), "FORMERR"),
    # RFC 1035 §4.1.4: a pointer leads back, and before a question there is nothing but the header.
    "a pointer to itself": (ask(b"\xc0\x0c"), "FORMERR"),
    "a pointer forward": (ask(b"\xc0\x10"), "FORMERR"),
    "a pointer into the header": (ask(b"\xc0\x04"), "FORMERR"),
    "a loop of pointers": (ask(b"\1a\xc0\x0c"), "FORMERR"),
    "half a pointer": (ask(b"\xc0")[:13], "FORMERR"),
    # RFC 6891 §5, RFC 1035 §2.3.4.
    "a binary label": (ask(b"\x41a\0"), "FORMERR"),
    "a label of 129 octets": (ask(b"\x81a\0"), "FORMERR"),
    "a name of 257 octets": (ask((b"\x3f" + b"a" * 63) * 4 + b"\0"), "FORMERR"),
    # RFC 6891 §6.1.1: one OPT, in the additional section, owned by the root.
    "two OPT": (ask(counts=(1, 0, 0, 2), more=OPT * 2), "FORMERR"),
    "OPT as an answer": (ask(counts=(1, 1, 0, 0), more=OPT), "FORMERR"),
    "OPT of a name": (ask(counts=(1, 0, 0, 1), more=b"\1a" + OPT), "FORMERR"),
    "a record, then OPT": (ask(counts=(1, 0, 0, 2), more=ADDRESS + OPT), "NOERROR"),
    "OPT, then a record": (ask(counts=(1, 0, 0, 2), more=OPT + ADDRESS), "NOERROR"),
    # RFC 8945 §5.1: TSIG is the last record.
    "TSIG, then OPT": (
        ask(counts=(1, 0, 0, 2), more=b"\1k\0" + pack("!HHIH", 250, 255, 0, 0) + OPT), "FORMERR",
    ),
    "an empty TSIG": (
        ask(counts=(1, 0, 0, 1), more=b"\1k\0" + pack("!HHIH", 250, 255, 0, 0)), "FORMERR",
    ),
    "records that are missing": (ask(counts=(1, 0, 0, 1)), "FORMERR"),
    "octets behind the message": (ask() + b"\0", "FORMERR"),
    # RFC 1035 §3.2.4, RFC 2136 §2.4: NONE is no class of a zone.
    "class NONE": (ask(rclass=254), "REFUSED"),
    "class CHAOS": (ask(rclass=3), "REFUSED"),
    "class HESIOD": (ask(rclass=4), "REFUSED"),
    "class 0": (ask(rclass=0), "REFUSED"),
    "class ANY": (ask(rclass=255), "NOERROR"),
    # RFC 5936 §2.2.1.
    "AXFR of no zone of ours": (ask(wire("other.example."), 252), "NOTAUTH"),
    "AXFR of a name in a zone": (ask(HOST, 252), "NOTAUTH"),
    "IXFR of the root": (ask(b"\0", 251), "NOTAUTH"),
    "AXFR that is not allowed": (ask(APEX, 252), "REFUSED"),
    # RFC 1996 §3.12 has no word for it; nobody claims authority for what is not theirs.
    "NOTIFY of no secondary zone": (ask(APEX, 6, flags=4 << 11), "NOTAUTH"),
    "NOTIFY of nothing": (head(4), "FORMERR"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_odd_messages(say: Callable[[bytes], bytes], case: str) -> None:
    """RFC 8906 §3: an answer to everything, and no AA on errors."""
    message, rcode = CASES[case]
    answer = say(message)
    assert dns.rcode.to_text(dns.rcode.Rcode(answer[3] & 15)) == rcode
    assert answer[:2] == message[:2]
    flags = int.from_bytes(answer[2:4], "big")
    assert flags & QR
    assert not flags & (TC | RA | AD | CD)
    if rcode != "NOERROR":
        assert not flags & AA
        assert answer[6:10] == bytes(4)


def test_the_question_keeps_its_case(say: Callable[[bytes], bytes]) -> None:
    """draft-vixie-dnsext-dns0x20: resolvers compare it; RFC 4343 §4.1: records are found."""
    name = wire("A.eXaMpLe.TeSt.")
    answer = say(ask(name))
    assert answer[12 : 12 + len(name)] == name
    assert answer[6:8] == b"\0\1"


@pytest.mark.parametrize("octet", [b"\0", b".", b"\xff", b"\x20"])
def test_any_octet_may_stand_in_a_label(say: Callable[[bytes], bytes], octet: bytes) -> None:
    """RFC 2181 §11: such a name does not exist, and that is all."""
    answer = say(ask(b"\3a" + octet + b"b" + APEX))
    assert (answer[3] & 15, answer[8:10]) == (dns.rcode.NXDOMAIN, b"\0\1")


def test_a_name_of_255_octets(say: Callable[[bytes], bytes]) -> None:
    """RFC 1035 §2.3.4: the longest there is."""
    left = 255 - len(APEX) - 3 * 64
    name = (b"\x3f" + b"a" * 63) * 3 + bytes((left - 1,)) + b"b" * (left - 1) + APEX
    assert len(name) == 255
    assert say(ask(name))[3] & 15 == dns.rcode.NXDOMAIN


def test_every_cut_of_a_message() -> None:
    """RFC 8906 §6: shorter than a header, silence; cut anywhere behind it, FORMERR."""
    server = Authority(Options(), random=Random(1))
    server.begin(LoadedZones((ZONE,), ()))
    whole = ask(counts=(1, 0, 0, 1), more=OPT)
    for end in range(len(whole)):
        answer = server.current.answer(whole[:end], peer=PEER)
        if end < 12:
            assert answer is None
        else:
            assert answer is not None
            assert answer[3] & 15 == dns.rcode.FORMERR, end
