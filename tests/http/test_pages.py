"""Markdown with front matter becomes a page."""

from __future__ import annotations

import datetime as dt
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.pages import Page, parse_page, render, slug
from appliance.http.problem import Problem


def parse(text: str) -> tuple[Page | None, list[Problem]]:
    problems: list[Problem] = []
    page = parse_page(text, url="/a", section="", source="a.md", figures={}, problems=problems)
    return page, problems


def test_front_matter() -> None:
    page, problems = parse(
        "---\ntitle: 'T: t'\ndate: 2014-01-31\nupdated: 2014-02-01T10:00:00Z\norder: 3\n"
        "summary: s\nlang: de\ntemplate: x\ndraft: yes\n---\nbody\n"
    )
    assert problems == []
    assert page is not None
    assert (page.title, page.summary, page.order, page.lang) == ("T: t", "s", 3, "de")
    assert (page.date, page.updated) == (dt.date(2014, 1, 31), dt.date(2014, 2, 1))
    assert page.draft
    assert page.content == "<p>body</p>\n"


def test_a_rule_in_the_body_does_not_end_the_front_matter_again() -> None:
    page, _ = parse("---\ntitle: a\n---\none\n\n---\n\ntwo\n")
    assert page is not None
    assert "<hr" in page.content


def test_windows_line_ends() -> None:
    page, problems = parse("---\r\ntitle: a\r\n---\r\nbody\r\n")
    assert problems == []
    assert page is not None
    assert page.title == "a"


def test_what_markdown_can_do() -> None:
    html, _ = render(
        "| a | b |\n|---|---|\n| 1 | 2 |\n\nNote.[^1]\n\n[^1]: The note.\n\n~~gone~~\n\n"
        "Term\n: What it is.\n\n<div class='x'>raw</div>\n"
    )
    for piece in ("<td>1</td>", 'class="footnote-ref"', "<s>gone</s>", "<dd>What it is.</dd>",
                  "<div class='x'>raw</div>"):  # fmt: skip
        assert piece in html


def test_headings_get_anchors_that_differ() -> None:
    html, toc = render("## Über `TCP` & co\n\n### Setup\n\n## Setup\n\n#### Deep\n\n## 日本\n")
    assert toc == [
        (2, "uber-tcp-co", "Über TCP & co"),
        (3, "setup", "Setup"),
        (2, "setup-2", "Setup"),
        (2, "section", "日本"),
    ]
    for _, anchor, _ in toc:
        assert html.count(f'id="{anchor}"') == 1
        assert f'href="#{anchor}"' in html
    assert 'id="deep"' in html


@pytest.mark.parametrize(
    ("language", "has_spans"), [("python", True), ("nosuchlanguage", False), ("", False)]
)
def test_code_is_highlighted_and_always_escaped(language: str, has_spans: bool) -> None:
    html, _ = render(f"```{language}\nif a < b: pass\n```\n")
    assert ("<span" in html) is has_spans
    assert "<pre><code" in html
    assert "a < b" not in html
    assert "&lt;" in html


def test_a_language_whose_module_is_not_there_is_left_plain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine has but the commonest of them."""
    monkeypatch.setitem(sys.modules, "pygments.lexers.igor", None)
    html, _ = render("```igor\nif a < b\n```\n")
    assert "<span" not in html
    assert "&lt;" in html


@given(st.text(max_size=60))
def test_a_slug_is_an_anchor(text: str) -> None:
    anchor = slug(text)
    assert anchor
    assert anchor.isascii()
    assert all(c.isalnum() or c == "-" for c in anchor)


@given(st.text(max_size=80))
def test_any_text_is_a_page_or_a_problem(text: str) -> None:
    for source in (text, "---\n" + text, "---\n" + text + "\n---\n"):
        page, problems = parse(source)
        assert page is not None or any(p.severity == "error" for p in problems)
