"""Signatures, with dnspython on the other side (RFC 8945)."""

from __future__ import annotations

import time

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import Catalog
from appliance.dns.edns import Extensions
from appliance.dns.errors import LocalError, WireError
from appliance.dns.tsig import (
    ALGORITHMS,
    BADKEY,
    BADSIG,
    BADTIME,
    BADTRUNC,
    FUDGE,
    Keys,
    Signer,
    key,
    verify,
)
from tests.dns.util import zone

SECRET = b"0123456789abcdef0123456789abcdef"
NAMES = sorted(name[1:-1].decode() for name in ALGORITHMS)
ZONE = zone("a A 192.0.2.1\nbig TXT " + " ".join('"' + "x" * 200 + '"' for _ in range(5)))


def keys() -> Keys:
    return Keys(key(f"{name}.example.", name, SECRET) for name in NAMES)


def catalog(ahead: float = 0.0) -> Catalog:
    return Catalog([ZONE], extensions=Extensions(keys=keys(), clock=lambda: time.time() + ahead))


def signed(
    name: str = "a.example.test.",
    rdtype: str = "A",
    algorithm: str = "hmac-sha256",
    secret: bytes = SECRET,
    key_name: str = "",
    edns: int | bool = False,
) -> tuple[dns.message.QueryMessage, bytes]:
    query = dns.message.make_query(name, rdtype, use_edns=edns)
    owner = dns.name.from_text(key_name or f"{algorithm}.Example.")
    query.use_tsig(dns.tsig.Key(owner, secret, algorithm))
    return query, query.to_wire()


def check(query: dns.message.Message, answer: bytes | None) -> dns.message.Message:
    """Read an answer; dnspython judges its signature."""
    assert answer is not None
    return dns.message.from_wire(answer, keyring=query.keyring, request_mac=query.mac)


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("edns", [False, 0])
def test_rfc8945_5_3_answers_are_signed_like_the_query(algorithm: str, edns: int | bool) -> None:
    """RFC 8945 §5.3, §6: each algorithm; key names in any case."""
    for name, rcode in (("a.example.test.", 0), ("none.example.test.", 3), ("elsewhere.", 5)):
        query, wire = signed(name, algorithm=algorithm, edns=edns)
        answer = check(query, catalog().answer(wire))
        assert answer.had_tsig
        assert answer.rcode() == rcode
        assert (answer.edns == 0) == (edns == 0 and edns is not False)


def tsig_of(answer: bytes | None) -> tuple[int, int, bytes]:
    """Response code, TSIG error and other data, without judging the signature."""
    assert answer is not None
    message = dns.message.from_wire(answer, keyring=False)
    assert message.tsig is not None
    record = message.tsig[0]
    return message.rcode(), int(record.error), record.other


def test_rfc8945_5_2_1_unknown_keys() -> None:
    """RFC 8945 §5.2.1: NOTAUTH, BADKEY, unsigned."""
    for how in ({"key_name": "nobody."}, {"key_name": "hmac-sha1.example."}):
        query, wire = signed(**how)
        answer = catalog().answer(wire)
        assert tsig_of(answer) == (dns.rcode.NOTAUTH, BADKEY, b"")
        with pytest.raises(dns.tsig.PeerBadKey):
            check(query, answer)
    assert tsig_of(Catalog([ZONE]).answer(signed()[1]))[1] == BADKEY


def test_rfc8945_5_2_2_wrong_secrets() -> None:
    """RFC 8945 §5.2.2: NOTAUTH, BADSIG, unsigned."""
    query, wire = signed(secret=SECRET[::-1])
    answer = catalog().answer(wire)
    assert tsig_of(answer) == (dns.rcode.NOTAUTH, BADSIG, b"")
    with pytest.raises(dns.tsig.PeerBadSignature):
        check(query, answer)


