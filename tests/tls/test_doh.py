"""DNS over HTTPS as a hook: RFC 8484's requests and answers."""

from __future__ import annotations

import base64

import dns.message
import pytest

from appliance.dns import Catalog, Zone
from appliance.http.message import Answer, Request
from appliance.parts.doh import Doh, freshness

ZONE = Zone.from_text(
    "$ORIGIN example.org.\n@ 300 SOA ns1 root 1 7200 3600 604800 60\n@ 300 NS ns1\n"
    "ns1 120 A 192.0.2.1\nshort 30 A 192.0.2.2\nshort 30 A 192.0.2.3\n"
)
CATALOG = Catalog([ZONE])
DOH = Doh(lambda query, _address: CATALOG.answer(query, transport="tcp"))
TYPE = {b"content-type": b"application/dns-message"}


def ask(name: str, kind: str = "A") -> bytes:
    return dns.message.make_query(name, kind, id=0).to_wire()


def get(query: bytes) -> bytes:
    return b"/dns-query?dns=" + base64.urlsafe_b64encode(query).rstrip(b"=")


def request(method: bytes, target: bytes = b"/dns-query", **fields: bytes) -> Request:
    return Request(method, target, b"example.org", {k.encode(): v for k, v in fields.items()})


def content(answer: Answer | None) -> bytes:
    assert answer is not None
    return b"".join(bytes(part) for part in answer.parts)  # type: ignore[arg-type]


def test_get_and_post_say_the_same() -> None:
    """RFC 8484 §4.1."""
    query = ask("ns1.example.org")
    by_get = DOH(request(b"GET", get(query)), b"", "192.0.2.9")
    by_post = DOH(Request(b"POST", b"/dns-query", b"x", TYPE), query, "192.0.2.9")
    assert by_get is not None
    assert by_get.status == 200
    assert content(by_get) == content(by_post)
    assert b"Content-Type: application/dns-message\r\n" in by_get.block
    assert "192.0.2.1" in str(dns.message.from_wire(content(by_get)))


def test_head_has_no_body() -> None:
    answer = DOH(request(b"HEAD", get(ask("ns1.example.org"))), b"", "")
    assert answer is not None
    assert answer.parts == ()


@pytest.mark.parametrize(
    ("name", "kind", "seconds"),
    [
        ("ns1", "A", 120), ("short", "A", 30), ("absent", "A", 60), ("ns1", "MX", 60),
        ("@", "SOA", 300),
    ],
)  # fmt: skip
def test_freshness_is_the_smallest_ttl(name: str, kind: str, seconds: int) -> None:
    """RFC 8484 §5.1; RFC 2308 §5 for what does not exist."""
    full = "example.org" if name == "@" else f"{name}.example.org"
    answer = DOH(request(b"GET", get(ask(full, kind))), b"", "")
    assert answer is not None
    assert b"Cache-Control: max-age=%d\r\n" % seconds in answer.block


@pytest.mark.parametrize(
    ("method", "target", "fields", "body", "status"),
    [
        (b"GET", b"/dns-query", {}, b"", 400),
        (b"GET", b"/dns-query?dns=", {}, b"", 400),
        (b"GET", b"/dns-query?dns=!!!", {}, b"", 400),
        (b"GET", b"/dns-query?dns=AAAA", {}, b"", 400),
        (b"GET", b"/dns-query?dns=AAAB+AAA", {}, b"", 400),
        (b"POST", b"/dns-query", {}, ask("ns1.example.org"), 415),
        (b"POST", b"/dns-query", {b"content-type": b"text/plain"}, ask("a."), 415),
        (b"POST", b"/dns-query", TYPE, b"", 400),
        (b"POST", b"/dns-query", TYPE, bytes(70_000), 400),
        (b"DELETE", b"/dns-query", {}, b"", 405),
    ],
)  # fmt: skip
def test_what_is_no_query(
    method: bytes, target: bytes, fields: dict[bytes, bytes], body: bytes, status: int
) -> None:
    answer = DOH(Request(method, target, b"x", fields), body, "")
    assert answer is not None
    assert answer.status == status


def test_broken_answers_are_not_cached() -> None:
    """RFC 8484 §5.1: in doubt, nothing is fresh."""
    whole = content(DOH(request(b"GET", get(ask("ns1.example.org"))), b"", ""))
    assert all(freshness(whole[:n]) in (0, 120) for n in range(12, len(whole)))
