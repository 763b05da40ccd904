"""Options in OPT: NSID, cookies, keepalive, padding, extended errors."""

from __future__ import annotations

from typing import Any

import dns.edns
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import Catalog
from appliance.dns.cookies import Cookies
from appliance.dns.edns import PADDING_BLOCK, Extensions, padding
from appliance.dns.message import Edns
from tests.dns.util import Reply, question, zone

SECRET = bytes(range(16))
PEER = ("192.0.2.7", 4242)
NOW = 1_900_000_000.0
ZONE = zone("a A 192.0.2.1\nbig TXT " + " ".join('"' + "x" * 200 + '"' for _ in range(2)))


def catalog(**how: Any) -> Catalog:
    how.setdefault("nsid", b"ns1")
    how.setdefault("cookies", Cookies([SECRET]))
    how.setdefault("clock", lambda: NOW)
    how.setdefault("keepalive", 12.34)
    return Catalog([ZONE], extensions=Extensions(**how))


def ask(
    one: Catalog,
    *options: tuple[int, bytes],
    name: str = "a.example.test.",
    transport: str = "udp",
    rdtype: str = "A",
    **how: Any,
) -> tuple[Reply, dict[int, bytes]]:
    wire = question(
        name,
        rdtype,
        use_edns=0,
        options=[dns.edns.GenericOption(code, data) for code, data in options],
        **how,
    )
    reply = Reply(one.answer(wire, transport=transport, peer=PEER))
    return reply, {int(got.otype): got.to_wire() or b"" for got in reply.message.options}


def test_rfc5001_nsid() -> None:
    """RFC 5001 §2.1, §2.2: sent to those who ask with an empty option."""
    assert ask(catalog(), (3, b""))[1] == {3: b"ns1"}
    assert ask(catalog(nsid=b""), (3, b""))[1] == {}
    assert ask(catalog())[1] == {}
    with pytest.raises(ValueError, match="NSID"):
        Extensions(nsid=b"x" * 65)


def test_rfc7873_5_2_cookies() -> None:
    """RFC 7873 §5.2.3 to §5.2.5: client cookies alone, with wrong and right server cookies."""
    one = catalog()
    reply, options = ask(one, (10, b"12345678"))
    assert reply.answer == ["a.example.test. A 192.0.2.1"]
    assert options[10][:8] == b"12345678"
    assert len(options[10]) == 24
    assert ask(one, (10, options[10]))[1] == options
    reply, again = ask(one, (10, b"12345678" + bytes(16)))
    assert (reply.rcode, again) == ("NOERROR", options)
    assert ask(one, (10, b"12345678"), name="other.")[1][10] == options[10]


@pytest.mark.parametrize("length", [0, 7, 9, 15, 41])
def test_rfc7873_5_2_2_malformed_cookies(length: int) -> None:
    """RFC 7873 §5.2.2: FORMERR."""
    assert ask(catalog(), (10, bytes(length)))[0].rcode == "FORMERR"
    assert ask(catalog(cookies=None), (10, bytes(length)))[0].rcode == "NOERROR"


def no_question(*options: tuple[int, bytes]) -> bytes:
    message = dns.message.Message(id=7)
    message.use_edns(0, options=[dns.edns.GenericOption(code, data) for code, data in options])
    return message.to_wire()


def test_rfc7873_5_4_asking_for_nothing_but_a_cookie() -> None:
    """RFC 7873 §5.4: QDCOUNT 0; BADCOOKIE for a wrong server cookie."""
    one = catalog()
    wire = one.answer(no_question((10, b"12345678")), peer=PEER)
    assert wire is not None
    reply = dns.message.from_wire(wire)
    assert (reply.rcode(), reply.question) == (dns.rcode.NOERROR, [])
    option = reply.options[0].to_wire() or b""
    wire = one.answer(no_question((10, option)), peer=PEER)
    assert dns.message.from_wire(wire or b"").rcode() == dns.rcode.NOERROR
    wire = one.answer(no_question((10, option[:-1] + b"!")), peer=PEER)
    assert dns.message.from_wire(wire or b"").rcode() == dns.rcode.BADCOOKIE
    for other in (no_question(), no_question((3, b""))):
        assert dns.message.from_wire(one.answer(other) or b"").rcode() == dns.rcode.FORMERR
    without = catalog(cookies=None).answer(no_question((10, b"12345678")))
    assert dns.message.from_wire(without or b"").rcode() == dns.rcode.FORMERR


