"""A site as it is served: every path, with its answer, in one dictionary; `site` makes it.

A module of its own, so that a machine that boots with its site already made (appliance/image) need
not import what made it. Imports this package's values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from appliance.http.representation import Redirect, Resource
from appliance.http.rules import REDIRECTS, Rule

if TYPE_CHECKING:
    from appliance.http.pages import Page


class Site:
    """What is served: immutable once made, swapped as a whole on reload."""

    __slots__ = (
        "base_url",
        "loaded_at",
        "not_found",
        "origins",
        "pages",
        "resources",
        "rules",
        "title",
    )

    def __init__(
        self,
        resources: Mapping[bytes, Resource | Redirect],
        not_found: Resource,
        *,
        pages: tuple[Page, ...] = (),
        rules: tuple[Rule, ...] = (),
        origins: Mapping[bytes, str] | None = None,
        title: str = "",
        base_url: str = "",
        loaded_at: int = 0,
    ) -> None:
        self.resources = resources  # by decoded path
        self.not_found = not_found
        self.pages = pages
        self.rules = rules  # patterns, tried on what is no resource
        self.origins = origins or {}  # path → the file it was made of
        self.title = title
        self.base_url = base_url
        self.loaded_at = loaded_at  # seconds since the epoch

    def at(self, _authority: bytes) -> Site:
        """Return this site, whatever it was called (see `hosts` for more than one)."""
        return self

    def otherwise(self, path: bytes) -> Resource | Redirect | None:
        """Return where the first pattern that matches leads; None: nowhere."""
        for rule in self.rules:
            found = rule.resolve(path)
            if found is not None:
                # Leading a path to itself would be a circle.
                return self.follow(found) if found.path != path else None
        return None

    def follow(self, found: Redirect) -> Resource | Redirect | None:
        """Return what a rule's outcome means: a redirect, another path's content, or nothing."""
        if found.status in REDIRECTS:
            return found
        if found.status != 200:
            return None
        inner = self.resources.get(found.path)
        if isinstance(inner, Redirect):  # /app/index.html, whose content is at /app/
            inner = self.resources.get(inner.path)
        return inner if isinstance(inner, Resource) else None
