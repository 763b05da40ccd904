"""What a server has answered: by status, by page, and the latest errors.

Pages are kept in a bounded table: what is asked for often stays in it, and its count is right to
within what the table had to forget.  Imports the standard library.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

# Pages counted by name: 200 octets each; a busy site's top hundred are far inside.
MAX_PAGES = 4096
# Errors remembered: what a page can show.
MAX_ERRORS = 50
# Octets of a request target that are kept: enough to know it by.
MAX_TARGET = 200


class Error(NamedTuple):
    """An answer of 400 or more, with how often it was given in a row."""

    time: float  # seconds since the epoch
    status: int
    target: str
    times: int


class Tally:
    """Counters of one server."""

    __slots__ = ("errors", "forgotten", "octets", "pages", "statuses", "versions")

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()
        self.octets = 0  # of bodies
        self.pages: Counter[bytes] = Counter()  # 2xx and 304, by path
        self.forgotten = 0  # answers whose page fell out of the table
        self.errors: deque[Error] = deque(maxlen=MAX_ERRORS)

    def count(
        self, status: int, octets: int, target: bytes, now: float, times: int = 1,
        version: str = "1.1",
    ) -> None:  # fmt: skip
        """Count answers of one kind; `octets` are those of one body."""
        self.statuses[status] += times
        self.versions[version] += times
        self.octets += octets * times
        if status < 400:
            if status < 300 or status == 304:
                pages = self.pages
                pages[target.partition(b"?")[0][:MAX_TARGET]] += times
                if len(pages) > MAX_PAGES:
                    self._forget()
            return
        shown = target[:MAX_TARGET].decode("ascii", "backslashreplace")
        last = self.errors[-1] if self.errors else None
        if last is not None and (last.status, last.target) == (status, shown):
            self.errors[-1] = Error(now, status, shown, last.times + times)
        else:
            self.errors.append(Error(now, status, shown, times))

    def _forget(self) -> None:
        """Keep the busier half of the pages."""
        kept = dict(self.pages.most_common(MAX_PAGES // 2))
        self.forgotten += sum(self.pages.values()) - sum(kept.values())
        self.pages = Counter(kept)


def target_of(head: bytes) -> bytes:
    """Return the request-target of a head, b"" when there is none."""
    words = head[:8192].split(b" ", 2)
    return words[1] if len(words) == 3 else b""
