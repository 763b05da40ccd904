"""Loading a site: what is served, what is not, and what is said about it."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.http import feeds
from appliance.http.check import check_site
from appliance.http.largefile import LargeFile
from appliance.http.representation import Redirect, Resource
from appliance.http.site import LoadedSite, load_site
from tests.http.fakes import NOW

ATOM = "{http://www.w3.org/2005/Atom}"
TEMPLATES = {
    "base.html": "<title>{{ page.title }}</title>\n{% block main %}{% endblock %}\n",
    "page.html": "{% extends 'base.html' %}{% block main %}page {{ page.content }}{% endblock %}",
    "post.html": "{% extends 'base.html' %}{% block main %}post {{ page.date }}"
    " {{ page.content }}{% endblock %}",
    "section.html": "{% extends 'base.html' %}{% block main %}section"
    "{% for p in site.sections[page.section] %} {{ p.url }}{% endfor %}{% endblock %}",
    "404.html": "{% extends 'base.html' %}{% block main %}lost {{ page.content }}{% endblock %}",
    "static/style.css": "p { color: teal }",
}

Make = Callable[..., LoadedSite]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write files, by path relative to the site, and load them."""

    def make(files: dict[str, str | bytes], **options: object) -> LoadedSite:
        for base, entries in (("theme", TEMPLATES), ("site", files)):
            for name, content in entries.items():
                path = tmp_path / base / name
                path.parent.mkdir(parents=True, exist_ok=True)
                data = content if isinstance(content, bytes) else content.encode()
                path.write_bytes(data)
                os.utime(path, (NOW - 1000, NOW - 1000))
        return load_site(
            tmp_path / "site",
            "https://example.org",
            title="Example",
            theme=tmp_path / "theme",
            now=NOW,
            **options,  # type: ignore[arg-type]
        )

    return make


def page(title: str = "T", body: str = "text", **more: str) -> str:
    meta = "".join(f"{key}: {value}\n" for key, value in {"title": title, **more}.items())
    return f"---\n{meta}---\n{body}\n"


def content(loaded: LoadedSite, path: str) -> str:
    found = loaded.site.resources[os.fsencode(path)]
    assert isinstance(found, Resource), f"{path} is a redirect"
    assert isinstance(found.identity.body, bytes)
    return found.identity.body.decode()


def resources(loaded: LoadedSite) -> set[str]:
    found = loaded.site.resources.items()
    return {os.fsdecode(path) for path, what in found if isinstance(what, Resource)}


def redirect(loaded: LoadedSite, path: str) -> str | None:
    found = loaded.site.resources.get(os.fsencode(path))
    return found.location.decode() if isinstance(found, Redirect) else None


def test_paths_are_clean(make: Make) -> None:
    loaded = make(
        {
            "index.md": page("Home"),
            "about.md": page("About"),
            "docs/index.md": page("Docs"),
            "docs/run.md": page("Run"),
            "plain.html": "<p>plain",
            "sub/index.html": "<p>sub",
            "robots.txt": "User-agent: *\n",
        }
    )
    assert loaded.problems == ()
    assert resources(loaded) == {
        "/", "/about", "/docs/", "/docs/run", "/plain", "/sub/", "/robots.txt", "/sitemap.xml",
        "/static/style.css",
    }  # fmt: skip
    for other, target in {
        "/docs": "/docs/",
        "/docs/index": "/docs/",
        "/docs/index.html": "/docs/",
        "/docs/run.html": "/docs/run",
        "/docs/run/": "/docs/run",
        "/about.html": "/about",
        "/index.html": "/",
        "/sub": "/sub/",
        "/plain.html": "/plain",
    }.items():
        assert redirect(loaded, other) == target
    assert (loaded.pages, loaded.files) == (4, 4)
    assert "page <p>text" in content(loaded, "/about")