def test_rfc7828_keepalive_is_for_streams() -> None:
    """RFC 7828 §3.1 (units of 100 ms), §3.2.1 (not over UDP), §3.2.2."""
    assert ask(catalog(), (11, b""), transport="tcp")[1] == {11: (123).to_bytes(2, "big")}
    assert ask(catalog(), (11, b""))[1] == {}
    assert ask(catalog(), transport="tcp")[1] == {}
    assert ask(catalog(keepalive=None), (11, b""), transport="tcp")[1] == {}


@pytest.mark.parametrize("transport", ["tls", "https", "quic", "tcp", "udp"])
def test_rfc7830_padding(transport: str) -> None:
    """RFC 7830 §4, RFC 8467 §4.1: answers to padded queries fill blocks of 468 octets."""
    for name, rdtype in (("a.example.test.", "A"), ("big.example.test.", "TXT")):
        options = [dns.edns.GenericOption(12, bytes(8)), dns.edns.GenericOption(3, b"")]
        wire = question(name, rdtype, use_edns=0, options=options)
        answer = catalog().answer(wire, transport=transport, peer=PEER)
        assert answer is not None
        assert (len(answer) % PADDING_BLOCK == 0) == (transport in ("tls", "https", "quic"))
        plain = question(name, rdtype, use_edns=0, options=options[1:])
        unpadded = catalog().answer(plain, transport=transport, peer=PEER)
        assert unpadded is not None
        assert len(unpadded) % PADDING_BLOCK


@given(st.integers(12, 65535))
def test_padding_reaches_a_multiple(length: int) -> None:
    edns = Edns(1232, 0, 0, [(12, b"")])
    assert (length + len(padding(length, edns, "tls"))) % PADDING_BLOCK == 0


def test_rfc8914_extended_errors() -> None:
    """RFC 8914 §4.19, §4.21, §4.22: why it was refused; only with EDNS."""
    one = catalog()
    assert ask(one, name="elsewhere.")[1] == {15: b"\0\x14"}
    assert ask(one, rdtype="AXFR")[1] == {15: b"\0\x14"}  # of what is no zone
    assert ask(one, name="example.test.", rdtype="AXFR")[1] == {15: b"\0\x12"}
    assert ask(one, rdtype="MAILA")[1] == {15: b"\0\x15"}
    assert ask(one, rdtype="OPT")[1] == {}
    assert ask(one, name="a.example.test.", rdtype="MX")[1] == {}
    assert Reply(one.answer(question("elsewhere."))).message.edns == -1


def test_all_options_together_in_the_order_asked_and_once() -> None:
    options = [(12, b""), (3, b""), (65001, b"?"), (10, b"12345678"), (3, b"again")]
    reply, got = ask(catalog(), *options)
    assert [int(one.otype) for one in reply.message.options] == [3, 10]
    assert got[3] == b"ns1"


def test_options_count_against_the_size() -> None:
    """RFC 6891 §6.2.3: OPT is part of the message."""
    options = [dns.edns.GenericOption(3, b""), dns.edns.GenericOption(10, b"12345678")]
    wire = question("big.example.test.", "TXT", use_edns=0, payload=512, options=options)
    plain = Catalog([ZONE]).answer(wire)
    assert plain is not None
    assert "TC" not in Reply(plain).flags
    answer = catalog(nsid=b"x" * 60).answer(wire, peer=PEER)
    assert answer is not None
    assert len(answer) <= 512
    assert "TC" in Reply(answer).flags
    assert Reply(answer).message.options[0].to_wire() == b"x" * 60
