"""Rdata as text: what we write ourselves is what dnspython writes, and reads as the same again."""

from __future__ import annotations

import dns.name
import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import names
from appliance.dns.consts import AAAA, CNAME, DNAME, MX, NS, PTR, SOA, SRV, TXT, A
from appliance.dns.text import rdata_text

ORIGIN = names.from_text("Example.test.")
BELOW = dns.name.from_text("Example.test.")
LABELS = st.lists(st.binary(min_size=1, max_size=12), max_size=4)


@st.composite
def hosts(draw: st.DrawFn) -> bytes:
    """A name, often below the origin, in whatever case and octets."""
    below = draw(st.sampled_from([names.ROOT, ORIGIN, ORIGIN.lower(), b"\4test\0"]))
    return b"".join(bytes((len(one),)) + one for one in draw(LABELS)) + below


def numbers(octets: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=octets, max_size=octets)


def joined(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(b"".join)


STRINGS = st.lists(st.text(st.characters(max_codepoint=255), max_size=20), min_size=1, max_size=3)
RDATA = {
    A: numbers(4),
    AAAA: st.one_of(numbers(16), st.sampled_from([bytes(16), bytes(10) + b"\xff\xff\1\2\3\4"])),
    **dict.fromkeys((NS, CNAME, PTR, DNAME), hosts()),
    MX: joined(numbers(2), hosts()),
    SRV: joined(numbers(6), hosts()),
    SOA: joined(hosts(), hosts(), numbers(20)),
    TXT: STRINGS.map(
        lambda some: b"".join(bytes((len(one),)) + one.encode("latin-1") for one in some)
    ),
}


def read(rtype: int, text: str) -> bytes | None:
    """What a master file's rdata are."""
    return dns.rdata.from_text(1, rtype, text, origin=BELOW, relativize=False).to_wire()


@pytest.mark.parametrize("rtype", RDATA)
@given(data=st.data())
def test_what_we_write_is_what_dnspython_writes(rtype: int, data: st.DataObject) -> None:
    rdata = data.draw(RDATA[rtype])
    text = rdata_text(rtype, rdata, ORIGIN)
    assert not text.startswith("\\#")
    assert read(rtype, text) == rdata
    theirs = dns.rdata.from_wire(1, rtype, rdata, 0, len(rdata), BELOW)
    written = theirs.to_text(origin=BELOW, relativize=True)
    if read(rtype, written) == rdata:  # it does not mind the case of names
        assert text == written


@pytest.mark.parametrize("rtype", [*RDATA, 99, 65280])
@given(rdata=st.binary(max_size=40))
def test_any_octets_come_back(rtype: int, rdata: bytes) -> None:
    """RFC 3597 §5: what is no sound record of its type is written in octets."""
    for origin in (None, ORIGIN, names.ROOT):
        text = rdata_text(rtype, rdata, origin)
        below = None if origin is None else dns.name.Name([*names.labels(origin), b""])
        if text.startswith("\\#"):
            assert bytes.fromhex("".join(text.split()[2:])) == rdata
        else:
            again = dns.rdata.from_text(1, rtype, text, origin=below, relativize=False)
            assert again.to_wire() == rdata
