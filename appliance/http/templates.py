"""Templates: a page's values become a document.

Jinja2 with automatic escaping; an undefined name is an error with its file and line rather than a
hole in the page.  A file of the same name in the site's `_theme/` wins.  Imports Jinja2 and
`pages`.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from appliance.http.pages import Page

# The theme that comes with the package.
THEME = Path(__file__).parent / "theme"


@dataclass(frozen=True, slots=True)
class SiteContext:
    """What templates know as `site`."""

    title: str
    base_url: str  # ends with "/"
    sections: Mapping[str, Sequence[Page]]  # without the index pages, in the order to show
    lang: str = "en"


class Theme:
    """The templates of a site: its own before the theme's."""

    def __init__(self, theme: Path, own: Path) -> None:
        self._directories = [own, theme]
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
        if page.url == f"/{page.section}/":
            return ["section.html"]
        return ["post.html" if page.date is not None else "page.html"]

    def place(self, error: BaseException) -> tuple[str, int]:
        """Return the template file and line that an error came from."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename.endswith(".html"):
                return frame.filename, frame.lineno or 0
        return "", 0
