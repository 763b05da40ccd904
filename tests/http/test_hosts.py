"""Virtual hosts."""

from __future__ import annotations

import pytest

from appliance.http.hosts import Hosts, host_of
from tests.http.fakes import Client, document, make_site

WWW = make_site({b"/name": document(b"www", "x.txt")})
DOCS = make_site({b"/name": document(b"docs", "x.txt")})
OTHER = make_site({b"/name": document(b"other", "x.txt")})
HOSTS = Hosts(
    {"www.example.org": WWW, "docs.example.org": DOCS, "bücher.example": DOCS},
    aliases={"example.org": "https://www.example.org/"},
)


@pytest.mark.parametrize(
    ("host", "body"),
    [
        ("www.example.org", b"www"),
        ("WWW.Example.ORG:8080", b"www"),
        ("www.example.org.", b"www"),
        ("docs.example.org", b"docs"),
        ("xn--bcher-kva.example", b"docs"),
    ],
)
def test_sites_by_name(host: str, body: bytes) -> None:
    assert Client(site=HOSTS).ask("GET /name", host=host).body == body


def test_an_alias_leads_to_the_name_that_counts() -> None:
    client = Client(site=HOSTS)
    for target, wanted in (
        ("/name?a=b", "https://www.example.org/name?a=b"),
        ("/gr%C3%BC%C3%9Fe//x", "https://www.example.org/gr%C3%BC%C3%9Fe/x"),
    ):
        reply = client.ask(f"GET {target}", host="example.org")
        assert (reply.status, reply["location"]) == (308, wanted)


def test_rfc9110_unknown_names_are_misdirected() -> None:
    """RFC 9110 §15.5.20: 421 for an authority this server has no site for."""
    for host in ("evil.example", "10.0.0.2", "[::1]:80", "www.example.org.evil.example"):
        assert Client(site=HOSTS).ask("GET /name", host=host).status == 421
    default = Hosts({"www.example.org": WWW}, default=OTHER)
    for host, body in (("10.0.0.2", b"other"), ("www.example.org", b"www")):
        assert Client(site=default).ask("GET /name", host=host).body == body


def test_rfc9112_the_target_s_authority_goes_first() -> None:
    """RFC 9112 §3.2.2: an absolute-form target overrides Host."""
    client = Client(site=HOSTS)
    reply = client.ask("GET http://docs.example.org/name", host="www.example.org")
    assert reply.body == b"docs"


def test_the_memo_tells_hosts_apart() -> None:
    client = Client(site=HOSTS)
    for _ in range(3):
        assert client.ask("GET /name", host="www.example.org").body == b"www"
        assert client.ask("GET /name", host="docs.example.org").body == b"docs"


def test_a_name_is_one_thing() -> None:
    with pytest.raises(ValueError, match="both a site and an alias"):
        Hosts({"a.example": WWW}, aliases={"A.example": "https://b.example"})


@pytest.mark.parametrize(
    ("authority", "host"),
    [(b"A:80", b"a"), (b"a:", b"a"), (b"[::1]", b"[::1]"), (b"[::1]:8", b"[::1]"), (b"", b"")],
)
def test_hosts_without_ports(authority: bytes, host: bytes) -> None:
    assert host_of(authority) == host
