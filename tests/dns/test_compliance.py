"""A tour of RFC 8906 §8: every question that ISC's compliance tester asks, and what is due to it.

Each goes through the protocols that the servers use, over datagrams and over a stream, to a server
with nothing configured and to one with everything, and twice: what was remembered for the first
must not show in the second (RFC 8906 §6). No reply at all fails a test as a timeout would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from struct import pack
from types import SimpleNamespace
from typing import Any, Final

import dns.edns
import dns.message
import dns.name
import dns.tsig
import pytest

from appliance.dns import (
    DnsDatagramProtocol,
    DnsStreamProtocol,
    Extensions,
    Keys,
    key,
    load_zones,
)
from appliance.dns.authority import Authority, Options
from appliance.dns.consts import BADVERS, FORMERR, NOTAUTH, NOTIMP, REFUSED
from appliance.dns.cookies import Cookies
from appliance.dns.policy import Policy, rule
from tests.dns.test_protocol import FakeLoop, FakeTransport, framed
from tests.dns.util import SOA, Reply, question

ZONE: Final = "example.test."
PEER: Final = ("192.0.2.99", 1234)
NOW: Final = 1_900_000_000.0
QR, AA, TC, RD, RA, Z, AD, CD = (1 << bit for bit in (15, 10, 9, 8, 7, 6, 5, 4))
DO: Final = 0x8000
UNKNOWN_FLAGS: Final = 0x7FFF

NSID, ECS, EXPIRE, COOKIE, KEEPALIVE, PADDING, UNKNOWN = 3, 8, 9, 10, 11, 12, 100
WILL: Final[dict[int, bytes]] = {
    NSID: b"",
    ECS: b"\0\1\0\0",  # 0.0.0.0/0
    EXPIRE: b"",
    COOKIE: b"12345678",
    PADDING: bytes(32),
    UNKNOWN: b"\x12\x34",
}
"""Options as a client sends them (RFC 5001, 7871, 7314, 7873, 7830; nobody's)."""

Ask = Callable[[bytes], bytes]


def plain() -> Options:
    return Options(extensions=Extensions(clock=lambda: NOW))


def full() -> Options:
    return Options(
        extensions=Extensions(
            nsid=b"ns1",
            cookies=Cookies([bytes(16)]),
            keys=Keys([key("upd.", "hmac-sha256", bytes(32))]),
            clock=lambda: NOW,
            keepalive=10.0,
        ),
        policy=Policy([rule("upd.", None, ["*"], [])]),
    )


@pytest.fixture(scope="module", params=[plain, full])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("zones")
    texts = "".join(f'@ TXT "{n:03d}{"x" * 240}"\n' for n in range(4))
    (folder / f"{ZONE}zone").write_text(f"$TTL 600\n{SOA}{texts}")
    made = Authority(request.param(), random=Random(1), wall=lambda: NOW, clock=lambda: 0.0)
    assert made.begin(load_zones(folder)) == []
    return made


def by_datagram(server: Authority, message: bytes) -> bytes:
    sent: list[tuple[bytes, Any]] = []
    protocol = DnsDatagramProtocol(server)
    protocol.connection_made(
        SimpleNamespace(sendto=lambda data, peer: sent.append((data, peer)))  # type: ignore[arg-type]
    )
    protocol.datagram_received(message, PEER)
    ((reply, peer),) = sent
    assert peer == PEER
    return reply


def by_stream(server: Authority, message: bytes) -> bytes:
    transport = FakeTransport(PEER)
    transport.protocol = protocol = DnsStreamProtocol(server)
    protocol.connection_made(transport)
    protocol.data_received(framed(message))
    assert not transport.closed
    (reply,) = split(bytes(transport.sent))
    return reply


def split(data: bytes) -> Iterator[bytes]:
    while data:
        end = 2 + int.from_bytes(data[:2], "big")
        assert len(data) >= end
        yield data[2:end]
        data = data[end:]


@pytest.fixture(params=["udp", "tcp"])
def ask(
    request: pytest.FixtureRequest, server: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ask]:
    """Asks twice and wants one answer, with the question's identifier."""
    loop = SimpleNamespace(time=lambda: 0.0, call_later=FakeLoop().call_later)
    loop.call_soon = lambda what, *args: loop.call_later(0.0, what, *args)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    way = by_datagram if request.param == "udp" else by_stream

    def twice(message: bytes) -> bytes:
        first, second = way(server, message), way(server, message)
        assert first == second
        assert first[:2] == message[:2]
        return first

    yield twice
    # RFC 8906 §6: whatever came before, who asks nothing particular is told nothing particular.
    assert header(twice(query()))[1:] == (QR | AA, [1, 1, 0, 0])


def query(
    rdtype: str = "SOA", flags: int = 0, edns: int | None = None, name: str = ZONE, **how: Any
) -> bytes:
    """A question; with `edns`, of that version, `do` being its flags and `options` by code."""
    if edns is None:
        return question(name, rdtype, flags=flags, **how)
    do, size = how.pop("do", 0), how.pop("size", 4096)
    data = b"".join(
        pack("!HH", code, len(data)) + data for code, data in how.pop("options", {}).items()
    )
    wire = question(name, rdtype, flags=flags, **how)
    opt = pack("!BHHBBHH", 0, 41, size, 0, edns, do, len(data)) + data
    return wire[:10] + b"\0\1" + wire[12:] + opt


def header(wire: bytes) -> tuple[int, int, list[int]]:
    """Opcode, flags without opcode and response code, and the counts."""
    word, *counts = (int.from_bytes(wire[at : at + 2], "big") for at in range(2, 12, 2))
    return word >> 11 & 15, word & 0x87F0, counts


def opt(wire: bytes) -> tuple[int, int, dict[int, bytes]]:
    """Version, flags and options of the one OPT, which stands last in additional."""
    message = Reply(wire).message
    assert message.opt is not None
    options = {int(one.otype): one.to_wire() or b"" for one in message.options}
    assert len(options) == len(message.options)
    return message.edns, message.ednsflags & 0xFFFF, options


def check(wire: bytes, *, flags: int = QR | AA, do: int = 0) -> dict[int, bytes]:
    """The zone's SOA, as asked with EDNS version 0; the options that came."""
    reply = Reply(wire)
    assert (reply.rcode, header(wire)[:2]) == ("NOERROR", (0, flags))
    assert reply.kinds() == (["SOA"], [], [])
    version, edns_flags, options = opt(wire)
    assert (version, edns_flags) == (0, do)
    return options


def check_badvers(wire: bytes, do: int = 0) -> None:
    """RFC 6891 §6.1.3: BADVERS, our version, the question and nothing else."""
    message = Reply(wire).message
    assert message.rcode() == BADVERS
    assert header(wire) == (0, QR, [1, 0, 0, 1])
    assert opt(wire) == (0, do, {})


# RFC 8906 §8.1: basic DNS.


@pytest.mark.parametrize("edns", [None, 0])
@pytest.mark.parametrize("flags", [0, AA, TC, RD, RA, Z, AD, CD, AA | TC | RD | RA | Z | AD | CD])
def test_dns_aa_tc_rd_ra_z_ad_cd(ask: Ask, flags: int, edns: int | None) -> None:
    """RFC 8906 §8.1.1, §8.1.3: of the header's flags RD alone comes back."""
    wire = ask(query(flags=flags, edns=edns))
    assert header(wire) == (0, QR | AA | flags & RD, [1, 1, 0, edns is not None])
    assert Reply(wire).kinds() == (["SOA"], [], [])
    assert (Reply(wire).message.opt is not None) == (edns is not None)


META: Final = {41, *range(249, 256)}
HELD: Final = {2: "NS", 6: "SOA", 16: "TXT"}


@pytest.mark.parametrize("edns", [None, 0])
def test_types(ask: Ask, edns: int | None) -> None:
    """RFC 8906 §8.1.2: NOERROR for every type, known to anybody or not, but those that ask."""
    for rdtype in {*range(1, 264), 666, 1000, 32768, 32769, 65279, 65280, 65534} - META:
        wire = ask(query(f"TYPE{rdtype}", edns=edns))
        reply = Reply(wire)
        if rdtype in HELD:
            assert reply.rcode == "NOERROR"
            assert "AA" in reply.flags
            assert reply.kinds()[0] == ([HELD[rdtype]] if "TC" not in reply.flags else [])
            continue
        assert (reply.rcode, header(wire)[1]) == ("NOERROR", QR | AA)
        assert reply.kinds() == ([], ["SOA"], [])
    wire = ask(query("TYPE1000", name=f"none.{ZONE}", edns=edns))
    assert (Reply(wire).rcode, header(wire)[1]) == ("NXDOMAIN", QR | AA)


@pytest.mark.parametrize("rest", [bytes(8), query()[4:], b"\xff" * 30], ids=["header", "soa", "x"])
@pytest.mark.parametrize("opcode", range(1, 16))
def test_opcodes(ask: Ask, server: Authority, opcode: int, rest: bytes) -> None:
    """RFC 8906 §3.1.3, §8.1.4: NOTIMP and a bare header without flags; two opcodes want more."""
    for flags in (0, AA | TC | RD | RA | Z | AD | CD):
        wire = ask(b"\xab\xcd" + pack("!H", opcode << 11 | flags) + rest)
        if opcode == 4 or (opcode == 5 and server.options.policy):
            # A zone and no right to tell or change anything (RFC 1996 §3.10, RFC 2136 §3.3).
            whole = rest == query()[4:]
            rcode = (NOTAUTH if opcode == 4 else REFUSED) if whole else FORMERR
            assert (header(wire)[0], wire[3] & 15) == (opcode, rcode)
            assert header(wire)[2] == [int(whole), 0, 0, 0]
            continue
        assert header(wire) == (opcode, QR, [0, 0, 0, 0])
        assert (len(wire), wire[3] & 15) == (12, NOTIMP)


def test_opt_for_opt_whatever_the_opcode(ask: Ask) -> None:
    """RFC 6891 §6.1.1: dig takes an answer without one for a server that knows no EDNS."""
    for opcode in (1, 2, 3, 6, 15):
        asked = query(edns=0)
        wire = ask(asked[:2] + bytes((opcode << 3 | 1, 0)) + asked[4:])
        assert header(wire) == (opcode, QR, [0, 0, 0, 1])
        assert (wire[3] & 15, wire[12:15], wire[17:23]) == (NOTIMP, b"\0\0\x29", bytes(6))


@pytest.mark.parametrize("do", [0, DO])
@pytest.mark.parametrize("rdtype", ["DNSKEY", "DS", "RRSIG", "NSEC", "CDS", "CDNSKEY"])
def test_types_of_signed_zones(ask: Ask, rdtype: str, do: int) -> None:
    """RFC 4035 §3.1: an unsigned zone has none of them, whatever is asked for with DO."""
    wire = ask(query(rdtype, edns=0, do=do))
    reply = Reply(wire)
    assert (reply.rcode, header(wire)[1]) == ("NOERROR", QR | AA)
    assert reply.kinds() == ([], ["SOA"], [])
    assert opt(wire) == (0, do, {})


def test_dnswkk(ask: Ask) -> None:
    """RFC 8945 §5.2.1: a key that we do not know gets NOTAUTH with BADKEY, and no answer."""
    ring = {dns.name.from_text("well-known."): dns.tsig.Key("well-known.", bytes(32))}
    message = dns.message.make_query(ZONE, "SOA", flags=0)
    message.use_tsig(ring, algorithm=dns.tsig.HMAC_SHA256)
    wire = ask(message.to_wire())
    assert (wire[3] & 15, header(wire)) == (NOTAUTH, (0, QR, [1, 0, 0, 1]))
    with pytest.raises(dns.tsig.PeerBadKey):
        dns.message.from_wire(wire, keyring=ring, request_mac=message.mac)


# RFC 8906 §8.2: EDNS.


def test_edns(ask: Ask) -> None:
    """RFC 8906 §8.2.1."""
    assert check(ask(query(edns=0))) == {}


@pytest.mark.parametrize("size", [0, 511, 512])
def test_edns_at_512(ask: Ask, server: Authority, size: int) -> None:
    """RFC 8906 §8.2.7, RFC 6891 §6.2.3: at most 512 octets, TC, and OPT is still there."""
    asked = query("TXT", edns=0, size=size, do=DO)
    wire = by_datagram(server, asked)
    reply = Reply(wire)
    assert len(wire) <= 512
    assert (reply.rcode, header(wire)[1]) == ("NOERROR", QR | AA | TC)
    assert opt(wire) == (0, DO, {})
    whole = Reply(by_stream(server, asked))
    assert (len(whole.answer), "TC" in whole.flags) == (4, False)
    assert len(Reply(by_datagram(server, query("TXT", edns=0, size=1232))).answer) == 4


@pytest.mark.parametrize("data", [b"", b"\x12\x34", bytes(300)])
def test_ednsopt(ask: Ask, data: bytes) -> None:
    """RFC 8906 §8.2.3, RFC 6891 §6.1.2: an option that nobody knows is ignored."""
    assert check(ask(query(edns=0, options={UNKNOWN: data}))) == {}


@pytest.mark.parametrize("do", [DO, 0x40, UNKNOWN_FLAGS, DO | UNKNOWN_FLAGS])
def test_do_and_ednsflags(ask: Ask, do: int) -> None:
    """RFC 8906 §8.2.4, §8.2.8, RFC 6891 §6.1.4, RFC 3225 §3: DO is copied, the rest is zero."""
    assert check(ask(query(edns=0, do=do)), do=do & DO) == {}


@pytest.mark.parametrize("version", [1, 2, 100, 255])
@pytest.mark.parametrize("do", [0, DO, 0x40, DO | UNKNOWN_FLAGS])
@pytest.mark.parametrize("code", [None, *WILL])
def test_edns1(ask: Ask, code: int | None, do: int, version: int) -> None:
    """RFC 8906 §8.2.2, §8.2.5, §8.2.6, §8.2.9: BADVERS in version 0, with whatever options."""
    options = {} if code is None else {code: WILL[code]}
    check_badvers(ask(query(edns=version, do=do, options=options)), do & DO)


@pytest.mark.parametrize("rdtype", ["AXFR", "TYPE1000", "ANY"])
def test_edns1_comes_before_the_question(ask: Ask, rdtype: str) -> None:
    """RFC 6891 §6.1.3: MUST be BADVERS; the options of another version need not make sense."""
    check_badvers(ask(query(rdtype, edns=1)))
    check_badvers(ask(query(rdtype, edns=1, name="elsewhere.")))
    wire = query(rdtype, edns=1, options={UNKNOWN: b"abcd"})
    check_badvers(ask(wire[:-7] + b"\xff" * 7))


def test_edns1_without_a_question(ask: Ask) -> None:
    """RFC 6891 §6.1.3: a version that is not ours may do without one, as a cookie does."""
    wire = ask(b"\xab\xcd" + bytes(9) + b"\1" + query(edns=1)[-11:])
    assert header(wire) == (0, QR, [0, 0, 0, 1])
    assert Reply(wire).message.rcode() == BADVERS


@pytest.mark.parametrize("do", [0, DO, 0x40])
@pytest.mark.parametrize("version", [0, 1, 255])
def test_edns1_in_notify_and_update(ask: Ask, server: Authority, version: int, do: int) -> None:
    """RFC 6891 §6.1.3 excepts no opcode: nothing is done that may not have been understood."""
    refused = [(4, NOTAUTH), (5, REFUSED)]
    for opcode, rcode in refused if server.options.policy else refused[:1]:
        wire = ask(query(flags=opcode << 11, edns=version, do=do))
        assert (header(wire)[0], header(wire)[2]) == (opcode, [1, 0, 0, 1])
        assert wire[-6] << 4 | wire[3] & 15 == (BADVERS if version else rcode)
        assert wire[-11:] == pack("!BHHBBHH", 0, 41, 1232, version and 1, 0, do & DO, 0)


# Options (RFC 8906 §8.2.10 and the tester's own).


def of(server: Authority, *codes: int) -> set[int]:
    """Those options that the server has an answer to."""
    return set(codes) & ({NSID, COOKIE} if server.options.policy else set())


@pytest.mark.parametrize("code", [NSID, ECS, EXPIRE, COOKIE, PADDING])
def test_ednsnsid_ednscookie_ednsexpire_ednssubnet_ednspadding(
    ask: Ask, server: Authority, code: int
) -> None:
    """RFC 8906 §8.2.10: answered by who supports it, else ignored; never echoed.

    RFC 7871 §7.2.1 (no subnet from who does not tailor answers), RFC 7830 §4 (no padding in clear).
    """
    options = check(ask(query(edns=0, options={code: WILL[code]})))
    assert set(options) == of(server, code)
    if NSID in options:
        assert options[NSID] == b"ns1"
    if COOKIE in options:
        assert options[COOKIE][:8] == WILL[COOKIE]
        assert len(options[COOKIE]) == 24


@pytest.mark.parametrize("do", [0, DO])
def test_optlist_and_docookie(ask: Ask, server: Authority, do: int) -> None:
    """RFC 8906 §8.2.10: many options together are as good as each alone, with DO too."""
    options = check(ask(query(edns=0, do=do, options=WILL)), do=do)
    assert set(options) == of(server, NSID, COOKIE)
    again = {**WILL, COOKIE: options.get(COOKIE, WILL[COOKIE])}
    assert check(ask(query(edns=0, do=do, options=again)), do=do) == options
    backwards = dict(reversed(WILL.items()))
    assert check(ask(query(edns=0, do=do, options=backwards)), do=do) == options


@pytest.mark.parametrize("length", [0, 1, 7, 9, 15, 41, 64])
def test_a_cookie_of_bad_length(ask: Ask, server: Authority, length: int) -> None:
    """RFC 7873 §5.2.2: FORMERR; from who has no cookies, an option like any other."""
    wire = ask(query(edns=0, options={COOKIE: bytes(length)}))
    if not server.options.policy:
        assert check(wire) == {}
        return
    assert Reply(wire).message.rcode() == FORMERR
    assert header(wire) == (0, QR, [1, 0, 0, 1])
    assert opt(wire) == (0, 0, {})


def test_a_servers_cookie_that_is_not_ours(ask: Ask, server: Authority) -> None:
    """RFC 7873 §5.2.4: answered all the same, with a new one."""
    options = check(ask(query(edns=0, options={COOKIE: b"12345678" + b"\1" * 16})))
    assert set(options) == of(server, COOKIE)
    for cookie in options.values():
        assert cookie[:8] == b"12345678"
        assert cookie[8:] != b"\1" * 16


def test_keepalive_is_for_streams(server: Authority, ask: Ask) -> None:
    """RFC 7828 §3.2.1, §3.2.2."""
    asked = query(edns=0, options={KEEPALIVE: b""})
    assert check(by_datagram(server, asked)) == {}
    expected = {KEEPALIVE: b"\0\x64"} if server.options.policy else {}
    assert check(by_stream(server, asked)) == expected


@pytest.mark.parametrize(
    "tail",
    [b"\0\3\0", b"\0\3\0\5abcd", b"\0\x0a\xff\xff12345678"],
    ids=["short", "long", "longest"],
)
def test_options_that_leave_their_record(ask: Ask, tail: bytes) -> None:
    """RFC 6891 §6.1.2: FORMERR, with the question; never silence."""
    wire = query(edns=0)
    wire = ask(wire[:-2] + len(tail).to_bytes(2, "big") + tail)
    assert (wire[3] & 15, header(wire)[:2]) == (FORMERR, (0, QR))


def test_a_second_opt(ask: Ask) -> None:
    """RFC 6891 §6.1.1."""
    wire = query(edns=0)
    wire = ask(wire[:11] + b"\2" + wire[12:] + wire[-11:])
    assert (Reply(wire).message.rcode(), header(wire)) == (FORMERR, (0, QR, [1, 0, 0, 1]))


def test_names_that_are_not_ours(ask: Ask) -> None:
    """RFC 8906 §3.1.1: REFUSED is an answer, with OPT to who sent one."""
    for edns in (None, 0):
        wire = ask(query(name="elsewhere.", edns=edns))
        assert (wire[3] & 15, header(wire)) == (REFUSED, (0, QR, [1, 0, 0, int(edns is not None)]))
