"""Which names are asked for most: a sample of the questions, taken on the way to the catalog.

It stands in front of a holder of DNS content, like the query log, and looks at one question in so
many; what it counts is scaled up again. At low rates every question is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

MAX_NAMES: Final = 2048
"""Names counted at once, some 200 KB; past it the rarer half is forgotten."""
RATE: Final = 500
"""Questions a second that are looked at, about 1 ms of work."""


class Taster:
    """A holder like the one that it stands before."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._left = 1
        self._seen = 0
        self.every = 1
        """One question in so many is looked at."""
        self.names: Counter[bytes] = Counter()
        """Questions by name and type, as they stand in a message, lower case; scaled up."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def current(self) -> Any:
        """What protocols ask: the catalog, or now and then something that looks on."""
        self._left -= 1
        if self._left > 0:
            return self._inner.current
        self._left = self.every
        return _Looker(self._inner.current, self._note)

    def _note(self, query: bytes) -> None:
        self._seen += 1
        end = query.find(b"\0", 12) + 1
        if query[4:6] != b"\0\1" or not 12 < end <= 12 + 255 or len(query) < end + 4:
            return
        self.names[query[12 : end + 2].lower()] += self.every
        if len(self.names) > MAX_NAMES:
            self.names = Counter(dict(self.names.most_common(MAX_NAMES // 2)))

    def tick(self) -> None:
        """Once a second: keep to the rate, whatever is asked."""
        asked = self._seen * self.every
        self._seen = 0
        self.every = max(asked // RATE, 1)


class _Looker:
    """A catalog for one question."""

    __slots__ = ("_catalog", "_note", "counters")

    def __init__(self, catalog: Any, note: Callable[[bytes], None]) -> None:
        self._catalog = catalog
        self._note = note
        self.counters = catalog.counters

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def answer(self, query: bytes, **options: Any) -> Any:
        """As the catalog's."""
        self._note(query)
        return self._catalog.answer(query, **options)

    def stream(self, query: bytes, **options: Any) -> Any:
        """As the catalog's."""
        self._note(query)
        return self._catalog.stream(query, **options)


def shown(question: bytes) -> tuple[str, str]:
    """Return name and type of a question as text."""
    from appliance.dns import names
    from appliance.dns.text import type_name

    return names.to_text(question[:-2]), type_name(int.from_bytes(question[-2:]))
