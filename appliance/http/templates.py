"""Templates: a page's values become a document.

Jinja2 with automatic escaping; an undefined name is an error with its file and line rather than a
hole in the page.  A file of the same name in the site's `_theme/` wins.  Imports Jinja2 and
`pages`.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from appliance.http.pages import Page

# The theme that comes with the package.
THEME = Path(__file__).parent / "theme"


# Pages that a page of a section shows beside itself; more would be a list that nobody reads.
MAX_AROUND = 60


class SiteContext:
    """What templates know as `site`; what they ask for on each page costs the same on any site."""

    __slots__ = ("_places", "base_url", "feeds", "lang", "menu", "sections", "title")

    def __init__(
        self, title: str, base_url: str, sections: Mapping[str, Sequence[Page]], lang: str = "en"
    ) -> None:
        self.title = title
        self.base_url = base_url  # ends with "/"
        self.sections = sections  # without the index pages, in the order to show
        self.lang = lang
        # Sections that have a feed, and pages of the top that say where they want to stand.
        self.feeds = [
            name
            for name, pages in sections.items()
            if name and any(page.date is not None for page in pages)
        ]
        self.menu = [page for page in sections.get("", ()) if page.order is not None]
        self._places = {
            page.url: place for pages in sections.values() for place, page in enumerate(pages)
        }

    def around(self, page: Page) -> Sequence[Page]:
        """Return the pages of a page's section, those next to it if there are too many."""
        pages = self.sections.get(page.section, ())
        if len(pages) <= MAX_AROUND:
            return pages
        first = max(self._places.get(page.url, 0) - MAX_AROUND // 2, 0)
        return pages[first : first + MAX_AROUND]

    def beside(self, page: Page) -> tuple[Page | None, Page | None]:
        """Return the pages before and after a page in its section."""
        place = self._places.get(page.url)
        if place is None:
            return None, None
        pages = self.sections[page.section]
        return (
            pages[place - 1] if place else None,
            pages[place + 1] if place + 1 < len(pages) else None,
        )


class Theme:
    """The templates of a site: its own before the theme's."""

    def __init__(self, theme: Path, own: Path) -> None:
        # Not is_dir(): it raises where the site may not be looked into.
        self._directories = [each for each in (own, theme) if os.path.isdir(each)]
        self.static = [directory / "static" for directory in self._directories]
        self._environment = Environment(
            loader=FileSystemLoader(self._directories),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )

    def modified(self) -> int:
        """Return when the newest template changed, in seconds since the epoch."""
        return max(
            (
                int(path.stat().st_mtime)
                for directory in self._directories
                for path in directory.glob("*.html")
            ),
            default=0,
        )

    def texts(self) -> list[str]:
        """Return all that the templates are made of, for whoever wants to know when they change."""
        return [
            f"{path.name}\n{path.read_text('utf-8', 'replace')}"
            for directory in self._directories
            for path in sorted(directory.glob("*.html"))
        ]

    def render(self, site: SiteContext, page: Page) -> bytes:
        """Render a page; raises jinja2.TemplateError, or whatever a template raises."""
        template = self._environment.select_template(self._names(page))
        return template.render(site=site, page=page).encode()

    @staticmethod
    def _names(page: Page) -> list[str]:
        if page.template:
            return [page.template if "." in page.template else page.template + ".html"]
        if page.url == "/404":
            return ["404.html"]
        if page.url == "/":
            return ["home.html", "page.html"]
        if page.url == page.home:
            return ["section.html"]
        return ["post.html" if page.date is not None else "page.html"]

    def place(self, error: BaseException) -> tuple[str, int]:
        """Return the template file and line that an error came from."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename.endswith(".html"):
                return frame.filename, frame.lineno or 0
        return "", 0
