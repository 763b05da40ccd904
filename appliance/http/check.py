"""What a loaded site has wrong with it: dead links, missing anchors, the basics of accessible HTML.

Works on the documents as they will be sent, so that what templates add is checked as well.  Only
what lies inside the site is followed: no request leaves.  Imports this package and the standard
library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

from appliance.http.message import Refusal
from appliance.http.problem import Problem
from appliance.http.representation import Redirect, Resource
from appliance.http.rules import REDIRECTS
from appliance.http.semantics import find
from appliance.http.served import Site
from appliance.http.target import location, parse_target

# Attributes that name another resource, by element.
_LINKS: Mapping[str, tuple[str, ...]] = {
    "a": ("href",),
    "area": ("href",),
    "audio": ("src",),
    "embed": ("src",),
    "form": ("action",),
    "iframe": ("src",),
    "img": ("src",),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src",),
    "track": ("src",),
    "video": ("src", "poster"),
}
# Relations whose target is a name rather than a document to fetch.
_NAMES = frozenset({"canonical", "preconnect", "dns-prefetch"})
_CSS_URL = re.compile(r"""url\(\s*(["']?)([^"')]+)\1\s*\)""")
_HEADING = re.compile(r"h[1-6]")

Severity = Literal["error", "warning"]


@dataclass(slots=True)
class Document:
    """What the checker keeps of one HTML document."""

    links: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)  # of accessibility and structure


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.document = Document()
        self.language = ""
        self.title: str | None = None
        self.headings: list[int] = []
        self._in_title = False
        self._in_svg = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "svg":
            self._in_svg += 1
        elif tag == "title" and not self._in_svg:
            self._in_title, self.title = True, ""
        elif tag == "html":
            self.language = values.get("lang", "")
        elif tag == "img" and "alt" not in values:
            self.document.faults.append(f"img without alt: {values.get('src', '')}")
        elif _HEADING.fullmatch(tag):
            self.headings.append(int(tag[1]))
        if anchor := values.get("id"):
            if anchor in self.document.ids:
                self.document.faults.append(f"id `{anchor}` stands twice")
            self.document.ids.add(anchor)
        if tag == "a" and (name := values.get("name")):
            self.document.ids.add(name)
        self._links(tag, values)

    def _links(self, tag: str, values: Mapping[str, str]) -> None:
        if tag == "link" and _NAMES & set(values.get("rel", "").lower().split()):
            return
        for attribute in _LINKS.get(tag, ()):
            if attribute in values:
                self.document.links.append(values[attribute].strip())
        for candidate in values.get("srcset", "").split(","):
            if words := candidate.split():
                self.document.links.append(words[0])

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg":
            self._in_svg = max(self._in_svg - 1, 0)
        elif tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title = (self.title or "") + data

    def finish(self) -> Document:
        """Judge the document as a whole (WCAG 2.2: 2.4.2, 3.1.1, 1.3.1)."""
        faults = self.document.faults
        if not self.language:
            faults.append("the html element has no lang")
        if not (self.title or "").strip():
            faults.append("no title")
        if not self.headings:
            faults.append("no heading")
        elif self.headings.count(1) != 1:
            faults.append(f"{self.headings.count(1)} level-1 headings, expected one")
        for before, after in zip(self.headings, self.headings[1:], strict=False):
            if after > before + 1:
                faults.append(f"a level-{after} heading follows one of level {before}")
        return self.document


def read_document(html: str) -> Document:
    """Take links, anchors and faults out of an HTML document."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.finish()


def check_site(site: Site) -> list[Problem]:
    """Check links, anchors, assets, redirects, and the basics of accessible HTML."""
    return _Checker(site).run()


class _Checker:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.host = urlsplit(site.base_url).netloc
        self.documents: dict[bytes, Document] = {}
        # What is wrong → the files it was found in: a fault of the theme is told once.
        self.found: dict[tuple[Severity, str, str], list[str]] = {}

    def run(self) -> list[Problem]:
        for path, text in self._texts(b"text/html"):
            self.documents[path] = read_document(text)
        lost = self.site.not_found.identity.body
        if isinstance(lost, bytes):
            self.documents[b"/404"] = read_document(lost.decode("utf-8", "replace"))
        for path, document in self.documents.items():
            for fault in document.faults:
                self._tell("warning", fault, "", path)
            for link in document.links:
                self._link(path, link)
        for path, text in self._texts(b"text/css"):
            for _, link in _CSS_URL.findall(text):
                self._link(path, link)
        self._redirects()
        return [
            self._problem(severity, message, link, files)
            for (severity, message, link), files in self.found.items()
        ]

    def _texts(self, kind: bytes) -> Iterator[tuple[bytes, str]]:
        for path, resource in self.site.resources.items():
            if isinstance(resource, Resource) and resource.content_type.startswith(kind):
                body = resource.identity.body
                if isinstance(body, bytes):
                    yield path, body.decode("utf-8", "replace")

    def _tell(self, severity: Severity, message: str, link: str, path: bytes) -> None:
        files = self.found.setdefault((severity, message, link), [])
        files.append(self.site.origins.get(path, path.decode("utf-8", "replace")))

    def _problem(self, severity: Severity, message: str, link: str, files: list[str]) -> Problem:
        if len(files) > 1:
            message += f" (and in {len(files) - 1} more)"
        return Problem(files[0], _line(files[0], link), severity, message)

    def _link(self, path: bytes, link: str) -> None:
        if link.startswith("#") and path in self.documents:
            self._anchor(path, link, link[1:], path)
            return
        try:
            whole = urlsplit(urljoin(self.site.base_url + location(path).decode()[1:], link))
        except ValueError:
            self._tell("error", f"malformed link {link}", link, path)
            return
        if whole.scheme not in {"http", "https"} or whole.netloc != self.host:
            return
        if whole.scheme == "http" and self.site.base_url.startswith("https:"):
            self._tell("warning", f"link {link} leaves https", link, path)
        try:
            target = parse_target(b"GET", (whole.path or "/").encode())
            found = find(self.site, target)
        except Refusal as refusal:
            self._tell("error", f"link {link}: {refusal.reason}", link, path)
            return
        place = target.path
        if isinstance(found, Redirect):
            self._tell(
                "warning", f"link {link} is redirected to {found.location.decode()}", link, path
            )
            place = unquote_to_bytes(found.location)
            found = self.site.resources.get(place)
        if found is None:
            if isinstance(self.site.resources.get(target.path), Redirect):
                return  # leads out of the site, or is told with the redirects
            self._tell("error", f"link {link} leads nowhere", link, path)
        elif place in self.documents:
            self._anchor(path, link, whole.fragment, place)

    def _anchor(self, path: bytes, link: str, fragment: str, place: bytes) -> None:
        # HTML §7.4.6.3: `#` and `#top` lead to the top of any document.
        if unquote(fragment) not in self.documents[place].ids | {"", "top"}:
            self._tell("error", f"link {link}: there is no such anchor", link, path)

    def _redirects(self) -> None:
        for path, redirect in self.site.resources.items():
            if isinstance(redirect, Redirect) and not path.endswith(b"/"):
                self._redirect(path, redirect)
        for rule in self.site.rules:
            if rule.status in REDIRECTS and ":" not in rule.target:
                self._redirect(rule.path, Redirect(rule.target.encode(), rule.status))

    def _redirect(self, path: bytes, redirect: Redirect) -> None:
        where = redirect.location.decode()
        try:
            place = urlsplit(where)
            if place.netloc:
                return
            if find(self.site, parse_target(b"GET", place.path.encode())) is not None:
                return
            where, why = place.path, "leads nowhere"
        except (Refusal, ValueError) as error:
            why = f"is of no use ({error})"
        message = f"the redirect of {path.decode('utf-8', 'replace')} {why}: {where}"
        self._tell("error", message, where, b"/_redirects")


def _line(file: str, text: str) -> int:
    """Return the first line of a file that holds a text; 0 if none does."""
    if not text:
        return 0
    try:
        for number, line in enumerate(Path(file).read_text("utf-8").splitlines(), start=1):
            if text in line:
                return number
    except (OSError, UnicodeDecodeError):
        pass
    return 0
