"""Request targets by RFC 9112 §3.2 and RFC 3986."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.message import Refusal
from appliance.http.target import is_authority, location, parse_target


@pytest.mark.parametrize(
    ("target", "path", "canonical", "query", "authority"),
    [
        (b"/", b"/", True, b"", b""),
        (b"/a/b", b"/a/b", True, b"", b""),
        (b"/a?b=c?d", b"/a", True, b"?b=c?d", b""),
        (b"/a?", b"/a", True, b"?", b""),
        (b"/%61%62", b"/ab", True, b"", b""),
        (b"/%C3%BC", "/ü".encode(), True, b"", b""),
        (b"/a%2Fb", b"/a%2fb", True, b"", b""),  # never a separator
        (b"/a%3Fb", b"/a?b", True, b"", b""),
        (b"//a///b/", b"/a/b/", False, b"", b""),
        (b"/./a/.", b"/a/", False, b"", b""),
        (b"/a/%2e/b", b"/a/b", False, b"", b""),
        (b"//", b"/", False, b"", b""),
        (b"/a/...", b"/a/...", True, b"", b""),
        (b"/..a/b..", b"/..a/b..", True, b"", b""),
        (b"/?/../x", b"/", True, b"?/../x", b""),
        (b"http://Example.ORG/a?b", b"/a", True, b"?b", b"example.org"),
        (b"HTTP://example.org:8080", b"/", True, b"", b"example.org:8080"),
        (b"https://[::1]:80/", b"/", True, b"", b"[::1]:80"),
        (b"http://example.org?q", b"/", True, b"?q", b"example.org"),
    ],
)
def test_rfc9112_targets(
    target: bytes, path: bytes, canonical: bool, query: bytes, authority: bytes
) -> None:
    """RFC 9112 §3.2: origin-form and absolute-form."""
    assert parse_target(b"GET", target) == (path, canonical, query, authority)


def test_rfc9112_asterisk_and_authority_forms() -> None:
    """RFC 9112 §3.2.3, §3.2.4: `*` for OPTIONS, host:port for CONNECT."""
    assert parse_target(b"OPTIONS", b"*").path == b"*"
    assert parse_target(b"OPTIONS", b"http://example.org").path == b"*"
    assert parse_target(b"CONNECT", b"example.org:443").authority == b"example.org:443"


@pytest.mark.parametrize(
    "target",
    [
        b"*", b"a", b"example.org:443", b"ftp://example.org/", b"http:///a", b"http://a b/",
        b"http://user@example.org/", b"/%", b"/%0", b"/%zz", b"/a%00b", b"/%00", b"/a%0a", b"/%7f",
        b"/..", b"/../etc/passwd", b"/a/../b", b"/a/..", b"/%2e%2e/x", b"/.%2e/x", b"/%2e./x",
        b"/..%2fetc", b"/a%2f..%2fb", b"//../x", b"/a#b", b"/a?b#c", b"http://example.org/../x",
        b"?a", b"",
    ],
)  # fmt: skip
def test_rfc9112_refused(target: bytes) -> None:
    """RFC 9112 §3.2, RFC 3986 §2.1: what is malformed or climbs is a 400."""
    with pytest.raises(Refusal) as caught:
        parse_target(b"GET", target)
    assert caught.value.status == 400


@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40))
def test_no_target_leads_out_of_the_root(target: str) -> None:
    for prefix in ("", "/", "http://h/"):
        try:
            path = parse_target(b"GET", (prefix + target).encode()).path
        except Refusal:
            continue
        assert path.startswith(b"/")
        assert not {b"", b".", b".."} & set(path.split(b"/")[1:-1])
        assert path.split(b"/")[-1] not in {b".", b".."}
        assert b"\0" not in path


@given(st.binary(min_size=1, max_size=30))
def test_rfc3986_a_location_is_relative_to_this_host_and_decodes_to_its_path(name: bytes) -> None:
    """RFC 3986 §2.1: encoding and decoding are each other's inverse."""
    path = b"/" + name.lstrip(b"/")
    encoded = location(path)
    assert unquote_to_bytes(encoded) == path
    assert not encoded.startswith(b"//")
    assert encoded.isascii()
    assert not set(encoded) & set(b' "<>\\^`{|}\r\n\0%?#') - {ord("%")}


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (b"example.org", True), (b"Example.org:8080", True), (b"10.0.0.2", True), (b"[::1]", True),
        (b"[2001:db8::1]:443", True), (b"a_b", True), (b"x:", True), (b"%41", True),
        (b"", False), (b"a b", False), (b"a/b", False), (b"a:b", False), (b"a@b", False),
        (b"a,b", True), (b"[::1", False), (b"::1", False), (b"a:123456", False), (b"%4", False),
        (b"a\"b", False), (b"a\\b", False), (b"\xff", False),
    ],
)  # fmt: skip
def test_rfc9110_host(value: bytes, valid: bool) -> None:
    """RFC 9110 §7.2, RFC 3986 §3.2.2: uri-host [ ":" port ]."""
    assert is_authority(value) is valid
