"""The site of this repository, as it is rendered: links, headings, figures, colours, examples."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest

from appliance.config import TABLES
from appliance.figures import tcp_states
from appliance.http import LoadedSite, load_site
from appliance.http.representation import Redirect
from appliance.http.templates import THEME

ROOT = Path(__file__).parents[2]
BASE = "http://openmirage.org"
ATOM = "{http://www.w3.org/2005/Atom}"
VOID = frozenset({"br", "circle", "hr", "img", "link", "meta", "path", "rect"})


@cache
def loaded() -> LoadedSite:
    return load_site(
        ROOT / "site", BASE, title="openmirage.org", figures={"tcp-states": tcp_states()}
    )


@cache
def documents() -> dict[str, str]:
    """Every HTML page by path, the 404 page among them."""
    site = loaded().site
    found = {
        path.decode(): resource.identity.body
        for path, resource in site.resources.items()
        if not isinstance(resource, Redirect) and resource.content_type.startswith(b"text/html")
    }
    found["/404"] = site.not_found.identity.body
    return {path: bytes(body).decode() for path, body in found.items()}  # type: ignore[arg-type]


class Outline(HTMLParser):
    """What a reader without eyes meets: headings, links, identifiers, figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.assets: list[str] = []
        self.faults: list[str] = []
        self.lang = ""
        self.title = ""
        self.tags: Counter[str] = Counter()
        self._open: list[str] = []
        self.feed(text)
        self.close()
        if self._open:
            self.faults.append(f"not closed: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = {name: value or "" for name, value in attrs}
        self.tags[tag] += 1
        if tag not in VOID:
            self._open.append(tag)
        if tag == "html":
            self.lang = have.get("lang", "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in have:
            self.ids[have["id"]] += 1
        if tag == "a":
            self.links.append(have["href"])
        if tag in ("img", "script", "iframe", "source") or (
            tag == "link" and have.get("rel") in ("stylesheet", "icon")
        ):
            self.assets.append(have.get("href") or have.get("src") or "")
        if tag == "img" and "alt" not in have:
            self.faults.append("an image without alt")
        named = have.get("aria-label") or have.get("aria-labelledby")
        seen = tag == "svg" and have.get("aria-hidden") != "true"
        if seen and (have.get("role") != "img" or not named):
            self.faults.append("a drawing without role or name")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]}, line {self.getpos()[0]}")
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["title"] and "svg" not in self._open:
            self.title += data


@cache
def outline(path: str) -> Outline:
    return Outline(documents()[path])


def test_loads_without_a_problem() -> None:
    assert [str(problem) for problem in loaded().problems] == []
    assert loaded().waiting == ()
    assert len(documents()) > 20


def test_has_what_was_promised() -> None:
    paths = set(documents())
    assert {"/", "/about", "/community", "/blog/", "/docs/", "/weekly/", "/docs/tcp"} <= paths
    for section, least in (("/blog/", 4), ("/weekly/", 3), ("/docs/", 10)):
        assert sum(path.startswith(section) for path in paths) > least
    assert 'class="tcp-states"' in documents()["/docs/tcp"]


@pytest.mark.parametrize("path", sorted(documents()))
class TestPage:
    def test_is_well_formed_and_named(self, path: str) -> None:
        page = outline(path)
        assert page.faults == []
        assert page.lang == "en"
        assert "openmirage.org" in page.title
        assert len(page.title) > len("openmirage.org · ")
        assert page.tags["main"] == page.tags["header"] == page.tags["footer"] == 1

    def test_headings_are_in_order(self, path: str) -> None:
        headings = outline(path).headings
        assert headings.count(1) == 1
        assert headings[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(headings))

    def test_identifiers_are_unique(self, path: str) -> None:
        assert {name: n for name, n in outline(path).ids.items() if n > 1} == {}

    def test_internal_links_and_anchors_lead_somewhere(self, path: str) -> None:
        broken = []
        for link in [*outline(path).links, *outline(path).assets]:
            target, anchor = urldefrag(urljoin(BASE + path, link))
            if not target.startswith(BASE + "/"):
                continue
            there = urlsplit(target).path
            resource = loaded().site.resources.get(there.encode())
            if path == "/404" and there == "/404":
                resource = loaded().site.not_found
            # A redirect would work, but costs every reader a round trip.
            missing = resource is None or isinstance(resource, Redirect)
            if missing or (anchor and not outline(there).ids[anchor]):
                broken.append(link)
        assert broken == []

    def test_needs_nothing_from_elsewhere_and_no_script(self, path: str) -> None:
        page = outline(path)
        assert page.tags["script"] == page.tags["iframe"] == 0
        assert [asset for asset in page.assets if not asset.startswith("/")] == []
        assert not re.search(r"\son[a-z]+=|javascript:", documents()[path])

    def test_has_a_description(self, path: str) -> None:
        assert '<meta name="description" content="' in documents()[path]


