"""What is served: the site and the zones, loaded, with everything that was found wrong on the way.

`serve` loads it when it begins and when told to reload, `check` to tell its problems.
Imports the rooms that read it, when it is read; the rooms know nothing of one another.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.banner import plural

if TYPE_CHECKING:
    from appliance.config import Problem
    from appliance.dns import Catalog
    from appliance.settings import Settings


@dataclass(frozen=True)
class Content:
    """What is served, and what was found wrong while it was loaded."""

    site: Any
    catalog: Catalog
    problems: tuple[Problem, ...]
    hidden: int  # files of the site that are not served because their names begin with a dot
    waiting: int  # drafts and pages of a later date
    pages: int
    files: int
    octets: int  # of all of these, uncompressed
    zones: tuple[str, ...]  # their names
    records: int

    @property
    def errors(self) -> int:
        """How many problems are errors."""
        return sum(problem.severity == "error" for problem in self.problems)

    @property
    def summary(self) -> str:
        """Pages, zones and records in a line."""
        zones, records = plural(len(self.zones), "zone"), plural(self.records, "record")
        return f"{plural(self.pages, 'page')}, {plural(self.files, 'file')}, {zones}, {records}"


def check_content(content: Content) -> list[Problem]:
    """What `appliance check` looks at beyond loading: links, anchors, assets, accessible HTML."""
    from appliance.http.check import check_site

    return [_problem(p.file, p.line, p.severity, p.message) for p in check_site(content.site)]


def load_content(settings: Settings, *, now: float | None = None) -> Content:
    """Load site and zones; what cannot be used is left out and told in `problems`.

    `now`: seconds since the epoch, by which pages wait for their date (default: the clock's).
    """
    from appliance.dns import Catalog, load_zones
    from appliance.figures import tcp_states
    from appliance.http import load_site

    site = load_site(
        settings.site.directory,
        settings.site.base_url,
        title=settings.site.title,
        figures={"tcp-states": tcp_states()},
        now=now,
    )
    zones = load_zones(settings.dns.zones)
    # The rooms have a class each for what they find, with the same fields.
    problems = [_problem(p.file, p.line, p.severity, p.message) for p in site.problems]
    problems += [_problem(p.file, p.line, p.severity, p.message) for p in zones.problems]
    return Content(
        site=site.site,
        catalog=Catalog(zones.zones, udp_size=settings.dns.udp_size),
        problems=tuple(problems),
        hidden=len(site.hidden),
        waiting=len(site.waiting),
        pages=site.pages,
        files=site.files,
        octets=site.octets,
        zones=tuple(str(zone.name) for zone in zones.zones),
        records=sum(zone.records for zone in zones.zones),
    )


def _problem(file: str, line: int, severity: str, message: str) -> Problem:
    """A problem that names its file as a person would type it here."""
    from appliance.config import Problem

    path = Path(file)
    if path.is_absolute():
        with contextlib.suppress(ValueError):
            file = str(path.relative_to(Path.cwd()))
    return Problem(file, line, severity, message)
