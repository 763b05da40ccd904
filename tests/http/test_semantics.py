"""What a request means: methods, negotiation, conditions and ranges put together.

These are the rows of the table of probes that ten servers were given, minus those about octets on
the wire, which are in test_http1.
"""

from __future__ import annotations

import gzip
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.message import Answer, Request
from appliance.http.semantics import decide
from tests.http.fakes import ABOUT, TEXT, Client, make_site

SITE = make_site()


def ask(target: str, method: str = "GET", **fields: str) -> Answer:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return decide(SITE, Request(method.encode(), target.encode(), b"example.org", named))


def field(answer: Answer, name: str) -> str | None:
    found = re.findall(rf"(?mi)^{name}: (.*)\r$", answer.block.decode("latin-1"))
    assert len(found) <= 1
    return found[0] if found else None


def body(answer: Answer) -> bytes:
    return b"".join(bytes(part) for part in answer.parts)  # type: ignore[arg-type]


# -- methods ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/", "/about", "/about.html", "*", "/docs", "/digits.txt"])
def test_rfc9110_options(target: str) -> None:
    """RFC 9110 §9.3.7: 204 with Allow, and no length of a body that cannot be."""
    answer = ask(target, "OPTIONS")
    assert answer.status == 204
    assert field(answer, "Allow") == "GET, HEAD, OPTIONS"
    assert field(answer, "Content-Length") is None
    assert answer.parts == ()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "LOCK"])
def test_rfc9110_known_methods(method: str) -> None:
    """RFC 9110 §15.5.6: 405 always says what would be allowed."""
    answer = ask("/", method)
    assert (answer.status, field(answer, "Allow")) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("method", ["BREW", "get", "Get", "GETX", "!"])
def test_rfc9110_unknown_methods(method: str) -> None:
    """RFC 9110 §9.1: an unrecognized method is 501; methods are case-sensitive."""
    assert ask("/", method).status == 501


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/about",
        "/about.html",
        "/docs?x",
        "/nope",
        "/empty.txt",
        "/digits.bin",
        "/%zz",
        "/../x",
    ],
)
@pytest.mark.parametrize("accept", ["gzip", "identity", "identity;q=0"])
def test_rfc9110_head_is_get_without_the_body(target: str, accept: str) -> None:
    """RFC 9110 §9.3.2: the same status and the same fields, no body."""
    get, head = (ask(target, method, accept_encoding=accept) for method in ("GET", "HEAD"))
    assert (head.status, head.block) == (get.status, get.block)
    assert head.parts == ()


def test_rfc9110_head_has_no_ranges() -> None:
    """RFC 9110 §14.2: Range is ignored for every method but GET."""
    assert ask("/digits.bin", "HEAD", range="bytes=0-1").status == 200


# -- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/docs", "/docs/"),
        ("/docs?a=b", "/docs/?a=b"),
        ("/about.html?a", "/about?a"),
        ("//about", "/about"),
        ("//docs//", "/docs/"),
        ("//docs", "/docs/"),
        ("//example.org/..", None),
        ("///about/.", None),
        ("/./gr%C3%BC%C3%9Fe.txt", "/gr%C3%BC%C3%9Fe.txt"),
        ("//a%20b.txt", "/a%20b.txt"),
        ("http://other.example/docs", "/docs/"),
    ],
)
def test_redirects_stay_here(target: str, location: str | None) -> None:
    """RFC 9110 §15.4.9: 308 to a path alone, so neither host nor port can leak or be changed."""
    answer = ask(target)
    assert field(answer, "Location") == location
    assert answer.status == (308 if location else 400 if ".." in target else 404)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/nope", 404), ("/.env", 404), ("/about/x", 404), ("/About", 404), ("/docs%2f", 404),
        ("/%61bout", 200), ("/gr%c3%bc%c3%9fe.txt", 200), ("/a%20b.txt", 200), ("/a+b.txt", 404),
        ("/?x=..", 200), ("/about?../..", 200), ("/%ff", 404), ("/about%00", 400), ("/%", 400),
        ("/../etc/passwd", 400), ("/%2e%2e/etc/passwd", 400), ("/..%5cx", 404),
    ],
)  # fmt: skip
def test_paths(target: str, status: int) -> None:
    assert ask(target).status == status


def test_rfc9110_an_unknown_path_gets_the_page_and_the_status() -> None:
    """RFC 9110 §15.5.5: the site's own page, negotiated, with status 404 and no validators."""
    answer = ask("/nope", accept_encoding="gzip")
    assert b"no such page" in gzip.decompress(body(answer))
    assert field(answer, "Vary") == "Accept-Encoding"
    for absent in ("ETag", "Last-Modified", "Accept-Ranges"):
        assert field(answer, absent) is None
    assert ask("/nope", range="bytes=0-1", if_none_match="*").status == 404
    assert ask("/nope", accept_encoding="identity;q=0, *;q=0").status == 404
    assert ask("/nope", "OPTIONS").status == 404