def test_templates_are_chosen_by_kind_and_the_sites_own_win(make: Make) -> None:
    loaded = make(
        {
            "blog/index.md": page("Blog"),
            "blog/old.md": page("Old", date="2013-12-01"),
            "blog/new.md": page("New", date="2014-01-01"),
            "blog/first.md": page("First", order="1"),
            "odd.md": page("Odd", template="strange"),
            "_theme/strange.html": "<title>s</title>strange {{ page.title }} {{ site.title }}",
            "_theme/static/style.css": "mine",
        }
    )
    assert loaded.problems == ()
    assert "post 2014-01-01" in content(loaded, "/blog/new")
    # By `order` first, then the newest.
    assert "section /blog/first /blog/new /blog/old" in content(loaded, "/blog/")
    assert "strange Odd Example" in content(loaded, "/odd")
    assert content(loaded, "/static/style.css") == "mine"


def test_drafts_and_the_future_wait(make: Make) -> None:
    loaded = make(
        {
            "blog/draft.md": page("D", draft="true", date="2013-01-01"),
            "blog/tomorrow.md": page("T", date="2014-02-03"),
            "blog/today.md": page("N", date="2014-02-02"),
        }
    )
    assert set(loaded.waiting) == {"blog/draft.md", "blog/tomorrow.md"}
    assert "/blog/today" in resources(loaded)
    assert "/blog/tomorrow" not in resources(loaded)
    assert "tomorrow" not in content(loaded, "/blog/atom.xml")
    assert loaded.pages == 1


def test_dotfiles_and_own_material_are_not_served(make: Make) -> None:
    loaded = make(
        {
            ".env": "secret",
            ".git/config": "secret",
            "sub/.htaccess": "secret",
            "sub/.well-known/x": "not at the top",
            ".well-known/security.txt": "Contact: mailto:a@example.org\n",
            ".well-known/.hidden": "secret",
            "_notes.txt": "own",
            "_drafts/a.md": page(),
        }
    )
    assert resources(loaded) == {"/.well-known/security.txt", "/sitemap.xml", "/static/style.css"}
    assert set(loaded.hidden) == {
        ".env", ".git", "sub/.htaccess", "sub/.well-known", ".well-known/.hidden",
    }  # fmt: skip


def test_links_are_followed_only_inside(make: Make, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    site = tmp_path / "site"
    (site / "real").mkdir(parents=True)
    (site / "real" / "a.txt").write_text("a")
    (site / ".env").write_text("secret")
    (site / "inside.txt").symlink_to("real/a.txt")
    (site / "directory").symlink_to("real")
    (site / "out.txt").symlink_to(outside / "secret.txt")
    (site / "outdir").symlink_to(outside)
    (site / "env.txt").symlink_to(".env")
    (site / "broken").symlink_to("nowhere")
    (site / "loop").symlink_to("loop")
    (site / "real" / "up").symlink_to("..")
    os.mkfifo(site / "pipe")
    loaded = make({})
    served = resources(loaded)
    assert {"/inside.txt", "/directory/a.txt", "/real/a.txt"} <= served
    assert not any("secret" in path or "out" in path or "env" in path for path in served)
    told = {Path(problem.file).name: problem.message for problem in loaded.problems}
    assert "out of the site" in told["out.txt"]
    assert "out of the site" in told["outdir"]
    assert "hidden file" in told["env.txt"]
    assert "nowhere" in told["broken"]
    assert "loop" in told
    assert "not a file" in told["pipe"]
    assert "what it lies in" in told["up"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"no front matter\n", 1, "no front matter"),
        (b"---\ndate: 2014-01-01\n---\n", 1, "`title` is missing"),
        (b"---\ntitle:\n---\n", 2, "`title` has to be text"),
        (b"---\ntitle: ' '\n---\n", 2, "`title` is missing"),
        (b"---\ntitle: 2014\n---\n", 2, "`title` has to be text"),
        (b"---\ntitle: a\ndate: yesterday\n---\n", 3, "`date` has to be a date"),
        (b"---\ntitle: a\norder: true\n---\n", 3, "`order` has to be a number"),
        (b"---\ntitle: a\ndraft: maybe\n---\n", 3, "`draft` has to be true or false"),
        (b"---\ntitle: a: b\n---\n", 2, "mapping values"),
        (b"---\n- a\n---\n", 1, "key: value"),
        (b"---\ntitle: 'a\n---\n", 0, "front matter"),
        (b"---\ntitle: a\n---\nfine\n\xff\n", 5, "not UTF-8"),
        (b"---\ntitle: a\n---\n\n<!-- figure: none -->\n", 5, "no figure `none`"),
        (b"---\ntitle: a\ntemplate: nosuch\n---\n", 0, "nosuch.html"),
    ],
)
def test_a_faulty_page_is_told_with_its_line(
    make: Make, text: bytes, line: int, words: str
) -> None:
    loaded = make({"bad.md": text, "good.md": page()})
    (problem,) = loaded.problems
    assert problem.severity == "error"
    assert problem.file.endswith("bad.md")
    assert words in problem.message
    if line:
        assert problem.line == line
    assert "/good" in resources(loaded)


