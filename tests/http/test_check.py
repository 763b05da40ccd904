"""The checker of links, anchors, assets, redirects and accessible HTML."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.http.check import check_site, read_document
from appliance.http.site import load_site
from tests.http.fakes import NOW

GOOD = '<!doctype html><html lang="en"><title>T</title><h1>T</h1>'


def check(tmp_path: Path, **files: str) -> list[tuple[str, int, str, str]]:
    everything = {"404_html": GOOD, "index_html": GOOD + '<h2 id="x">x</h2>', **files}
    for name, text in everything.items():
        path = tmp_path / (name if name.startswith("_") else name.replace("_", "."))
        path.write_text(text)
    loaded = load_site(tmp_path, "https://example.org/", theme=tmp_path / "_theme", now=NOW)
    assert loaded.problems == ()
    return [(Path(p.file).name, p.line, p.severity, p.message) for p in check_site(loaded.site)]


def test_a_site_in_order_has_no_problems(tmp_path: Path) -> None:
    body = """
<p><a href="/">a</a> <a href="/#x">b</a> <a href="./">c</a> <a href="#top">d</a> <a href="?q">e</a>
<a href="https://example.org/style.css">f</a> <a href="https://elsewhere.example/nope">g</a>
<a href="mailto:a@example.org">h</a> <a href="/sitemap.xml">i</a> <img src="p.png" alt="">
<img srcset="p.png 1x, /p.png 2x" alt="x"><link rel="canonical" href="https://example.org/zzz">
<svg><title>not the page's</title></svg>
"""
    files = {"about_html": GOOD + body, "style_css": "p { background: url(p.png) }", "p_png": "x"}
    assert check(tmp_path, **files) == []


@pytest.mark.parametrize(
    ("body", "line", "severity", "message"),
    [
        ("\n<a href='/nope'>x</a>", 2, "error", "link /nope leads nowhere"),
        ("\n\n<a href='nope'>x</a>", 3, "error", "link nope leads nowhere"),
        ("<a href='/../x'>x</a>", 0, "", ""),  # a browser takes the dots out
        ("<a href='/%zz'>x</a>", 1, "error", "link /%zz: malformed percent-encoding"),
        ("<a href='/#y'>x</a>", 1, "error", "link /#y: there is no such anchor"),
        ("<a href='#y'>x</a>", 1, "error", "link #y: there is no such anchor"),
        ("<a href='/index.html'>x</a>", 1, "warning", "link /index.html is redirected to /"),
        ("<a href='//[x'>x</a>", 1, "error", "malformed link //[x"),
        (
            "<a href='http://example.org/'>x</a>",
            1,
            "warning",
            "link http://example.org/ leaves https",
        ),
        ("<img src='p.png' alt=''>", 1, "error", "link p.png leads nowhere"),
        ("<script src='/a.js'></script>", 1, "error", "link /a.js leads nowhere"),
        ("<video poster='/a.png'></video>", 1, "error", "link /a.png leads nowhere"),
        ("<h3>x</h3>", 0, "warning", "a level-3 heading follows one of level 1"),
        ("<h1>x</h1>", 0, "warning", "2 level-1 headings, expected one"),
        ("<p id='a'></p><p id='a'></p>", 0, "warning", "id `a` stands twice"),
    ],
)
def test_faults_are_found(
    tmp_path: Path, body: str, line: int, severity: str, message: str
) -> None:
    found = check(tmp_path, about_html=GOOD + body)
    if body == "<a href='/../x'>x</a>":
        assert [p[3] for p in found] == ["link /../x leads nowhere"]
    else:
        assert found == [("about.html", line, severity, message)]


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ("<html><title>T</title><h1>T</h1>", "the html element has no lang"),
        ('<html lang="en"><h1>T</h1>', "no title"),
        ('<html lang="en"><title> </title><h1>T</h1>', "no title"),
        ('<html lang="en"><title>T</title>', "no heading"),
        (GOOD + "<img src=x>", "img without alt: x"),
    ],
)
def test_wcag_basics(html: str, fault: str) -> None:
    """WCAG 2.2, success criteria 1.1.1, 1.3.1, 2.4.2 and 3.1.1."""
    assert read_document(html).faults == [fault]


def test_a_fault_of_every_page_is_told_once(tmp_path: Path) -> None:
    bad = GOOD + "<a href='/nope'>x</a>"
    found = check(tmp_path, a_html=bad, b_html=bad, c_html=bad)
    assert [p[3] for p in found] == ["link /nope leads nowhere (and in 2 more)"]


def test_style_sheets_and_redirects(tmp_path: Path) -> None:
    found = check(
        tmp_path,
        style_css="\np { background: url('q.png') }",
        _redirects="/fine /\n/bad /nowhere\n",
    )
    assert ("style.css", 2, "error", "link q.png leads nowhere") in found
    assert [p for p in found if "redirect" in p[3]] == [
        ("_redirects", 2, "error", "the redirect of /bad leads nowhere: /nowhere")
    ]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/b/%zz", "is of no use (malformed percent-encoding)"),
        ("/b/../../c", "is of no use (the path climbs out of the root)"),
        ("https://[b]/c", "is of no use ('b' does not appear to be an IPv4 or IPv6 address)"),
    ],
)
def test_a_redirect_to_what_is_no_target_is_told(tmp_path: Path, target: str, why: str) -> None:
    assert check(tmp_path, _redirects=f"\n/a {target}\n") == [
        ("_redirects", 2, "error", f"the redirect of /a {why}: {target}")
    ]


def test_the_project_s_own_site_is_in_order() -> None:
    root = Path(__file__).parents[2] / "site"
    loaded = load_site(
        root, "https://openmirage.org/", title="OpenMirage", figures={"tcp-states": "<svg></svg>"}
    )
    assert [str(problem) for problem in check_site(loaded.site)] == []
