"""The slow part of loading a site, on all processors: Markdown in processes, codings in threads.

A few pages are rendered where they are, since a process takes half a second to begin.  Compression
lets go of the interpreter's lock, so threads serve it.  Also how both are written down for the
cache.  Imports this package.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Self

from markupsafe import Markup

from appliance.http.pages import Page, parse_page
from appliance.http.problem import Problem
from appliance.http.representation import code, is_coded

# Pages from which on processes are worth their beginning: about a second of rendering.
MANY = 300
# Pages that a process is given at a time.
PORTION = 50
# Processes and threads at most; past these the disk is the slower part.
MOST = 8

Parsed = tuple[Page | None, list[Problem]]


class Draft(NamedTuple):
    """A page's text, and what its place says about it."""

    text: str
    url: str
    section: str
    source: str


def processors() -> int:
    """Return how many processors this process may use."""
    return min(len(os.sched_getaffinity(0)), MOST)


def _parse(figures: Mapping[str, str], drafts: Sequence[Draft]) -> list[Parsed]:
    found: list[Parsed] = []
    for draft in drafts:
        problems: list[Problem] = []
        page = parse_page(
            draft.text,
            url=draft.url,
            section=draft.section,
            source=draft.source,
            figures=figures,
            problems=problems,
        )
        found.append((page, problems))
    return found


def parse_all(
    drafts: Sequence[Draft], figures: Mapping[str, str], progress: Callable[[str, int, int], None]
) -> list[Parsed]:
    """Make pages of texts, in their order."""
    parts = [drafts[start : start + PORTION] for start in range(0, len(drafts), PORTION)]
    work = partial(_parse, dict(figures))
    told = partial(_gather, total=len(drafts), progress=progress)
    found = _in_processes(work, parts, told) if len(drafts) >= MANY and processors() > 1 else None
    return told(map(work, parts)) if found is None else found


def _gather(
    results: Iterable[list[Parsed]], total: int, progress: Callable[[str, int, int], None]
) -> list[Parsed]:
    found: list[Parsed] = []
    for part in results:
        found += part
        progress("rendering", len(found), total)
    return found


def _in_processes(
    work: Callable[[Sequence[Draft]], list[Parsed]],
    parts: Sequence[Sequence[Draft]],
    told: Callable[[Iterable[list[Parsed]]], list[Parsed]],
) -> list[Parsed] | None:
    """Make pages in other processes; None when there are none to be had, or no memory for them."""
    try:
        import multiprocessing
        from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
    except ImportError:
        return None  # a machine's image has neither
    # Not forked: the appliance may have threads, and a loop, by the time it loads again.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processors(), mp_context=context) as pool:
            return told(pool.map(work, parts))
    except (BrokenProcessPool, OSError, pickle.PicklingError):
        return None


def pack_page(page: Page) -> bytes:
    """Write a page down, without what its draft knows."""
    return json.dumps(
        {
            "title": page.title,
            "content": str(page.content),
            "toc": page.toc,
            "summary": page.summary,
            "date": page.date and page.date.isoformat(),
            "updated": page.updated and page.updated.isoformat(),
            "order": page.order,
            "template": page.template,
            "lang": page.lang,
            "draft": page.draft,
        },
        ensure_ascii=False,
    ).encode()


def unpack_page(octets: bytes, draft: Draft) -> Page:
    """Read a page that was written down; the cache's keys vouch for the octets."""
    found = json.loads(octets)
    for name in ("date", "updated"):
        if found[name] is not None:
            found[name] = dt.date.fromisoformat(found[name])
    found["content"] = Markup(found["content"])  # noqa: S704 - the site's own authors wrote it
    found["toc"] = [tuple(entry) for entry in found["toc"]]
    return Page(url=draft.url, section=draft.section, source=draft.source, **found)


class Coder:
    """Codes bodies in threads."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[bytes, Future[dict[bytes, bytes]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def begin(self, key: bytes, body: bytes) -> None:
        """Begin to code a body; `key` is what its result is asked for by."""
        if key not in self._begun:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(processors(), "coding")
            self._begun[key] = self._pool.submit(code, body)

    def result(self, key: bytes, body: object, content_type: str) -> dict[bytes, bytes]:
        """Return the codings of a body that are smaller than it."""
        future = self._begun.get(key)
        if future is not None:
            return future.result()
        if isinstance(body, bytes) and is_coded(body, content_type):
            return code(body)
        return {}


def pack_codings(codings: Mapping[bytes, bytes]) -> bytes:
    """Write codings down: name, length and octets of each."""
    return b"".join(
        b"%s %d\n%s" % (coding, len(octets), octets) for coding, octets in codings.items()
    )


def unpack_codings(octets: bytes) -> dict[bytes, bytes]:
    """Read codings that were written down."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(octets):
        end = octets.index(b"\n", at)
        coding, length = octets[at:end].split(b" ")
        at = end + 1 + int(length)
        found[coding] = octets[end + 1 : at]
    return found
