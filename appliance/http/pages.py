"""Pages: Markdown with YAML front matter in, values for the templates out.

Rendered once, when the site is loaded: CommonMark with tables, footnotes, definition lists,
anchors on headings and highlighted code.  Authors are trusted, so HTML in a page is kept.  This
room knows neither templates nor the disk; every fault is a `Problem` with file and line.  Imports
markdown-it-py, PyYAML, Pygments and this package.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.deflist import deflist_plugin
from mdit_py_plugins.footnote import footnote_plugin
from pygments import highlight as pygments_highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from appliance.http.problem import Problem
from appliance.http.target import location

# libyaml's loader where PyYAML was built with it: ten times the speed.
_YamlLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FENCE = re.compile(r"---[ \t]*\r?\n(.*?)(?:^|\n)---[ \t]*(?:\r?\n|$)", re.DOTALL)
_FIGURE = re.compile(r"<!--\s*figure:\s*([a-z0-9-]+)\s*-->")
# Headings that get an anchor, and those that a table of contents lists.
_ANCHORED = frozenset({"h2", "h3", "h4"})
_LISTED = frozenset({"h2", "h3"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page as templates see it."""

    title: str
    url: str  # clean, begins with "/", percent-encoded where a name needs it
    section: str  # first directory of the path, "" at the top
    source: str  # the file, as the user would name it
    content: Markup
    toc: Sequence[tuple[int, str, str]]  # level, id, text
    summary: str = ""
    date: dt.date | None = None
    updated: dt.date | None = None
    order: int | None = None
    template: str = ""
    lang: str = ""
    draft: bool = False

    @property
    def home(self) -> str:
        """The URL of its section."""
        return location(f"/{self.section}/".encode()).decode() if self.section else "/"


# What front matter may say, and what each value must be.
_KEYS: Mapping[str, tuple[type, ...]] = {
    "title": (str,),
    "summary": (str,),
    "date": (dt.date,),
    "updated": (dt.date,),
    "order": (int,),
    "template": (str,),
    "lang": (str,),
    "draft": (bool,),
}
_WANTED = {str: "text", dt.date: "a date, 2026-01-31", int: "a number", bool: "true or false"}


def parse_page(
    text: str,
    *,
    url: str,
    section: str,
    source: str,
    figures: Mapping[str, str],
    problems: list[Problem],
) -> Page | None:
    """Read one page; None, with the reason among the problems, when it cannot be shown."""
    fence = _FENCE.match(text)
    if fence is None:
        problems.append(
            Problem(source, 1, "error", "no front matter: the first line has to be ---")
        )
        return None
    meta = _front_matter(fence[1], source, problems)
    if meta is None:
        return None
    first_line = fence[0].count("\n")

    def second_title(line: int) -> None:
        message = "a level-1 heading: the title makes one already"
        problems.append(Problem(source, first_line + line, "warning", message))

    content, toc = render(text[fence.end() :], second_title)
    content = _FIGURE.sub(_figure(figures, text, source, problems), content)
    return Page(url=url, section=section, source=source, content=Markup(content), toc=toc, **meta)  # noqa: S704 - the site's own authors wrote it


def _front_matter(block: str, source: str, problems: list[Problem]) -> dict[str, Any] | None:
    def fault(line: int, message: str) -> None:
        problems.append(Problem(source, line, "error", message))

    node: Any = None
    try:
        loader = _YamlLoader(block)
        node = loader.get_single_node()
        found = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        fault(
            mark.line + 2 if mark is not None else 1,
            f"front matter: {getattr(error, 'problem', None) or error}",
        )
        return None
    except ValueError as error:  # in the form of a date, or a number, and none
        fault(_impossible(node), f"front matter: {error}")
        return None
    if not isinstance(found, dict):
        fault(1, "front matter: expected lines of the form `key: value`")
        return None
    lines = {key.value: key.start_mark.line + 2 for key, _ in node.value}
    meta: dict[str, Any] = {}
    right = True
    for key, value in found.items():
        if key not in _KEYS:
            problems.append(
                Problem(
                    source, lines.get(str(key), 1), "warning",
                    f"front matter: unknown key `{key}` (known: {', '.join(_KEYS)})",
                )
            )  # fmt: skip
            continue
        if isinstance(value, dt.datetime):
            value = value.date()
        wanted = _KEYS[key]
        if not isinstance(value, wanted) or (wanted == (int,) and isinstance(value, bool)):
            fault(
                lines[key], f"front matter: `{key}` has to be {_WANTED[wanted[0]]}, not {value!r}"
            )
            right = False
            continue
        meta[key] = value
    if not str(meta.get("title", "")).strip() and right:
        fault(lines.get("title", 1), "front matter: `title` is missing")
        right = False
    return meta if right else None


def _impossible(node: Any) -> int:
    """Return the line of the first value that cannot be what it looks like: 2014-13-01."""
    for _, value in node.value if isinstance(node, yaml.MappingNode) else ():
        try:
            _YamlLoader("").construct_document(value)
        except ValueError:
            return int(value.start_mark.line) + 2
    return 1


def _figure(
    figures: Mapping[str, str], text: str, source: str, problems: list[Problem]
) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        drawing = figures.get(match[1])
        if drawing is None:
            line = text.count("\n", 0, max(text.find(match[0]), 0)) + 1
            problems.append(Problem(source, line, "error", f"there is no figure `{match[1]}`"))
            return ""
        return drawing

    return replace


def slug(text: str) -> str:
    """Return the anchor of a heading: lower-case words joined by hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "section"


def _highlight(code: str, language: str, _attributes: str) -> str:
    if not language:
        return ""
    try:
        lexer = get_lexer_by_name(language)
    except (ClassNotFound, ImportError):  # the latter: a machine has but the commonest of them
        return ""  # markdown-it escapes it as plain text
    return str(pygments_highlight(code, lexer, HtmlFormatter(nowrap=True)))


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True, "highlight": _highlight})
    parser.enable(["table", "strikethrough"])
    return parser.use(footnote_plugin).use(deflist_plugin)


_MARKDOWN = _parser()


def render(
    markdown: str, on_title: Callable[[int], None] | None = None
) -> tuple[str, list[tuple[int, str, str]]]:
    """Render Markdown to HTML and the list of its headings (level, id, text).

    `on_title` is told the line of each level-1 heading.
    """
    environment: dict[str, Any] = {}
    tokens = _MARKDOWN.parse(markdown, environment)
    toc: list[tuple[int, str, str]] = []
    used: set[str] = set()
    for index, token in enumerate(tokens):
        if token.type != "heading_open":
            continue
        if token.tag == "h1" and on_title is not None:
            on_title((token.map or [0])[0] + 1)
        if token.tag not in _ANCHORED:
            continue
        inline = tokens[index + 1]
        text = _text(inline)
        base = anchor = slug(text)
        number = 1
        while anchor in used:
            number += 1
            anchor = f"{base}-{number}"
        used.add(anchor)
        token.attrSet("id", anchor)
        link = Token("html_inline", "", 0)
        link.content = f'<a class="anchor" href="#{anchor}" aria-label="Link to this section">#</a>'
        inline.children = [*(inline.children or []), link]
        if token.tag in _LISTED:
            toc.append((int(token.tag[1]), anchor, text))
    return _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, environment), toc


def _text(inline: Token) -> str:
    return "".join(
        child.content for child in inline.children or [] if child.type in {"text", "code_inline"}
    )
