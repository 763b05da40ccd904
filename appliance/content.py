"""What is served: the site and the zones, loaded, with everything that was found wrong on the way.

`serve` loads it when it begins and when told to reload, `check` to tell its problems.
Imports the rooms that read it, when it is read; the rooms know nothing of one another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from appliance.banner import plural
from appliance.progress import Bar

if TYPE_CHECKING:
    from appliance.config import Problem
    from appliance.dns import Catalog, LoadedZones
    from appliance.settings import Settings


class Size(NamedTuple):
    """How much one site has."""

    pages: int
    files: int
    octets: int  # of all of these, uncompressed
    hidden: int  # files that are not served because their names begin with a dot
    waiting: int  # drafts and pages of a later date


@dataclass(frozen=True)
class Content:
    """What is served, and what was found wrong while it was loaded."""

    site: Any  # of [site]
    catalog: Catalog
    loaded: LoadedZones
    problems: tuple[Problem, ...]
    sizes: tuple[Size, ...]  # of all sites, that of [site] first
    zones: tuple[str, ...]  # their names
    records: int
    hosting: Any = None  # the choice of sites by name; None: there is but one site
    others: tuple[Any, ...] = ()  # the sites of [[host]]
    names: tuple[str, ...] = ()  # and theirs

    @property
    def size(self) -> Size:
        """How much all sites have together."""
        return Size(*map(sum, zip(*self.sizes, strict=True)))

    @property
    def errors(self) -> int:
        """How many problems are errors."""
        return sum(problem.severity == "error" for problem in self.problems)

    @property
    def site_errors(self) -> int:
        """How many of them are not the zones': a bad zone does not stop the others."""
        return self.errors - sum(one.severity == "error" for one in self.loaded.problems)

    @property
    def summary(self) -> str:
        """Pages, zones and records in a line."""
        zones, records = plural(len(self.zones), "zone"), plural(self.records, "record")
        pages, files, *_ = self.size
        return f"{plural(pages, 'page')}, {plural(files, 'file')}, {zones}, {records}"


def check_content(content: Content) -> list[Problem]:
    """What `appliance check` looks at beyond loading: links, anchors, assets, accessible HTML."""
    from appliance.http.check import check_site

    found = [problem for site in (content.site, *content.others) for problem in check_site(site)]
    return [_problem(p.file, p.line, p.severity, p.message) for p in found]


def load_content(
    settings: Settings,
    *,
    now: float | None = None,
    before: Content | None = None,
    kept: Content | None = None,
) -> Content:
    """Load sites and zones; what cannot be used is left out and told in `problems`.

    `now`: seconds since the epoch, by which pages wait for their date (default: the clock's).
    `before`: what is served; its catalog stays, for the authority will bring it up to date, and
    zones whose files have not changed are not read again.
    `kept`: whose sites (those of [[host]] by name) stay where there is no folder to read them from.
    """
    from appliance.dns import Catalog, load_zones

    sites, sizes, problems = _sites(settings, now, kept)
    hosting, faults = _hosting(settings, sites[0], sites[1:])
    bar = Bar()
    known = {zone.files[0]: (zone, zone.digest) for zone in before.loaded.zones} if before else {}
    zones = load_zones(settings.dns.zones, lambda path: _told(bar, path.stem), known)
    catalog = before.catalog if before else Catalog(
        zones.zones,
        udp_size=settings.dns.udp_size,
        minimal=settings.dns.minimal,
        progress=_told(bar, "answers"),
    )  # fmt: skip
    bar.end()
    # The rooms have a class each for what they find, with the same fields.
    problems += faults
    problems += [_problem(p.file, p.line, p.severity, p.message) for p in zones.problems]
    return Content(
        site=sites[0],
        catalog=catalog,
        loaded=zones,
        problems=tuple(problems),
        sizes=tuple(sizes),
        zones=tuple(str(zone.name) for zone in zones.zones),
        records=sum(zone.records for zone in zones.zones),
        hosting=hosting,
        others=tuple(sites[1:]),
        names=tuple(host.name for host in settings.host),
    )


def _sites(
    settings: Settings, now: float | None, kept: Content | None
) -> tuple[list[Any], list[Size], list[Problem]]:
    """The site of [site], then those of [[host]], with their sizes, and what is wrong with all."""
    main = settings.site
    wanted = [("", main.directory, main.base_url, main.title)]
    for host in settings.host:
        base_url = host.base_url or f"{urlsplit(main.base_url).scheme}://{host.name}"
        wanted.append((host.name, host.directory, base_url, host.title or host.name))
    found: dict[str, tuple[Any, Size]] = {}
    if kept is not None:
        sites = zip((kept.site, *kept.others), kept.sizes, strict=True)
        found = dict(zip(("", *kept.names), sites, strict=True))
    problems: list[Problem] = []
    absent = [one for one in wanted if one[0] not in found or one[1].is_dir()]
    if absent:
        from appliance.figures import tcp_states
        from appliance.http import load_site

        bar = Bar()
        shared: dict[str, Any] = {
            "figures": {"tcp-states": tcp_states()}, "security": _security(settings), "now": now,
            "live": main.watch, "cache": main.cache, "progress": bar,
        }  # fmt: skip
        for name, directory, base_url, title in absent:
            one = load_site(directory, base_url, title=title, **shared)
            size = Size(one.pages, one.files, one.octets, len(one.hidden), len(one.waiting))
            found[name] = one.site, size
            problems += [_problem(p.file, p.line, p.severity, p.message) for p in one.problems]
        bar.end()
    every = [found[name] for name, *_ in wanted]
    return [site for site, _ in every], [size for _, size in every], problems


def _security(settings: Settings) -> Any:
    """What security.txt says; None without a contact."""
    from appliance.http import Security

    wanted = settings.security
    if not wanted.contact:
        return None
    # Not by pydantic: an image has its settings without it.
    return Security(**{field.name: getattr(wanted, field.name) for field in fields(Security)})


def _hosting(settings: Settings, site: Any, others: list[Any]) -> tuple[Any, list[Problem]]:
    """The choice of sites by name, or None where there is none to make; and what is wrong."""
    if not (others or settings.site.aliases or settings.http.unknown_host == "refuse"):
        return None, []
    from appliance.http.hosts import Hosts

    main = urlsplit(settings.site.base_url).hostname or ""
    named = [(main, site, settings.site.aliases)]
    named += [
        (host.name, other, host.aliases) for host, other in zip(settings.host, others, strict=True)
    ]
    sites: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    problems: list[Problem] = []
    for name, found, also in named:
        for each in (name, *also):
            if each in sites or each in aliases:
                message = f"{each} names two sites"
                problems.append(_problem("settings", 0, "error", message))
            elif each == name:
                sites[name] = found
            else:
                aliases[each] = found.base_url
    default = site if settings.http.unknown_host == "serve" else None
    return Hosts(sites, aliases=aliases, default=default), problems


def _told(bar: Bar, what: str) -> Callable[[int, float], None]:
    """A bar as the name server's room speaks to it: how many, and which part of all that is."""
    return lambda count, part: bar(what, count, max(count, round(count / part)) if part else 0)


def _problem(file: str, line: int, severity: str, message: str) -> Problem:
    """A problem that names its file as a person would type it here."""
    from appliance.config import Problem

    path = Path(file)
    if path.is_absolute():
        with contextlib.suppress(ValueError):
            file = str(path.relative_to(Path.cwd()))
    return Problem(file, line, severity, message)
