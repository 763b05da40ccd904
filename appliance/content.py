"""What is served: the site and the zones, loaded, with everything that was found wrong on the way.

`serve` loads it when it begins and when told to reload, `check` to tell its problems.
Imports the rooms that read it, when it is read; the rooms know nothing of one another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from appliance.banner import plural
from appliance.progress import Bar

if TYPE_CHECKING:
    from appliance.config import Problem
    from appliance.dns import Catalog, LoadedZones
    from appliance.settings import Settings


@dataclass(frozen=True)
class Content:
    """What is served, and what was found wrong while it was loaded."""

    site: Any  # of [site]
    catalog: Catalog
    loaded: LoadedZones
    problems: tuple[Problem, ...]
    hidden: int  # files of the site that are not served because their names begin with a dot
    waiting: int  # drafts and pages of a later date
    pages: int
    files: int
    octets: int  # of all of these, uncompressed
    zones: tuple[str, ...]  # their names
    records: int
    hosting: Any = None  # the choice of sites by name; None: there is but one site
    others: tuple[Any, ...] = ()  # the sites of [[host]]

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
        return f"{plural(self.pages, 'page')}, {plural(self.files, 'file')}, {zones}, {records}"


def check_content(content: Content) -> list[Problem]:
    """What `appliance check` looks at beyond loading: links, anchors, assets, accessible HTML."""
    from appliance.http.check import check_site

    found = [problem for site in (content.site, *content.others) for problem in check_site(site)]
    return [_problem(p.file, p.line, p.severity, p.message) for p in found]


def load_content(
    settings: Settings, *, now: float | None = None, before: Content | None = None
) -> Content:
    """Load site and zones; what cannot be used is left out and told in `problems`.

    `now`: seconds since the epoch, by which pages wait for their date (default: the clock's).
    `before`: what is served; its catalog stays, for the authority will bring it up to date, and
    zones whose files have not changed are not read again.
    """
    from appliance.dns import Catalog, load_zones
    from appliance.figures import tcp_states
    from appliance.http import load_site

    figures = {"tcp-states": tcp_states()}
    bar = Bar()
    main = settings.site
    shared: dict[str, Any] = {
        "figures": figures, "security": _security(settings), "now": now, "live": main.watch,
        "cache": main.cache, "progress": bar,
    }  # fmt: skip
    site = load_site(main.directory, main.base_url, title=main.title, **shared)
    others = [
        load_site(
            host.directory,
            host.base_url or f"{urlsplit(main.base_url).scheme}://{host.name}",
            title=host.title or host.name,
            **shared,
        )
        for host in settings.host
    ]
    bar.end()
    hosting, faults = _hosting(settings, site.site, [other.site for other in others])
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
    sites = [site, *others]
    problems = [_problem(p.file, p.line, p.severity, p.message) for s in sites for p in s.problems]
    problems += faults
    problems += [_problem(p.file, p.line, p.severity, p.message) for p in zones.problems]
    return Content(
        site=site.site,
        catalog=catalog,
        loaded=zones,
        problems=tuple(problems),
        hidden=sum(len(each.hidden) for each in sites),
        waiting=sum(len(each.waiting) for each in sites),
        pages=sum(each.pages for each in sites),
        files=sum(each.files for each in sites),
        octets=sum(each.octets for each in sites),
        zones=tuple(str(zone.name) for zone in zones.zones),
        records=sum(zone.records for zone in zones.zones),
        hosting=hosting,
        others=tuple(other.site for other in others),
    )


def _security(settings: Settings) -> Any:
    """What security.txt says; None without a contact."""
    from appliance.http import Security

    wanted = settings.security
    return Security(**wanted.model_dump()) if wanted.contact else None


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
