"""A directory becomes a site: every path, with its answer, in one dictionary.

Sources are Markdown pages, static files, and the theme's; what is made of them is described in
`docs` of the site itself.  Loading either finds a thing in order or says what is wrong with it,
and goes on, so that one run shows every problem.  Nothing is read later but large files.  Imports
this package and Jinja2.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError, TemplateSyntaxError

from appliance.http import feeds
from appliance.http.media import media_type
from appliance.http.pages import Page, parse_page
from appliance.http.problem import Problem
from appliance.http.representation import (
    CACHE_PAGES,
    Redirect,
    Resource,
    build,
    cache_policy,
)
from appliance.http.target import location
from appliance.http.templates import THEME, SiteContext, Theme
from appliance.http.walk import LARGE, Source, Walk, open_large, read

HTML = media_type("x.html")
_NOT_FOUND = (
    b'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Not found</title>\n'
    b"<h1>Not found</h1>\n<p>There is no such page here.</p>\n</html>\n"
)


class Site:
    """What is served: immutable once made, swapped as a whole on reload."""

    __slots__ = ("base_url", "loaded_at", "not_found", "pages", "resources", "title")

    def __init__(
        self,
        resources: Mapping[bytes, Resource | Redirect],
        not_found: Resource,
        *,
        pages: tuple[Page, ...] = (),
        title: str = "",
        base_url: str = "",
        loaded_at: int = 0,
    ) -> None:
        self.resources = resources  # by decoded path
        self.not_found = not_found
        self.pages = pages
        self.title = title
        self.base_url = base_url
        self.loaded_at = loaded_at  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class LoadedSite:
    """A site, and what there is to say about loading it."""

    site: Site
    problems: tuple[Problem, ...]
    hidden: tuple[str, ...]  # dotfiles that are not served
    waiting: tuple[str, ...]  # drafts, and pages dated in the future
    pages: int
    files: int
    octets: int  # of all identity representations


def load_site(
    directory: str | os.PathLike[str],
    base_url: str = "http://localhost/",
    *,
    title: str = "",
    figures: Mapping[str, str] | None = None,
    theme: str | os.PathLike[str] = THEME,
    now: float | None = None,
) -> LoadedSite:
    """Load a site from a directory; never raises for what it finds there.

    `figures` are drawings by name, `theme` a directory of templates and `static/`, `now` seconds
    since the epoch.
    """
    loader = _Loader(Path(directory), base_url, title, figures or {}, Path(theme), now)
    return loader.load()


class _Loader:
    """One run of loading; thrown away after it."""

    def __init__(
        self,
        root: Path,
        base_url: str,
        title: str,
        figures: Mapping[str, str],
        theme: Path,
        now: float | None,
    ) -> None:
        self.root = root
        self.base_url = base_url if base_url.endswith("/") else base_url + "/"
        self.title = title
        self.figures = figures
        self.now = int(time.time() if now is None else now)
        self.today = dt.datetime.fromtimestamp(self.now, dt.UTC).date()
        self.problems: list[Problem] = []
        self.resources: dict[bytes, Resource | Redirect] = {}
        self.origins: dict[bytes, str] = {}  # path → file it came from
        self.pages: list[Page] = []
        self.waiting: list[str] = []
        self.not_found_page: Page | None = None
        self.files = 0
        self.octets = 0
        self.modified = 0  # newest source of any page or template, seconds since the epoch
        self.theme = Theme(theme, root / "_theme")

    def load(self) -> LoadedSite:
        walk = Walk(self.root, self.problems)
        for source in walk.sources():
            if source.name.endswith(".md"):
                self._page(source)
            else:
                self._file(source, "/" + source.name)
        for directory in self.theme.static:
            if directory.is_dir():
                for source in Walk(directory, self.problems).sources():
                    if os.fsencode("/static/" + source.name) not in self.resources:
                        self._file(source, "/static/" + source.name)
        context = self._render_pages()
        self._feeds(context)
        not_found = self._render_not_found(context)
        self._aliases()
        site = Site(
            self.resources,
            not_found,
            pages=tuple(self.pages),
            title=self.title,
            base_url=self.base_url,
            loaded_at=self.now,
        )
        return LoadedSite(
            site,
            tuple(self.problems),
            tuple(walk.hidden),
            tuple(self.waiting),
            len(self.pages),
            self.files,
            self.octets,
        )

    # -- sources ------------------------------------------------------------------------------

    def _problem(self, file: str | Path, line: int, message: str) -> None:
        self.problems.append(Problem(str(file), line, "error", message))

    def _page(self, source: Source) -> None:
        name = str(source.path)
        if source.size > LARGE:
            self._problem(name, 0, f"a page of more than {LARGE} octets")
            return
        try:
            octets = read(source)
            text = octets.decode("utf-8-sig")
        except OSError as error:
            self._problem(name, 0, error.strerror or str(error))
            return
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self._problem(name, line, f"not UTF-8: octet 0x{error.object[error.start]:02x}")
            return
        section = source.name.partition("/")[0] if "/" in source.name else ""
        url = _page_url(source.name)
        page = parse_page(
            text,
            url=url,
            section=section,
            source=name,
            figures=self.figures,
            problems=self.problems,
        )
        if page is None:
            return
        self.modified = max(self.modified, source.mtime)
        if page.draft or (page.date is not None and page.date > self.today):
            self.waiting.append(source.name)
        elif source.name == "404.md":
            self.not_found_page = page
        else:
            self.pages.append(page)

    def _file(self, source: Source, url: str) -> None:
        content_type = media_type(source.name)
        path = url.removesuffix("index.html") if url.endswith("/index.html") else url
        path = path.removesuffix(".html") if path != "/.html" else path
        options = {
            "last_modified": min(source.mtime, self.now),
            "cache_control": cache_policy(source.name, content_type),
        }
        try:
            if source.size > LARGE:
                large, tag = open_large(source)
                resource = build(large, content_type, etag=tag, **options)  # type: ignore[arg-type]
            else:
                resource = build(read(source), content_type, **options)  # type: ignore[arg-type]
        except OSError as error:
            self._problem(source.path, 0, error.strerror or str(error))
            return
        if self._put(path, resource, str(source.path)):
            self.files += 1

    def _put(self, url: str, resource: Resource, origin: str) -> bool:
        path = os.fsencode(url)
        if path in self.resources:
            self._problem(origin, 0, f"{url} is taken by {self.origins[path]}")
            return False
        self.resources[path] = resource
        self.origins[path] = origin
        self.octets += resource.identity.length
        return True

    # -- what is made of them -----------------------------------------------------------------

    def _render_pages(self) -> SiteContext:
        self.modified = min(max(self.modified, self.theme.modified()), self.now)
        sections: dict[str, list[Page]] = {}
        for page in self.pages:
            if not page.url.endswith("/"):
                sections.setdefault(page.section, []).append(page)
        for pages in sections.values():
            pages.sort(key=_rank)
        context = SiteContext(self.title, self.base_url, sections)
        for page in list(self.pages):
            body = self._apply(context, page)
            if body is None or not self._put(page.url, self._document(body, HTML), page.source):
                self.pages.remove(page)
        return context

    def _document(self, body: bytes, content_type: str) -> Resource:
        # A page shows other pages' titles and the theme, so it is as new as the newest of them.
        return build(
            body,
            content_type,
            last_modified=self.modified or None,
            cache_control=CACHE_PAGES,
        )

    def _apply(self, context: SiteContext, page: Page) -> bytes | None:
        try:
            return self.theme.render(context, page)
        except TemplateSyntaxError as error:
            self._problem(error.filename or error.name or "template", error.lineno, str(error))
        except TemplateError as error:
            file, line = self.theme.place(error)
            self._problem(file or page.source, line, f"{error.message} (rendering {page.url})")
        except Exception as error:
            file, line = self.theme.place(error)
            self._problem(file or page.source, line, f"{error!r} (rendering {page.url})")
        return None

    def _feeds(self, context: SiteContext) -> None:
        for section, pages in context.sections.items():
            if section and any(page.date is not None for page in pages):
                index = next((p for p in self.pages if p.url == f"/{section}/"), None)
                name = index.title if index is not None else section.title()
                body = feeds.atom(
                    pages,
                    title=f"{name} · {self.title}" if self.title else name,
                    author=self.title or name,
                    base_url=self.base_url,
                    section=section,
                )
                feed = self._document(body, "application/atom+xml; charset=utf-8")
                self._put(f"/{section}/atom.xml", feed, "the Atom feed")
        if b"/sitemap.xml" not in self.resources:
            body = feeds.sitemap(self.pages, self.base_url)
            self._put(
                "/sitemap.xml", self._document(body, media_type("sitemap.xml")), "the sitemap"
            )

    def _render_not_found(self, context: SiteContext) -> Resource:
        body = _NOT_FOUND
        if self.not_found_page is not None:
            body = self._apply(context, self.not_found_page) or body
        elif isinstance(custom := self.resources.pop(b"/404", None), Resource):
            return custom
        return build(body, HTML)

    def _aliases(self) -> None:
        """Let the other spellings of a path lead to the one that is served."""
        for path in list(self.resources):
            target = Redirect(location(path))
            if path.endswith(b"/"):
                spellings = [path[:-1], path + b"index", path + b"index.html"]
            elif self.resources[path].content_type.startswith(b"text/html"):  # type: ignore[union-attr]
                spellings = [path + b".html", path + b"/"]
            else:
                continue
            for spelling in spellings:
                if spelling:
                    self.resources.setdefault(spelling, target)


def _page_url(name: str) -> str:
    """Turn `blog/index.md` into `/blog/` and `docs/run.md` into `/docs/run`."""
    stem = "/" + name.removesuffix(".md")
    return stem.removesuffix("index") if stem.endswith("/index") else stem


def _rank(page: Page) -> tuple[bool, int, int, str]:
    """Sort by `order` first, then newest first, then by title."""
    newest = -page.date.toordinal() if page.date is not None else 0
    return (page.order is None, page.order or 0, newest, page.title)