def test_warnings_of_pages(make: Make) -> None:
    loaded = make({"a.md": page("A", "text\n\n# Again", autor="me")})
    assert [(p.line, p.severity) for p in loaded.problems] == [(3, "warning"), (7, "warning")]
    assert "/a" in resources(loaded)


def test_faulty_templates_are_told_with_their_line(make: Make) -> None:
    loaded = make(
        {
            "a.md": page(template="undefined"),
            "b.md": page(template="syntax"),
            "c.md": page(template="raises"),
            "_theme/undefined.html": "\n\n{{ page.nothing }}",
            "_theme/syntax.html": "\n{% if %}",
            "_theme/raises.html": "\n{{ 1 // 0 }}",
        }
    )
    places = {Path(p.file).name: p.line for p in loaded.problems}
    assert places == {"undefined.html": 3, "syntax.html": 2, "raises.html": 2}
    assert loaded.pages == 0


def test_two_sources_of_one_path_are_told(make: Make) -> None:
    loaded = make({"a.md": page(), "a.html": "<p>other"})
    (problem,) = loaded.problems
    assert "/a is taken by" in problem.message


def test_a_missing_directory_is_a_problem(tmp_path: Path) -> None:
    loaded = load_site(tmp_path / "nowhere", theme=tmp_path, now=NOW)
    assert [p.message for p in loaded.problems] == ["no such directory"]
    assert loaded.pages == 0


def test_figures_are_put_in(make: Make) -> None:
    loaded = make(
        {"a.md": page("A", "before\n\n<!-- figure: tcp-states -->\n\nafter")},
        figures={"tcp-states": "<svg><g/></svg>"},
    )
    assert "<svg><g/></svg>" in content(loaded, "/a")


def test_the_page_of_lost_paths(make: Make) -> None:
    loaded = make({"404.md": page("Lost", "gone")})
    assert b"lost <p>gone" in loaded.site.not_found.identity.body  # type: ignore[operator]
    assert "/404" not in resources(loaded)
    assert loaded.problems == ()
    plain = make({"404.md": page("Lost", template="nosuch")})
    assert b"Not found" in plain.site.not_found.identity.body  # type: ignore[operator]


def test_an_html_page_of_lost_paths(make: Make) -> None:
    loaded = make({"404.html": "<p>mine"})
    assert loaded.site.not_found.identity.body == b"<p>mine"
    assert "/404" not in resources(loaded)


def test_last_modified_is_never_in_the_future(make: Make, tmp_path: Path) -> None:
    """RFC 9110 §8.8.2.1: not later than the message itself, whatever the files say."""
    make({"a.md": page(), "b.txt": "b"})
    for name in ("a.md", "b.txt"):
        os.utime(tmp_path / "site" / name, (NOW + 9999, NOW + 9999))
    loaded = load_site(tmp_path / "site", theme=tmp_path / "theme", now=NOW)
    for path in (b"/a", b"/b.txt"):
        found = loaded.site.resources[path]
        assert isinstance(found, Resource)
        assert found.last_modified == NOW


def test_a_page_is_as_new_as_what_it_is_made_of(make: Make, tmp_path: Path) -> None:
    make({"a.md": page(), "b.txt": "b"})
    os.utime(tmp_path / "theme" / "base.html", (NOW - 5, NOW - 5))
    loaded = load_site(tmp_path / "site", theme=tmp_path / "theme", now=NOW)
    page_, file = (loaded.site.resources[path] for path in (b"/a", b"/b.txt"))
    assert isinstance(page_, Resource)
    assert isinstance(file, Resource)
    assert (page_.last_modified, file.last_modified) == (NOW - 5, NOW - 1000)


