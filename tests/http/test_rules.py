"""`_redirects` and `_headers`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.problem import Problem
from appliance.http.representation import Resource
from appliance.http.rules import MAX_PATTERNS, parse_headers, parse_redirects
from appliance.http.site import LoadedSite, load_site
from tests.http.fakes import NOW, Client

Make = Callable[..., LoadedSite]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(**own: str) -> LoadedSite:
        files = {
            "index.html": "<p>home",
            "about.html": "<p>about",
            "app/index.html": "<p>app",
            "private/a.txt": "secret",
            "assets/x.css": "p {}",
            "assets/open/y.css": "p {}",
            "404.html": "<p>lost",
        }
        for name, text in {**files, **own}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return load_site(tmp_path, theme=tmp_path / "_theme", now=NOW)

    return make


REDIRECTS = """
# A comment, and an empty line.

/old            /about
/moved/         /about          308        # with a comment
/away           https://example.com/x?y#z  302
/a%20b          /about
/news/*         /blog/:splat
/at/:year/:name /blog/:year-:name#top     307
/out/*          https://example.com/:splat 301
/spa/*          /app/index.html  200
/alias          /about           200
/private/*      /404             404!
/about          /elsewhere
/news/special   /never
/assets/x.css   /other.css       301!
/none           /404             404
"""


@pytest.mark.parametrize(
    ("target", "status", "where"),
    [
        ("/old", 301, "/about"),
        ("/old/", 301, "/about"),
        ("/old?a=b", 301, "/about?a=b"),
        ("/moved", 308, "/about"),
        ("/moved/", 308, "/about"),
        ("/away", 302, "https://example.com/x?y#z"),
        ("/away?b=c", 302, "https://example.com/x?y#z"),
        ("/a%20b", 301, "/about"),
        ("/news/2014/one", 301, "/blog/2014/one"),
        ("/news/special", 301, "/blog/special"),  # the first that matches
        ("/news/", 301, "/blog/"),
        ("/news", 301, "/blog/"),
        ("/newspaper", 404, None),
        ("/news/a%0ab", 400, None),
        ("/news/%C3%BC%20", 301, "/blog/%C3%BC%20"),
        ("/news/%2f%2fexample.com", 301, "/blog/%252f%252fexample.com"),
        ("/at/2014/x?q", 307, "/blog/2014-x?q#top"),
        ("/at/2014/x/y", 404, None),
        ("/at/2014/", 404, None),
        ("/out//evil.example", 301, "https://example.com/evil.example"),
        ("/out/a/b", 301, "https://example.com/a/b"),
        ("/spa/anything/at/all", 200, None),
        ("/alias", 200, None),
        ("/private/a.txt", 404, None),
        ("/private/", 404, None),
        ("/about", 200, None),  # a file wins
        ("/assets/x.css", 301, "/other.css"),  # unless forced
        ("/none", 404, None),
    ],
)
def test_redirects(make: Make, target: str, status: int, where: str | None) -> None:
    loaded = make(_redirects=REDIRECTS)
    assert loaded.problems == ()
    reply = Client(site=loaded.site).ask(f"GET {target}")
    assert (reply.status, reply["location"]) == (status, where)


@pytest.mark.parametrize("status", [200, 302])
@pytest.mark.parametrize("target", ["/about", "/about.html"])
def test_a_forced_pattern_leaves_what_it_leads_to(make: Make, status: int, target: str) -> None:
    """A site under repair: every path shows, or leads to, one page."""
    client = Client(site=make(_redirects=f"/* {target} {status}!\n").site)
    for path in ("/", "/nowhere", "/assets/x.css"):
        reply = client.ask(f"GET {path}")
        assert reply.status == status
        assert (reply.body == b"<p>about") == (status == 200)
    assert client.ask("GET /about").body == b"<p>about"


@pytest.mark.parametrize(
    ("line", "path"), [("/none/ /none", "/none"), ("/none/* /none/x", "/none/x")]
)
def test_no_rule_leads_a_path_to_itself(make: Make, line: str, path: str) -> None:
    client = Client(site=make(_redirects=line + "\n").site)
    assert client.ask("GET /none/").status == 301
    assert client.ask(f"GET {path}").status == 404


@pytest.mark.parametrize("target", ["/index.html", "/index"])
def test_a_rule_that_leads_in_a_circle_is_told(make: Make, target: str) -> None:
    """`/index.html` leads to `/` already."""
    loaded = make(_redirects=f"/ {target} 302!\n")
    assert [(p.line, p.message) for p in loaded.problems] == [(1, "leads in a circle")]
    assert Client(site=loaded.site).ask("GET /").status == 200
    loaded = make(_redirects="/a /b\n/b /a\n")
    assert [p.line for p in loaded.problems] == [2]


def test_rewrites_show_the_other_content(make: Make) -> None:
    client = Client(site=make(_redirects=REDIRECTS).site)
    assert client.ask("GET /spa/x").body == b"<p>app"
    assert client.ask("GET /alias").body == b"<p>about"
    assert client.ask("GET /private/a.txt").body == b"<p>lost"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/a", "from to"),
        ("a /b", "begins with /"),
        ("/a b", "has to begin with /"),
        ("/a //b.example/", "has to begin with /"),
        ("/a ftp://b.example/", "has to begin with /"),
        ("/:host/* https://:host/:splat", "fixed host"),
        ("/a /b 299", "unknown status"),
        ("/a /b soon", "unknown status"),
        ("/a /b 301 Country=de", "conditions"),
        ("/a id=:id /b/:id 301", "conditions on the query"),
        ("/a?x=1 /b", "conditions on the query"),
        ("/a/*/b /c", "`*` may only come last"),
        ("/a /b/:splat", "`:splat` is not in the path"),
        ("/a/:x /b/:y", "`:y` is not in the path"),
        ("/:x/:x /b", "redefinition"),
        ("/a https://b.example/ 200", "another host"),
        ("/a /a", "leads to itself"),
        ("/a /\u00fc", "percent-encoded"),
    ],
)
def test_faulty_redirects_are_told(line: str, words: str) -> None:
    problems: list[Problem] = []
    rules = parse_redirects(f"/fine /x\n{line}\n/also /y\n", "_redirects", problems)
    assert [rule.path for rule in rules] == [b"/fine", b"/also"]
    (problem,) = problems
    assert problem.line == 2
    assert words in problem.message