# -- representations --------------------------------------------------------------------------


def test_rfc9110_every_variant_says_what_it_is() -> None:
    """RFC 9110 §8, §12.5.5: type with charset, coding, length, validators, Vary; no sniffing."""
    plain, packed = ask("/about"), ask("/about", accept_encoding="gzip")
    assert body(plain) == gzip.decompress(body(packed)) == ABOUT
    for answer in (plain, packed):
        assert field(answer, "Content-Type") == "text/html; charset=utf-8"
        assert field(answer, "X-Content-Type-Options") == "nosniff"
        assert field(answer, "Vary") == "Accept-Encoding"
        assert field(answer, "Accept-Ranges") == "bytes"
        assert field(answer, "Last-Modified") == "Sat, 01 Feb 2014 00:00:00 GMT"
        assert field(answer, "Cache-Control") == "no-cache"
        assert field(answer, "Content-Length") == str(len(body(answer)))
    assert field(plain, "Content-Encoding") is None
    assert field(packed, "Content-Encoding") == "gzip"
    # RFC 9110 §8.8.3.3: validators of two codings never collide.
    assert field(plain, "ETag") != field(packed, "ETag")


def test_rfc9110_no_acceptable_coding() -> None:
    """RFC 9110 §15.5.7, §12.5.3: identity refused and nothing else to give is 406."""
    assert ask("/pixel.png", accept_encoding="identity;q=0").status == 406
    assert ask("/pixel.png", accept_encoding="*;q=0").status == 406
    assert ask("/about", accept_encoding="identity;q=0").status == 406
    assert field(ask("/about", accept_encoding="identity;q=0"), "Vary") == "Accept-Encoding"
    assert ask("/about", accept_encoding="identity;q=0, gzip").status == 200
    assert ask("/pixel.png", accept_encoding="gzip").status == 200


def test_what_does_not_shrink_has_one_variant() -> None:
    assert field(ask("/pixel.png", accept_encoding="gzip"), "Content-Encoding") is None
    assert field(ask("/", accept_encoding="gzip"), "Content-Encoding") is None  # 22 octets
    assert field(ask("/pixel.png"), "Vary") is None


# -- conditions and ranges --------------------------------------------------------------------


def test_rfc9110_not_modified() -> None:
    """RFC 9110 §15.4.5: 304 carries what a 200 would have said to a cache, and no body."""
    whole = ask("/about", accept_encoding="gzip")
    tag = field(whole, "ETag") or ""
    for condition in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = ask("/about", accept_encoding="gzip", if_none_match=condition)
        assert answer.status == 304
        assert answer.parts == ()
        for name in ("ETag", "Vary", "Cache-Control", "Last-Modified"):
            assert field(answer, name) == field(whole, name)
        for name in ("Content-Length", "Content-Type", "Content-Encoding"):
            assert field(answer, name) is None
    # The tag of another coding is another representation's.
    assert ask("/about", if_none_match=tag).status == 200
    assert ask("/about", if_modified_since="Sun, 02 Feb 2014 00:00:00 GMT").status == 304
    assert ask("/about", if_modified_since="Fri, 31 Jan 2014 00:00:00 GMT").status == 200


def test_rfc9110_precondition_failed() -> None:
    """RFC 9110 §15.5.13: If-Match and If-Unmodified-Since are not ignored."""
    assert ask("/about", if_match='"x"').status == 412
    assert ask("/about", if_match="*").status == 200
    assert ask("/about", "HEAD", if_match='"x"').parts == ()
    old = "Fri, 31 Jan 2014 00:00:00 GMT"
    assert ask("/about", if_unmodified_since=old).status == 412


def test_rfc9110_conditions_do_not_change_redirects_and_errors() -> None:
    """RFC 9110 §13.2.1: conditions are for requests that would have succeeded."""
    assert ask("/docs", if_match='"x"').status == 308
    assert ask("/about", accept_encoding="identity;q=0", if_none_match="*").status == 406


@pytest.mark.parametrize(
    ("wanted", "status", "content_range"),
    [
        ("bytes=0-7", 206, "bytes 0-7/4000"),
        ("bytes=-8", 206, "bytes 3992-3999/4000"),
        ("bytes=3992-", 206, "bytes 3992-3999/4000"),
        ("bytes=0-9999", 206, "bytes 0-3999/4000"),
        ("bytes=4000-", 416, "bytes */4000"),
        ("bytes=-0", 416, "bytes */4000"),
        ("bytes=8-0", 200, None),
        ("pages=1-2", 200, None),
    ],
)
def test_rfc9110_single_range(wanted: str, status: int, content_range: str | None) -> None:
    """RFC 9110 §14.4, §15.3.7, §15.5.17: partial content, and how much there would be."""
    answer = ask("/digits.bin", range=wanted)
    assert (answer.status, field(answer, "Content-Range")) == (status, content_range)
    if status == 206:
        first, last = map(int, re.findall(r"\d+", content_range or "")[:2])
        assert body(answer) == TEXT[first : last + 1]
        assert field(answer, "Content-Length") == str(last - first + 1)
        whole = ask("/digits.bin")
        for name in ("ETag", "Last-Modified", "Content-Type", "Vary", "Cache-Control"):
            assert field(answer, name) == field(whole, name)