def test_large_files_stay_on_disk(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.http.site.LARGE", 1000)
    loaded = make({"big.bin": bytes(2000), "same.bin": bytes(2000), "small.bin": bytes(900)})
    big, same, small = (
        loaded.site.resources[path] for path in (b"/big.bin", b"/same.bin", b"/small.bin")
    )
    assert isinstance(big, Resource)
    assert isinstance(same, Resource)
    assert isinstance(small, Resource)
    assert isinstance(big.identity.body, LargeFile)
    assert isinstance(small.identity.body, bytes)
    assert big.identity.etag == same.identity.etag != small.identity.etag


def test_loading_twice_gives_the_same_octets(make: Make) -> None:
    """Validators survive reloads and are alike on every machine."""
    files: dict[str, str | bytes] = {
        "a.md": page("A", "text\n" * 100),
        "blog/b.md": page("B", date="2014-01-01"),
    }
    one, two = make(files), make(files)
    for path, found in one.site.resources.items():
        other = two.site.resources[path]
        if isinstance(found, Resource) and isinstance(other, Resource):
            assert [v.etag for v in found.variants] == [v.etag for v in other.variants]


def test_rfc4287_feeds(make: Make) -> None:
    """RFC 4287 §4.1: what a feed and an entry must have, and ids that stay."""
    files: dict[str, str | bytes] = {
        "blog/index.md": page("The blog"),
        "blog/a.md": page("A < B", "**bold** & more", date="2014-01-01", summary="short"),
        "blog/b.md": page("B", date="2014-01-31", updated="2014-02-01"),
        "docs/c.md": page("C"),
    }
    loaded = make(files)
    assert "/docs/atom.xml" not in resources(loaded)
    feed = ET.fromstring(content(loaded, "/blog/atom.xml"))
    assert feed.tag == f"{ATOM}feed"
    for name in ("id", "title", "updated", "author"):
        assert len(feed.findall(f"{ATOM}{name}")) == 1
    assert feed.findtext(f"{ATOM}title") == "The blog · Example"
    assert feed.findtext(f"{ATOM}updated") == "2014-02-01T00:00:00Z"
    links = {link.get("rel"): link.get("href") for link in feed.findall(f"{ATOM}link")}
    assert links == {
        "self": "https://example.org/blog/atom.xml",
        "alternate": "https://example.org/blog/",
    }
    entries = feed.findall(f"{ATOM}entry")
    assert [entry.findtext(f"{ATOM}title") for entry in entries] == ["B", "A < B"]
    for entry in entries:
        for name in ("id", "title", "updated", "link", "content"):
            assert len(entry.findall(f"{ATOM}{name}")) == 1
    first = entries[1]
    assert first.findtext(f"{ATOM}id") == "tag:example.org,2014-01-01:/blog/a"
    assert "<strong>bold</strong> &amp; more" in (first.findtext(f"{ATOM}content") or "")
    element = first.find(f"{ATOM}content")
    assert element is not None
    assert element.get("type") == "html"
    found = loaded.site.resources[b"/blog/atom.xml"]
    assert isinstance(found, Resource)
    assert found.content_type == b"application/atom+xml; charset=utf-8"


def test_rfc3986_a_page_is_linked_by_its_url_whatever_its_name(make: Make, tmp_path: Path) -> None:
    """RFC 3986 §2.1; sitemaps.org: locations are escaped as URLs."""
    names = {"a b": "a%20b", "100%": "100%25", "what?": "what%3F", "größe": "gr%C3%B6%C3%9Fe"}
    dated = {f"neu igkeiten#/{name}.md": page(name, date="2014-01-01") for name in names}
    make({**dated, "neu igkeiten#/index.md": page("News"), "index.md": page()})
    loaded = load_site(tmp_path / "site", "https://example.org/", title="Example")
    assert loaded.problems == ()
    assert check_site(loaded.site) == []
    home = "https://example.org/neu%20igkeiten%23/"
    locations = content(loaded, "/sitemap.xml")
    feed = ET.fromstring(content(loaded, "/neu igkeiten#/atom.xml"))
    entries = {link.get("href") for link in feed.findall(f"{ATOM}entry/{ATOM}link")}
    assert entries == {home + url for url in names.values()}
    for url in names.values():
        assert f"<loc>{home}{url}</loc>" in locations
    assert feed.findtext(f"{ATOM}title") == "News · Example"
    text = content(loaded, "/neu igkeiten#/100%")
    assert f'<link rel="canonical" href="{home}100%25">' in text


def test_a_page_whose_name_is_no_text_is_told_and_left_out(tmp_path: Path) -> None:
    for name in (b"index.md", b"\xff.md", b"\xff.txt", b"\xfe/x.md"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_text(page())
    loaded = load_site(tmp_path, "https://example.org/")
    assert [problem.message.partition(",")[0] for problem in loaded.problems] == [
        "its name is not UTF-8"
    ] * 2
    assert b"/\xff.txt" in loaded.site.resources
    assert b"/\xff" not in loaded.site.resources


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("2014-13-01", "month must be in 1..12"),
        ("2014-02-30", "day is out of range for month"),
        ("2014-01-01T25:00:00Z", "hour must be in 0..23"),
        ("0b_", "invalid literal for int()"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_line(make: Make, value: str, why: str) -> None:
    loaded = make({"index.md": page(), "a.md": page(summary="x", date=value)})
    [problem] = loaded.problems
    assert (Path(problem.file).name, problem.line) == ("a.md", 4)
    assert problem.message.startswith(f"front matter: {why}")
    assert "/" in resources(loaded)


def test_rfc4287_2_a_feed_is_xml_whatever_a_page_holds(make: Make) -> None:
    """RFC 4287 §2: well-formed; XML 1.0 §2.2 has no control characters but three."""
    body = "```\n\x1b[31mred\x1b[0m\x08\ufffe\n```\n"
    loaded = make({"blog/a.md": page('"bell \\a"', body, date="2014-01-01")})
    feed = ET.fromstring(content(loaded, "/blog/atom.xml"))
    assert feed.findtext(f"{ATOM}entry/{ATOM}title") == "bell \ufffd"
    text = feed.findtext(f"{ATOM}entry/{ATOM}content") or ""
    assert "\ufffd[31mred\ufffd[0m\ufffd\ufffd" in text


def test_the_sitemap_lists_every_page(make: Make) -> None:
    """sitemaps.org protocol 0.9: absolute locations, dates where there are some."""
    loaded = make(
        {
            "index.md": page(),
            "blog/a.md": page(date="2014-01-01"),
            "404.md": page(),
            "d.md": page(draft="true"),
        }
    )
    root = ET.fromstring(content(loaded, "/sitemap.xml"))
    space = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
    assert root.tag == f"{space}urlset"
    found = {
        url.findtext(f"{space}loc"): url.findtext(f"{space}lastmod")
        for url in root.findall(f"{space}url")
    }
    assert found == {"https://example.org/": None, "https://example.org/blog/a": "2014-01-01"}


def test_a_sitemap_that_would_be_too_long_has_parts(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sitemaps.org: no more than 50,000 URLs in one; an index names several."""
    assert feeds.MAX_URLS == 50_000
    monkeypatch.setattr(feeds, "MAX_URLS", 2)
    loaded = make({f"{name}.md": page() for name in "abcde"})
    space = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
    index = ET.fromstring(content(loaded, "/sitemap.xml"))
    assert index.tag == f"{space}sitemapindex"
    parts = [part.text or "" for part in index.iter(f"{space}loc")]
    assert parts == [f"https://example.org/sitemap-{number}.xml" for number in (1, 2, 3)]
    found = []
    for part in parts:
        root = ET.fromstring(content(loaded, part.removeprefix("https://example.org")))
        assert root.tag == f"{space}urlset"
        found += [location.text for location in root.iter(f"{space}loc")]
    assert found == [f"https://example.org/{name}" for name in "abcde"]


def test_the_project_s_own_site_loads_without_a_problem() -> None:
    root = Path(__file__).parents[2] / "site"
    loaded = load_site(
        root, "https://openmirage.org/", title="OpenMirage", figures={"tcp-states": "<svg></svg>"}
    )
    assert [str(problem) for problem in loaded.problems] == []
    assert {"/", "/about", "/blog/", "/docs/", "/weekly/", "/sitemap.xml"} <= resources(loaded)
