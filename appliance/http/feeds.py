"""Atom feeds and the sitemap, made from the pages.

RFC 4287 for the feeds, sitemaps.org's protocol 0.9 for the sitemap.  An entry's id is a tag URI
(RFC 4151) of host, date and path, so it stays the same through reloads, moves to another port,
and a change between http and https.  Imports the standard library, `pages` and `target`.
"""

from __future__ import annotations

import datetime as dt
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from urllib.parse import urljoin, urlsplit

from appliance.http.pages import Page
from appliance.http.target import location

ATOM = "http://www.w3.org/2005/Atom"
SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"
XML_BASE = "{http://www.w3.org/XML/1998/namespace}base"
# Entries in a feed: readers keep older ones themselves.
MAX_ENTRIES = 30
# URLs in a sitemap: sitemaps.org, "Using Sitemap index files".
MAX_URLS = 50_000
# XML 1.0 §2.2: what no document may hold, in whatever spelling; a terminal's output in a page does.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

ET.register_namespace("", ATOM)


def _timestamp(date: dt.date) -> str:
    return f"{date.isoformat()}T00:00:00Z"  # RFC 3339: a date has no hour, so the first one


def _changed(page: Page) -> dt.date:
    return page.updated or page.date or dt.date.min


def tag(base_url: str, page: Page) -> str:
    """Return the entry's id, which must never change (RFC 4287 §4.2.6)."""
    host = urlsplit(base_url).hostname or "localhost"
    return f"tag:{host},{(page.date or dt.date.min).isoformat()}:{page.url}"


def atom(pages: Sequence[Page], *, title: str, author: str, base_url: str, section: str) -> bytes:
    """Make the Atom feed of a section from its dated pages, newest first."""
    dated = [page for page in pages if page.date is not None]
    dated.sort(key=lambda page: (page.date, page.url), reverse=True)
    place = location(f"/{section}/".encode()).decode()
    home = urljoin(base_url, place)
    feed = ET.Element(f"{{{ATOM}}}feed")

    def add(parent: ET.Element, name: str, text: str = "", **attributes: str) -> ET.Element:
        element = ET.SubElement(parent, f"{{{ATOM}}}{name}", attributes)
        element.text = text or None
        return element

    add(feed, "title", title)
    add(feed, "id", f"tag:{urlsplit(base_url).hostname or 'localhost'},2013-12-01:{place}")
    add(feed, "link", rel="self", href=f"{home}atom.xml")
    add(feed, "link", rel="alternate", type="text/html", href=home)
    newest = max((_changed(page) for page in dated), default=dt.date(1970, 1, 1))
    add(feed, "updated", _timestamp(newest))
    add(add(feed, "author"), "name", author)
    for page in dated[:MAX_ENTRIES]:
        entry = add(feed, "entry")
        url = urljoin(base_url, page.url)
        add(entry, "title", page.title)
        add(entry, "id", tag(base_url, page))
        add(entry, "link", rel="alternate", type="text/html", href=url)
        assert page.date is not None
        add(entry, "published", _timestamp(page.date))
        add(entry, "updated", _timestamp(_changed(page)))
        if page.summary:
            add(entry, "summary", page.summary)
        content = add(entry, "content", str(page.content), type="html")
        content.set(XML_BASE, url)
    return _serialise(feed)


def sitemaps(pages: Sequence[Page], base_url: str) -> Iterator[tuple[str, bytes]]:
    """Make the sitemap of all pages, or an index and its parts: URLs and documents."""
    ordered = sorted(pages, key=lambda page: page.url)
    if len(ordered) <= MAX_URLS:
        yield "/sitemap.xml", _sitemap(ordered, base_url)
        return
    index = ET.Element("sitemapindex", xmlns=SITEMAP)
    for start in range(0, len(ordered), MAX_URLS):
        url = f"/sitemap-{start // MAX_URLS + 1}.xml"
        ET.SubElement(ET.SubElement(index, "sitemap"), "loc").text = urljoin(base_url, url)
        yield url, _sitemap(ordered[start : start + MAX_URLS], base_url)
    yield "/sitemap.xml", _serialise(index)


def _sitemap(pages: Sequence[Page], base_url: str) -> bytes:
    root = ET.Element("urlset", xmlns=SITEMAP)
    home = urljoin(base_url, "/").removesuffix("/")
    for page in pages:
        url = ET.SubElement(root, "url")
        ET.SubElement(url, "loc").text = home + page.url
        if page.updated or page.date:
            ET.SubElement(url, "lastmod").text = _changed(page).isoformat()
    return _serialise(root)


def _serialise(root: ET.Element) -> bytes:
    ET.indent(root)
    for element in root.iter():
        if element.text is not None:
            element.text = _NO_XML.sub("\ufffd", element.text)
    body: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return body + b"\n"