def test_every_page_can_be_reached_from_home() -> None:
    seen, queue = {"/"}, ["/"]
    while queue:
        path = queue.pop()
        for link in outline(path).links:
            there = urlsplit(urljoin(BASE + path, link))
            ours = there.netloc == urlsplit(BASE).netloc and there.path in documents()
            if ours and there.path not in seen:
                seen.add(there.path)
                queue.append(there.path)
    assert set(documents()) - seen == {"/404"}


@pytest.mark.parametrize("section", ["blog", "weekly"])
def test_feed_has_every_post(section: str) -> None:
    resource = loaded().site.resources[f"/{section}/atom.xml".encode()]
    assert not isinstance(resource, Redirect)
    feed = ET.fromstring(bytes(resource.identity.body))  # type: ignore[arg-type]
    links = {link.get("href") for link in feed.iterfind(f"{ATOM}entry/{ATOM}link")}
    posts = {
        BASE + path
        for path in documents()
        if path.startswith(f"/{section}/") and path != f"/{section}/"
    }
    assert links == posts


# The style sheet.

STYLE = (THEME / "static" / "style.css").read_text()
PAIRS = [
    (ink, ground)
    for ink in ("ink", "quiet", "accent", "sand", "kw", "str", "num", "fn")
    for ground in ("paper", "soft")
]


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\n *\}", STYLE, re.DOTALL)[:2]
    found = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", light))
    if scheme == "dark":
        changed = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", dark))
        assert set(changed) == set(found)
        found |= changed
    return found


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), PAIRS)
def test_text_can_be_read(scheme: str, ink: str, ground: str) -> None:
    """WCAG 2.2, 1.4.3 (AA): 4.5 to 1."""
    palette = colours(scheme)
    light, dark = sorted((luminance(palette[ink]), luminance(palette[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_policy_of_the_site_fits_its_pages() -> None:
    """site/_headers tells browsers to refuse scripts, inline styles and what is from elsewhere."""
    policy = (ROOT / "site/_headers").read_text()
    assert "default-src 'none'; img-src 'self'; style-src 'self';" in policy
    for path, text in documents().items():
        outline = Outline(text)
        assert not re.search(r"<(script|style|iframe|form|object|base)\b", text), path
        assert not re.search(r"<[^>]*\s(style|on[a-z]+)=", text), path
        assert all(asset.startswith("/") and asset[:2] != "//" for asset in outline.assets), path


def test_style_sheet_is_small_and_self_contained() -> None:
    assert len(STYLE.encode()) < 15_000
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "prefers-color-scheme: dark" in STYLE
    assert "@media print" in STYLE
    assert ":focus-visible" in STYLE


# What the documentation says about the code.


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "site/docs/configure.md").read_text()
    for table, model in TABLES.items():
        part = text.partition(f"## `[{table}]`")[2].partition("\n## ")[0]
        rows = {
            row[0].strip(" `"): row[2].strip(" `")
            for row in (re.split(r"(?<!\\)\|", line.strip("|")) for line in part.splitlines())
            if len(row) >= 3
        }
        for key, field in model.model_fields.items():
            default = field.default
            if f"[[{table}.{key}]]" in text:
                continue  # an array of tables, shown by an example
            if default is None:
                assert key in rows, f"{table}.{key}"  # what it then is stands there in words
                continue
            if isinstance(default, bool):
                shown = str(default).lower()
            elif isinstance(default, tuple):
                shown = "[" + ", ".join(f'"{item}"' for item in default) + "]"
            else:
                shown = f"{default:g}" if isinstance(default, int | float) else f'"{default}"'
            assert rows.get(key) == shown, f"{table}.{key}"


def examples() -> list[tuple[str, str]]:
    """Every block of Python in the documentation that is a whole program."""
    block = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [
        (page.name, code)
        for page in sorted((ROOT / "site/docs").glob("*.md"))
        for code in block.findall(page.read_text())
        if re.search("^import", code, re.MULTILINE)
    ]


@pytest.mark.parametrize(("page", "code"), examples())
def test_examples_run(page: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "open_tap(" in code:
        compile(code, page, "exec")  # needs a tap to run
        return
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out != ""


def test_examples_are_found() -> None:
    assert len(examples()) >= 3


def test_the_index_of_the_documentation_lists_every_page() -> None:
    docs = Path(__file__).parents[2] / "site/docs"
    linked = set(re.findall(r"\]\(/docs/([\w-]+)\)", (docs / "index.md").read_text()))
    assert linked == {path.stem for path in docs.glob("*.md")} - {"index"}