@pytest.mark.parametrize("ahead", [-FUDGE - 10, FUDGE + 10, 1 << 33])
def test_rfc8945_5_2_3_clocks_apart(ahead: float) -> None:
    """RFC 8945 §5.2.3: NOTAUTH, BADTIME, signed, with our time."""
    query, wire = signed()
    answer = catalog(ahead).answer(wire)
    rcode, error, other = tsig_of(answer)
    assert (rcode, error) == (dns.rcode.NOTAUTH, BADTIME)
    assert abs(int.from_bytes(other, "big") - (time.time() + ahead)) < 5
    with pytest.raises(dns.tsig.PeerBadTime):
        check(query, answer)
    assert tsig_of(catalog(FUDGE - 10).answer(wire))[1] == 0


def shortened(query: dns.message.Message, wire: bytes, octets: int) -> bytes:
    """The query with so many octets of its MAC, as RFC 8945 §5.2.2.1 lets a peer send."""
    mac = wire.rindex(query.mac)
    rdata = wire.rindex(b"\x0bhmac-sha256\0")
    short = wire[rdata : mac - 2] + octets.to_bytes(2, "big") + wire[mac : mac + octets]
    short += wire[mac + 32 :]
    return wire[: rdata - 2] + len(short).to_bytes(2, "big") + short


def test_rfc8945_5_2_2_1_truncated_macs() -> None:
    """RFC 8945 §5.2.2.1, §5.2.4: ten octets or half at least; we want all: BADTRUNC."""
    query, wire = signed()
    for octets in (31, 16):
        answer = catalog().answer(shortened(query, wire, octets))
        assert tsig_of(answer)[:2] == (dns.rcode.NOTAUTH, BADTRUNC)
    answer = catalog().answer(shortened(query, wire, 15))
    assert answer is not None
    assert answer[3] & 15 == dns.rcode.FORMERR
    assert tsig_of(catalog().answer(shortened(query, wire, 32)))[:2] == (0, 0)


def test_truncation_leaves_room_for_the_signature() -> None:
    query, wire = signed("big.example.test.", "TXT", edns=0)
    answer = catalog().answer(wire)
    assert answer is not None
    assert len(answer) <= 1232
    assert check(query, answer).flags & dns.flags.TC == 0
    query, wire = signed("big.example.test.", "TXT")
    message = check(query, catalog().answer(wire))
    assert message.flags & dns.flags.TC
    assert message.had_tsig


def test_a_stream_of_messages_is_signed_as_a_chain() -> None:
    """RFC 8945 §5.3.1: each signature covers the one before and the timers."""
    query, wire = signed()
    at = wire.index(b"\x0bhmac-sha256\x07Example\0", 20)
    signer = Signer(verify(wire, at, keys(), time.time()))
    plain = Catalog([ZONE]).answer(dns.message.make_query("a.example.test.", "A").to_wire())
    assert plain is not None
    plain = wire[:2] + plain[2:]
    context = None
    for _ in range(4):
        one = signer.sign(plain, time.time())
        assert len(one) == len(plain) + signer.length
        read = dns.message.from_wire(
            one,
            keyring=query.keyring,
            request_mac=query.mac,
            multi=True,
            tsig_ctx=context,
        )
        context = read.tsig_ctx
        assert read.had_tsig


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_any_octets_are_wire_errors_or_no_signature(junk: bytes, place: int, value: int) -> None:
    _, wire = signed()
    at = wire.index(b"\x0bhmac-sha256\x07Example\0", 20)
    changed = bytearray(wire)
    changed[at + place % (len(wire) - at)] = value
    for message in (wire[:at] + junk, bytes(changed), wire[: at + len(junk)]):
        try:
            judged = verify(message, at, keys(), time.time())
        except WireError:
            continue
        assert judged.error in (0, BADKEY, BADSIG, BADTIME, BADTRUNC)
        if not judged.error:
            assert message.lower() == wire.lower()


def test_keys_are_made_with_care() -> None:
    assert "0123" not in repr(key("k.", "hmac-sha256", SECRET))
    for name, algorithm, secret in (
        ("k.", "hmac-md5", SECRET),
        ("k.", "hmac-sha256", b"short"),
        ("..", "hmac-sha256", SECRET),
    ):
        with pytest.raises(LocalError):
            key(name, algorithm, secret)
    with pytest.raises(LocalError, match="two keys"):
        Keys([key("k.", "hmac-sha256", SECRET), key("K", "hmac-sha512", SECRET)])
