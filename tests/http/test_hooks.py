"""Hooks before the site: chosen paths, bodies, both versions; what TLS and DNS build on."""

from __future__ import annotations

import pytest

from appliance.http.hosts import Elsewhere
from appliance.http.http1 import HttpProtocol, web_protocol
from appliance.http.http2 import Http2Protocol
from appliance.http.message import Answer, Request
from appliance.http.server import Limits
from appliance.parts.doh import Doh
from tests.http.fakes import Client, Reply, make_server
from tests.http.test_http2 import H2Client

POST = b"POST /dns-query HTTP/1.1\r\nHost: a\r\n"
seen: list[tuple[bytes, bytes, bytes, str]] = []


def echo(request: Request, body: bytes, address: str) -> Answer | None:
    seen.append((request.method, request.target, body, address))
    if request.target.endswith(b"?none"):
        return None
    if request.target.endswith(b"?fail"):
        raise RuntimeError("on purpose")
    return Answer(200, b"Content-Length: %d\r\n" % len(body), (body,))


HOOKS = {b"/dns-query": echo, b"/.well-known/acme-challenge/": echo}


def test_a_body_reaches_the_hook_and_the_next_request_its_site() -> None:
    seen.clear()
    client = Client(hooks=HOOKS)
    reply = Reply(client.send(POST + b"Content-Length: 5\r\n\r\nhello" + b"GET / HTTP/1.1\r\n"))
    assert (reply.status, reply.body) == (200, b"hello")
    assert seen == [(b"POST", b"/dns-query", b"hello", "192.0.2.1")]
    assert Reply(client.send(b"Host: a\r\n\r\n")).status == 200


def test_rfc9112_3_2_2_a_hook_is_found_by_an_absolute_target() -> None:
    """RFC 9112 §3.2.2: a server MUST accept the absolute-form in requests."""
    client = Client(hooks=HOOKS)
    for target, form in (
        ("http://a/dns-query?x=/", b"/dns-query?x=/"),
        ("HTTP://a:80/.well-known/acme-challenge/t", b"/.well-known/acme-challenge/t"),
    ):
        seen.clear()
        assert client.ask(f"GET {target}").status == 200
        assert seen == [(b"GET", form, b"", "192.0.2.1")]
    seen.clear()
    assert client.ask("GET http://u@a/dns-query").status == 400
    assert client.ask("GET http://a").status == 200
    assert seen == []


def test_what_was_decided_before_a_hook_came_is_forgotten() -> None:
    client, h2 = Client(), H2Client()
    for _ in range(3):
        assert client.ask("GET /dns-query").status == 404
        assert h2.fetch("/dns-query")[0][":status"] == "404"
    for server in (client.server, h2.client.server):
        server.hook_up(HOOKS)
    assert client.ask("GET /dns-query").status == 200
    assert h2.fetch("/dns-query")[0][":status"] == "200"
    assert client.server.counters()["status_404"] == 3


def test_rfc9110_9_3_2_an_answer_to_head_has_no_content() -> None:
    """RFC 9110 §9.3.2: MUST NOT, whatever hook answers; or the next answer begins elsewhere."""
    client = Client(hooks={**HOOKS, b"/doh": Doh(lambda _query, _address: None)})
    for path, status in (("/dns-query?fail", 500), ("/doh", 400), ("/doh?dns=" + "A" * 16, 400)):
        reply = client.ask(f"HEAD {path}")
        assert (reply.status, reply.rest) == (status, b"")
        assert int(reply["content-length"] or "0") > 0
        assert client.ask("GET /about").status == 200
    h2 = H2Client(hooks=HOOKS)
    headers, body = h2.fetch("/dns-query?fail", "HEAD")
    assert (headers[":status"], body) == ("500", b"")


def test_rfc9112_a_chunked_body_in_pieces() -> None:
    client = Client(hooks=HOOKS)
    octets = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    answer = b"".join(client.send(octets[n : n + 1]) for n in range(len(octets)))
    assert Reply(answer).body == b"abcde"


