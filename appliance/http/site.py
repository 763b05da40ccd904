"""A directory becomes a site: every path, with its answer, in one dictionary.

Sources are Markdown pages, static files, and the theme's; what is made of them is described in
`docs` of the site itself.  Loading either finds a thing in order or says what is wrong with it,
and goes on, so that one run shows every problem.  Nothing is read later but large files.

What takes long is done on all processors and remembered between starts (`cache`): Markdown is
rendered in processes, bodies are coded in threads while templates run.  Imports this package and
Jinja2.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from jinja2 import TemplateError, TemplateSyntaxError

from appliance.http import feeds
from appliance.http.cache import Cache, digest, makers
from appliance.http.history import changes
from appliance.http.largefile import LargeFile
from appliance.http.live import with_script
from appliance.http.making import (
    Coder,
    Draft,
    pack_codings,
    pack_page,
    parse_all,
    unpack_codings,
    unpack_page,
)
from appliance.http.media import media_type
from appliance.http.pages import Page
from appliance.http.problem import Problem
from appliance.http.representation import (
    Redirect,
    Resource,
    build,
    cache_policy,
    content_hash,
    is_coded,
)
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


Progress = Callable[[str, int, int], None]


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
    cache: Path | None = None,
    live: bool = False,
    progress: Progress | None = None,
) -> LoadedSite:
    """Load a site from a directory; never raises for what it finds there.

    `figures` are drawings by name, `theme` a directory of templates and `static/`, `security`
    what `/.well-known/security.txt` says, `now` seconds since the epoch, `cache` a directory for
    what was made before, `live` puts a script into pages that reloads them, `progress` is told
    what is being done, how much of it is done and how much there is.
    """
    loader = _Loader(Path(directory), base_url, title, figures or {}, Path(theme), now)
    loader.live = live
    loader.progress = progress or (lambda _what, _done, _total: None)
    loader.cache = Cache(cache)
    with loader.coder:
        return loader.load(security)


@dataclass(slots=True)
class _Planned:
    """A resource to be, while its codings are being made."""

    body: bytes | LargeFile
    url: str
    name: str
    mtime: int | None
    tag: bytes | None
    content_type: str


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
        self.live = False
        self.progress: Progress
        self.cache: Cache
        self.coder = Coder()
        self.resources: dict[bytes, Resource | Redirect] = {}
        self.planned: dict[bytes, _Planned] = {}  # of the resources, those not built yet
        self.origins: dict[bytes, str] = {}  # path → file it came from
        self.pages: list[Page] = []
        self.known: list[bytes] = []  # keys of the pages, which are as good as their content
        self.waiting: list[str] = []
        self.not_found_page: Page | None = None
        self.files = 0
        self.octets = 0
        self.modified = 0  # newest source of any page or template, seconds since the epoch
        self.theme = Theme(theme, root / "_theme")
        self.headers = HeaderRules()

    def load(self, security: Security | None) -> LoadedSite:
        self.headers = parse_headers(*self._own("_headers"), self.problems)
        if self.live:
            self.headers.forget("content-security-policy")  # it would stop the script
        walk = Walk(self.root, self.problems)
        times = changes(self.root)
        drafts: list[tuple[Source, Draft]] = []
        for source in walk.sources():
            if source.name in times:
                source = replace(source, mtime=times[source.name])
            if source.name.endswith(".md"):
                drafts += self._draft(source)
            else:
                self._file(source, "/" + source.name)
        self._parse(drafts)
        for directory in self.theme.static:
            if os.path.isdir(directory):  # which does not raise
                for source in Walk(directory, self.problems).sources():
                    if os.fsencode("/static/" + source.name) not in self.planned:
                        self._file(source, "/static/" + source.name)
        context = self._render_pages()
        self._feeds(context)
        if security is not None:
            self._security(security)
        lost = self._render_not_found(context)
        self._build_all()
        not_found = self._build(lost, self.coder.result(b"", lost.body, lost.content_type))
        self.cache.close()
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
            return path.read_text("utf-8-sig"), str(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._problem(path, 0, error.strerror or str(error))
        except UnicodeDecodeError as error:
            self._problem(path, 0, str(error))
        return "", str(path)

    # -- sources ------------------------------------------------------------------------------

    def _problem(self, file: str | Path, line: int, message: str) -> None:
        self.problems.append(Problem(str(file), line, "error", message))

    def _draft(self, source: Source) -> Iterator[tuple[Source, Draft]]:
        """Read a page's text, or say why not."""
        name = str(source.path)
        try:
            source.name.encode()
        except UnicodeEncodeError:
            self._problem(name, 0, "its name is not UTF-8, so that no page can link to it")
            return
        if source.size > LARGE:
            self._problem(name, 0, f"a page of more than {LARGE} octets")
            return
        try:
            text = read(source).decode("utf-8-sig")
        except OSError as error:
            self._problem(name, 0, error.strerror or str(error))
            return
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self._problem(name, line, f"not UTF-8: octet 0x{error.object[error.start]:02x}")
            return
        section = source.name.partition("/")[0] if "/" in source.name else ""
        yield source, Draft(text, _page_url(source.name), section, name)

    def _parse(self, drafts: list[tuple[Source, Draft]]) -> None:
        """Make pages of texts: those made before from the cache, the others together."""
        made_by = digest(makers(), *(f"{k}={v}" for k, v in sorted(self.figures.items())))
        keys = [digest(made_by, *draft) for _, draft in drafts]
        self.cache.prefetch(keys)
        pages: dict[int, Page | None] = {}
        for number, key in enumerate(keys):
            octets = self.cache.get(key)
            if octets is not None:
                pages[number] = unpack_page(octets, drafts[number][1])
        left = [number for number in range(len(drafts)) if number not in pages]
        results = parse_all([drafts[number][1] for number in left], self.figures, self.progress)
        for number, (page, problems) in zip(left, results, strict=True):
            pages[number] = page
            self.problems += problems
            if page is not None and not problems:
                self.cache.put(keys[number], pack_page(page))
        for number, (source, _) in enumerate(drafts):
            page = pages[number]
            if page is not None:
                self.known.append(keys[number])
                self._page(source, page)

    def _page(self, source: Source, page: Page) -> None:
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
        planned = self._plan(path, body, source.name, mtime, tag)
        if self._put(path, planned, str(source.path)):
            self.files += 1

    def _plan(
        self, url: str, body: bytes | LargeFile, name: str, mtime: int | None, tag: bytes | None
    ) -> _Planned:
        """Begin a resource as its name and the site's `_headers` want it."""
        content_type = self.headers.apply(os.fsencode(url)).content_type or media_type(name)
        if self.live and isinstance(body, bytes) and content_type.startswith("text/html"):
            body = with_script(body)
        if isinstance(body, bytes):
            tag = content_hash([body])
        return _Planned(body, url, name, mtime, tag, content_type)

    def _build(self, planned: _Planned, coded: Mapping[bytes, bytes]) -> Resource:
        """Make the resource, once its codings are there."""
        wanted = self.headers.apply(os.fsencode(planned.url))
        cache_control = wanted.cache_control
        if cache_control is None:
            cache_control = cache_policy(planned.name, planned.content_type)
        return build(
            planned.body,
            planned.content_type,
            etag=planned.tag,
            last_modified=planned.mtime,
            cache_control=cache_control,
            extra=wanted.extra,
            coded=coded,
        )

    def _build_all(self) -> None:
        """Code what is worth it, from the cache where that was done before, and build."""
        made_by = makers()
        keys = {
            path: digest(made_by, b"codings", planned.tag or b"")
            for path, planned in self.planned.items()
            if isinstance(planned.body, bytes) and is_coded(planned.body, planned.content_type)
        }
        self.cache.prefetch(keys.values())
        coded: dict[bytes, Mapping[bytes, bytes]] = {}
        for path, key in keys.items():
            octets = self.cache.get(key)
            body = self.planned[path].body
            if octets is not None:
                coded[path] = unpack_codings(octets)
            elif isinstance(body, bytes):
                self.coder.begin(path, body)
        total = len(keys) - len(coded)
        done = 0
        for path, planned in self.planned.items():
            codings = coded.get(path)
            if codings is None:
                codings = self.coder.result(path, planned.body, planned.content_type)
                if path in keys:
                    self.cache.put(keys[path], pack_codings(codings))
                    done += 1
                    self.progress("coding", done, total)
            self.resources[path] = self._build(planned, codings)

    def _put(self, url: str, planned: _Planned, origin: str) -> bool:
        path = os.fsencode(url)
        if path in self.planned:
            self._problem(origin, 0, f"{url} is taken by {self.origins[path]}")
            return False
        self.planned[path] = planned
        self.origins[path] = origin
        body = planned.body
        self.octets += len(body)
        if self.cache.is_new and isinstance(body, bytes) and is_coded(body, planned.content_type):
            self.coder.begin(path, body)  # while templates run
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
        # A template may show anything of any page, so a document is known by all of them.
        everything = digest(
            makers(), self.title, self.base_url, *self.theme.texts(),
            *self.known, *(page.url for page in self.pages),
        )  # fmt: skip
        keys = {page.url: digest(everything, page.url) for page in self.pages}
        self.cache.prefetch(keys.values())
        failed = set()
        for done, page in enumerate(self.pages, 1):
            body = self.cache.get(keys[page.url])
            if body is None:
                body = self._apply(context, page)
                if body is not None:
                    self.cache.put(keys[page.url], body)
                self.progress("templates", done, len(self.pages))
            path = unquote(page.url)
            if body is None or not self._put(
                path, self._document(path, body, "page.html"), page.source
            ):
                failed.add(id(page))
        if failed:
            self.pages = [page for page in self.pages if id(page) not in failed]
        return context

    def _document(self, url: str, body: bytes, name: str) -> _Planned:
        # A page shows other pages' titles and the theme, so it is as new as the newest of them.
        return self._plan(url, body, name, self.modified or None, None)

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
                index = next((p for p in self.pages if p.url == pages[0].home), None)
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
        if b"/sitemap.xml" not in self.planned:
            for url, body in feeds.sitemaps(self.pages, self.base_url):
                self._put(url, self._document(url, body, url), "the sitemap")

    def _security(self, security: Security) -> None:
        faults = security.faults(self.today)
        for fault in faults:
            self._problem("configuration", 0, fault)
        if not faults and os.fsencode(SECURITY) not in self.planned:
            body = security.text(self.base_url, self.today)
            self._put(SECURITY, self._plan(SECURITY, body, SECURITY, self.now, None), "settings")

    def _render_not_found(self, context: SiteContext) -> _Planned:
        body = _NOT_FOUND
        if self.not_found_page is not None:
            body = self._apply(context, self.not_found_page) or body
        elif (custom := self.planned.pop(b"/404", None)) is not None:
            return custom
        return self._plan("/404", body, "404.html", None, None)

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
                self._forced_pattern(rule)

    def _forced_pattern(self, rule: Rule) -> None:
        """Take away what a pattern leads elsewhere, but not what it leads to."""
        led = {path: rule.resolve(path) for path in self.resources}
        kept: set[bytes] = set()
        for found in led.values() if rule.status < 400 else ():
            while isinstance(found, Redirect) and (path := found.path) not in kept:
                kept.add(path)
                found = self.resources.get(path)  # type: ignore[assignment]
        for path, found in led.items():
            if found is not None and path not in kept:
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
            if self._comes_back(path, found):
                if path == rule.path:
                    self._problem(self.root / "_redirects", rule.line, "leads in a circle")
                continue  # `/a/ /a`: the other spelling is what is meant
            if found is not None:
                self.resources[path] = found
            else:
                self.resources.pop(path, None)

    def _comes_back(self, path: bytes, found: Resource | Redirect | None) -> bool:
        """Say whether a path that leads there is led to itself again."""
        seen = {path}
        while isinstance(found, Redirect) and found.path not in seen:
            seen.add(found.path)
            found = self.resources.get(found.path)
        return isinstance(found, Redirect)


def _page_url(name: str) -> str:
    """Turn `blog/index.md` into `/blog/` and `docs/a b.md` into `/docs/a%20b`."""
    stem = "/" + name.removesuffix(".md")
    path = stem.removesuffix("index") if stem.endswith("/index") else stem
    return location(path.encode()).decode()


def _rank(page: Page) -> tuple[bool, int, int, str]:
    """Sort by `order` first, then newest first, then by title."""
    newest = -page.date.toordinal() if page.date is not None else 0
    return (page.order is None, page.order or 0, newest, page.title)