def test_rfc9110_range_of_a_coded_variant() -> None:
    """RFC 9110 §14.2: a range counts in the octets of the selected representation."""
    whole = ask("/digits.txt", accept_encoding="gzip")
    part = ask("/digits.txt", accept_encoding="gzip", range="bytes=10-19")
    assert body(part) == body(whole)[10:20]
    assert field(part, "Content-Encoding") == "gzip"
    assert field(part, "Vary") == "Accept-Encoding"


def test_rfc9110_multiple_ranges() -> None:
    """RFC 9110 §14.6: multipart/byteranges whose parts name their place."""
    answer = ask("/digits.bin", range="bytes=0-9, 1000-1009, -10")
    assert answer.status == 206
    assert field(answer, "Content-Range") is None
    boundary = (field(answer, "Content-Type") or "").removeprefix("multipart/byteranges; boundary=")
    octets = body(answer)
    assert field(answer, "Content-Length") == str(len(octets))
    parts = (b"\r\n" + octets).split(b"\r\n--" + boundary.encode())
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    found = []
    for part in parts[1:-1]:
        heading, _, content = part.partition(b"\r\n\r\n")
        assert b"Content-Type: application/octet-stream" in heading
        place = re.search(rb"Content-Range: bytes (\d+)-(\d+)/4000", heading)
        assert place is not None
        first, last = int(place[1]), int(place[2])
        assert content == TEXT[first : last + 1]
        found.append((first, last))
    assert found == [(0, 9), (1000, 1009), (3990, 3999)]


@given(
    st.lists(
        st.tuples(st.integers(0, 4100), st.integers(0, 300)).map(lambda p: f"{p[0]}-{sum(p)}"),
        min_size=1,
        max_size=40,
    )
)
def test_rfc9110_never_more_than_the_file(specs: list[str]) -> None:
    """RFC 9110 §17.15: no set of ranges costs more than the representation."""
    answer = ask("/digits.bin", range="bytes=" + ",".join(specs))
    assert len(body(answer)) == answer.length <= len(TEXT)
    assert field(answer, "Content-Length") == str(answer.length)


def test_rfc9110_if_range() -> None:
    """RFC 9110 §13.1.5: a part only of the same representation, else the whole."""
    tag = field(ask("/digits.bin"), "ETag") or ""
    for condition, status in (
        (tag, 206),
        ("Sat, 01 Feb 2014 00:00:00 GMT", 206),
        ('"other"', 200),
        (f"W/{tag}", 200),
        ("Sat, 01 Feb 2014 00:00:01 GMT", 200),
    ):
        assert ask("/digits.bin", range="bytes=0-1", if_range=condition).status == status
    # A range that cannot be satisfied is only wrong if the representation is the same.
    assert ask("/digits.bin", range="bytes=9999-", if_range='"other"').status == 200
    # RFC 9110 §13.2.2: If-None-Match comes first.
    assert ask("/digits.bin", range="bytes=0-1", if_none_match=tag).status == 304


def test_rfc9110_empty_representation() -> None:
    """RFC 9110 §14.1.2: of nothing, nothing can be had."""
    assert ask("/empty.txt").status == 200
    assert field(ask("/empty.txt"), "Content-Length") == "0"
    assert ask("/empty.txt", range="bytes=0-").status == 416
    assert ask("/empty.txt", range="bytes=-1").status == 200


@given(
    st.sampled_from(["GET", "HEAD", "OPTIONS", "POST"]),
    st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30),
    st.dictionaries(
        st.sampled_from(
            ["accept_encoding", "range", "if_range", "if_match", "if_none_match",
             "if_modified_since", "if_unmodified_since"]
        ),
        st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20),
    ),
)  # fmt: skip
def test_nothing_raises(method: str, target: str, fields: dict[str, str]) -> None:
    for path in (target, "/" + target, "/digits.bin"):
        answer = ask(path, method, **fields)
        assert answer.status in {200, 204, 206, 304, 308, 400, 404, 405, 406, 412, 416}


def test_each_answer_carries_the_standing_fields() -> None:
    """RFC 9110 §6.6.1, §10.2.4: Date and Server on every answer, nosniff on all but 304."""
    for request in ("GET /", "GET /docs", "GET /nope", "POST /", "OPTIONS *", "GET /%zz"):
        reply = Client().ask(request)
        assert reply["date"] == "Sun, 02 Feb 2014 03:04:05 GMT"
        assert reply["server"] == "appliance"
        assert reply["x-content-type-options"] == "nosniff"