def test_rfc9110_a_hook_that_wants_the_body_says_100() -> None:
    """RFC 9110 §10.1.1."""
    client = Client(hooks=HOOKS)
    head = POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert client.send(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert Reply(client.send(b"ok")).body == b"ok"


def test_bodies_have_a_bound_and_a_deadline() -> None:
    limits = Limits(body=10)
    large = POST + b"Content-Length: 11\r\n\r\n"
    assert Reply(Client(hooks=HOOKS, limits=limits).send(large)).status == 413
    chunks = POST + b"Transfer-Encoding: chunked\r\n\r\n20\r\n" + b"x" * 32 + b"\r\n0\r\n\r\n"
    client = Client(hooks=HOOKS, limits=limits)
    assert Reply(client.send(chunks)).status == 413
    assert client.transport.ended
    client = Client(hooks=HOOKS)
    client.send(POST + b"Content-Length: 5\r\n\r\nhel")
    client.loop.advance(40)
    assert Reply(bytes(client.transport.sent)).status == 408


def test_paths_prefixes_and_who_is_left_to_the_site() -> None:
    client = Client(hooks=HOOKS)
    assert client.ask("GET /.well-known/acme-challenge/x").status == 200
    assert client.ask("GET /.well-known/other").status == 404
    assert client.ask("GET /dns-query/x").status == 404
    assert client.ask("GET /dns-query?none").status == 404
    for _ in range(3):  # never from memory
        seen.clear()
        client.ask("GET /dns-query")
        assert len(seen) == 1


def test_a_hook_that_fails_costs_a_500(caplog: pytest.LogCaptureFixture) -> None:
    assert Client(hooks=HOOKS).ask("GET /dns-query?fail").status == 500
    assert "a hook failed" in caplog.text


def test_over_http2() -> None:
    client = H2Client(hooks=HOOKS)
    number = client.ask("/dns-query", "POST", end=False)
    client.h2.send_data(number, b"hel")
    client.exchange()
    assert number not in client.headers
    client.h2.send_data(number, b"lo", end_stream=True)
    client.exchange()
    assert client.headers[number][":status"] == "200"
    assert client.bodies[number] == b"hello"
    assert client.fetch("/dns-query")[0][":status"] == "200"
    large = client.ask("/dns-query", "POST", end=False)
    for _ in range(6):
        client.h2.send_data(large, bytes(11_000))
        client.exchange()
    assert client.headers[large][":status"] == "413"
    # Requests that never end are refused, past eight of them.
    numbers = [client.ask("/dns-query", "POST", end=False) for _ in range(12)]
    client.exchange()
    assert [number for number in numbers if number in client.resets] == numbers[8:]
    client.client.loop.advance(40)
    client.exchange()
    assert client.goaway == 0


def test_rfc9110_a_hook_that_wants_the_body_says_100_over_http2_too() -> None:
    """RFC 9110 §10.1.1."""
    client = H2Client(hooks=HOOKS)
    number = client.ask("/dns-query", "POST", end=False, expect="100-continue")
    client.exchange()
    assert client.informed == {number: "100"}
    client.h2.send_data(number, b"ok", end_stream=True)
    client.exchange()
    assert client.headers[number][":status"] == "200"
    assert client.bodies[number] == b"ok"


def test_strict_transport_security_is_for_https_only() -> None:
    """RFC 6797 §7.2: not over http."""
    for scheme, wanted in (("https", "max-age=600"), ("http", None)):
        client = Client(make_server(scheme=scheme, hsts="max-age=600"))
        for path in ("/", "/about", "/nope", "/%zz"):
            assert client.ask(f"GET {path}")["strict-transport-security"] == wanted
    fast = H2Client(scheme="https", hsts="max-age=600")
    for _ in range(3):
        headers, _body = fast.fetch("/about")
        assert headers["strict-transport-security"] == "max-age=600"


def test_all_of_http_can_be_sent_to_https_but_for_the_hooks() -> None:
    client = Client(site=Elsewhere("https", 8443, "example.org"), hooks=HOOKS)
    reply = client.ask("GET /a/b?c", host="www.example.org:80")
    assert reply.status == 308
    assert reply["location"] == "https://www.example.org:8443/a/b?c"
    assert client.ask("GET /.well-known/acme-challenge/x").status == 200
    old = Client(site=Elsewhere("https", 443, "example.org"))
    reply = Reply(old.send(b"GET / HTTP/1.0\r\n\r\n"))
    assert reply["location"] == "https://example.org/"


def test_rfc7301_alpn_chooses() -> None:
    server = make_server()
    assert isinstance(web_protocol(server, "h2"), Http2Protocol)
    assert isinstance(web_protocol(server, "http/1.1"), HttpProtocol)
    assert isinstance(web_protocol(server), HttpProtocol)
    assert isinstance(web_protocol(make_server(limits=Limits(http2=False)), "h2"), HttpProtocol)