def test_a_rewrite_to_nothing_is_told(make: Make) -> None:
    loaded = make(_redirects="/x /nowhere 200\n")
    assert [(p.line, p.message) for p in loaded.problems] == [(1, "there is no /nowhere")]


def test_patterns_are_bounded() -> None:
    problems: list[Problem] = []
    text = "".join(f"/{n}/* /x\n" for n in range(MAX_PATTERNS + 5))
    assert len(parse_redirects(text, "_redirects", problems)) == MAX_PATTERNS
    assert len(problems) == 1


HEADERS = """
# Everywhere.
/*
  X-Frame-Options: DENY
  X-Content-Type-Options: nosniff
  Link: <a>
/assets/*
  Cache-Control: max-age=31536000
  X-Robots-Tag: noindex
  Link: <b>
/assets/open/*
  ! X-Robots-Tag
  ! Cache-Control
/:page
  X-Page: one
/private/a.txt
  Content-Type: text/plain; charset=iso-8859-1
"""


def test_headers(make: Make) -> None:
    loaded = make(_headers=HEADERS)
    assert loaded.problems == ()
    client = Client(site=loaded.site)
    home = client.ask("GET /")
    assert (home["x-frame-options"], home["x-page"], home["link"]) == ("DENY", None, "<a>")
    assert home["x-content-type-options"] == "nosniff"
    about = client.ask("GET /about")
    assert about["x-page"] == "one"
    asset = client.ask("GET /assets/x.css")
    assert asset["cache-control"] == "max-age=31536000"
    assert (asset["x-robots-tag"], asset["link"]) == ("noindex", "<a>, <b>")
    opened = client.ask("GET /assets/open/y.css")
    assert (opened["x-robots-tag"], opened["cache-control"]) == (None, None)
    odd = client.ask("GET /private/a.txt")
    assert odd["content-type"] == "text/plain; charset=iso-8859-1"
    # Also where there is no body, and where there is no page.
    assert client.ask("GET /about", "If-None-Match: *")["x-page"] == "one"
    lost = client.ask("GET /lost")
    assert (lost.status, lost["x-frame-options"]) == (404, "DENY")


def test_a_mark_of_the_editor_s_and_percent_encoding_are_understood(make: Make) -> None:
    """A byte order mark is no part of the first path; both files name paths in the same way."""
    headers = "\ufeff/%61bout\n  X-Page: one\n"
    loaded = make(_headers=headers, _redirects="\ufeff/%6fld /about\n")
    assert loaded.problems == ()
    client = Client(site=loaded.site)
    assert client.ask("GET /old")["location"] == "/about"
    assert client.ask("GET /about")["x-page"] == "one"


def test_rfc9110_5_3_what_cannot_be_a_list(make: Make) -> None:
    """RFC 9110 §5.3: Set-Cookie is a line for each; §8.3: there is one Content-Type."""
    rules = (
        "/*\n  Set-Cookie: a=1\n  Content-Type: text/plain\n"
        "/about\n  Set-Cookie: b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT\n"
        "  Content-Type: text/html; charset=utf-8\n"
    )
    said = make(_headers=rules).site.resources[b"/about"]
    assert isinstance(said, Resource)
    assert said.content_type == b"text/html; charset=utf-8"
    assert said.extra == (
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT\r\n"
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("  X: y\n", 1, "before any path"),
        ("/a\n  X y\n", 2, "Name: value"),
        ("/a\n  X:\n", 2, "Name: value"),
        ("/a\n  X Y: z\n", 2, "not a field name"),
        ("/a\n  X: a\x01b\n", 2, "Name: value"),
        ("/a\n  Content-Length: 5\n", 2, "the server's to say"),
        ("/a\n  ! ETag\n", 2, "the server's to say"),
        ("/a\n  Keep-Alive: timeout=5\n", 2, "the server's to say"),
        ("/a\n  Strict-Transport-Security: max-age=1\n", 2, "tls.hsts"),
        ("a\n  X: y\n", 1, "begins with /"),
    ],
)
def test_faulty_headers_are_told(text: str, line: int, words: str) -> None:
    problems: list[Problem] = []
    parse_headers(text, "_headers", problems)
    assert problems[0].line == line
    assert words in problems[0].message


@given(st.text(max_size=120))
def test_any_text_is_rules_or_problems(text: str) -> None:
    problems: list[Problem] = []
    for rule in parse_redirects(text, "f", problems):
        found = rule.resolve(rule.path)
        assert found is None or not found.location.startswith(b"//")
    rules = parse_headers(text, "f", problems)
    extra = rules.apply(b"/").extra
    assert extra == b"" or extra.endswith(b"\r\n")
    assert b"\r\n\r\n" not in extra
