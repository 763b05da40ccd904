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
from appliance.http.largefile import LargeFile
from appliance.http.media import media_type
from appliance.http.pages import Page, parse_page
from appliance.http.problem import Problem
from appliance.http.representation import Redirect, Resource, build, cache_policy
from appliance.http.rules import HeaderRules, Rule, parse_headers, parse_redirects
from appliance.http.served import Site
from appliance.http.target import location
from appliance.http.templates import THEME, SiteContext, Theme
from appliance.http.walk import LARGE, Source, Walk, open_large, read
from appliance.http.wellknown import PATH as SECURITY
from appliance.http.wellknown import Security

_NOT_FOUND = (
    b'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Not found</title>\n'
    b"<h1>Not found</h1>\n<p>There is no such page here.</p>\n</html>\n"
)


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
    security: Security | None = None,
    now: float | None = None,
) -> LoadedSite:
    """Load a site from a directory; never raises for what it finds there.

    `figures` are drawings by name, `theme` a directory of templates and `static/`, `security`
    what `/.well-known/security.txt` says, `now` seconds since the epoch.
    """
    loader = _Loader(Path(directory), base_url, title, figures or {}, Path(theme), now)
    return loader.load(security)


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
        self.headers = HeaderRules()

    def load(self, security: Security | None) -> LoadedSite:
        self.headers = parse_headers(*self._own("_headers"), self.problems)
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
        if security is not None:
            self._security(security)
        not_found = self._render_not_found(context)
        self._aliases()
        rules = parse_redirects(*self._own("_redirects"), self.problems)
        site = Site(
            self.resources,
            not_found,
            pages=tuple(self.pages),
            rules=tuple(rule for rule in rules if rule.pattern is not None),
            origins=self.origins | {b"/_redirects": str(self.root / "_redirects")},
            title=self.title,
            base_url=self.base_url,
            loaded_at=self.now,
        )
        self._rules(site, rules)
        return LoadedSite(
            site,
            tuple(self.problems),
            tuple(walk.hidden),
            tuple(self.waiting),
            len(self.pages),
            self.files,
            self.octets,
        )

    def _own(self, name: str) -> tuple[str, str]:
        """Return the text of one of the site's own files, and its name; "" if there is none."""
        path = self.root / name
        try:
            return path.read_text("utf-8"), str(path)
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            self._problem(path, 0, str(error))
        return "", str(path)

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
        path = url.removesuffix("index.html") if url.endswith("/index.html") else url
        path = path.removesuffix(".html") if path != "/.html" else path
        tag = None
        body: bytes | LargeFile
        try:
            if source.size > LARGE:
                body, tag = open_large(source)
            else:
                body = read(source)
        except OSError as error:
            self._problem(source.path, 0, error.strerror or str(error))
            return
        mtime = min(source.mtime, self.now)
        if self._put(path, self._build(path, body, source.name, mtime, tag), str(source.path)):
            self.files += 1

    def _build(
        self, url: str, body: bytes | LargeFile, name: str, mtime: int | None, tag: bytes | None
    ) -> Resource:
        """Make a resource as its name and the site's `_headers` want it."""
        wanted = self.headers.apply(os.fsencode(url))
        content_type = wanted.content_type or media_type(name)
        cache_control = wanted.cache_control
        if cache_control is None:
            cache_control = cache_policy(name, content_type)
        return build(
            body,
            content_type,
            etag=tag,
            last_modified=mtime,
            cache_control=cache_control,
            extra=wanted.extra,
        )

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
            if body is None or not self._put(
                page.url, self._document(page.url, body, "page.html"), page.source
            ):
                self.pages.remove(page)
        return context

    def _document(self, url: str, body: bytes, name: str) -> Resource:
        # A page shows other pages' titles and the theme, so it is as new as the newest of them.
        return self._build(url, body, name, self.modified or None, None)

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
                url = f"/{section}/atom.xml"
                self._put(url, self._document(url, body, "feed.atom"), "the Atom feed")
        if b"/sitemap.xml" not in self.resources:
            body = feeds.sitemap(self.pages, self.base_url)
            url = "/sitemap.xml"
            self._put(url, self._document(url, body, url), "the sitemap")

    def _security(self, security: Security) -> None:
        faults = security.faults(self.today)
        for fault in faults:
            self._problem("configuration", 0, fault)
        if not faults and os.fsencode(SECURITY) not in self.resources:
            body = security.text(self.base_url, self.today)
            self._put(SECURITY, self._build(SECURITY, body, SECURITY, self.now, None), "settings")

    def _render_not_found(self, context: SiteContext) -> Resource:
        body = _NOT_FOUND
        if self.not_found_page is not None:
            body = self._apply(context, self.not_found_page) or body
        elif isinstance(custom := self.resources.pop(b"/404", None), Resource):
            return custom
        return self._build("/404", body, "404.html", None, None)

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

    def _rules(self, site: Site, rules: list[Rule]) -> None:
        """Put literal rules in the dictionary, and forced ones over what is there."""
        earlier: list[Rule] = []
        for rule in rules:
            if rule.pattern is None:
                if not any(pattern.resolve(rule.path) for pattern in earlier):
                    self._literal_rule(site, rule)
                continue
            earlier.append(rule)
            if rule.forced:
                for path in [path for path in self.resources if rule.resolve(path) is not None]:
                    del self.resources[path]

    def _literal_rule(self, site: Site, rule: Rule) -> None:
        found = site.follow(rule.redirect({}))
        if found is None and rule.status == 200:
            self._problem(self.root / "_redirects", rule.line, f"there is no {rule.target}")
            return
        # With and without the slash at the end are one path to whoever writes such a file.
        for path in {rule.path, rule.path.rstrip(b"/") or b"/", rule.path.rstrip(b"/") + b"/"}:
            if isinstance(self.resources.get(path), Resource) and not rule.forced:
                continue  # a file wins
            if found is not None:
                self.resources[path] = found
            else:
                self.resources.pop(path, None)


def _page_url(name: str) -> str:
    """Turn `blog/index.md` into `/blog/` and `docs/run.md` into `/docs/run`."""
    stem = "/" + name.removesuffix(".md")
    return stem.removesuffix("index") if stem.endswith("/index") else stem


def _rank(page: Page) -> tuple[bool, int, int, str]:
    """Sort by `order` first, then newest first, then by title."""
    newest = -page.date.toordinal() if page.date is not None else 0
    return (page.order is None, page.order or 0, newest, page.title)
