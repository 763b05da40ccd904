"""`serve --watch`: what is written is served at once, and the open page reloads itself.

The directories of pages, zones and templates are looked through twice a second, in a thread; when
something is another than before, and has come to rest, it is loaded again. Pages carry a short
script meanwhile, which asks at `/_live` whether they are still the newest.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.http.live import PATH
from appliance.http.message import NOSNIFF, SERVER, Answer, Request
from appliance.http.templates import THEME
from appliance.parts.base import Part

if TYPE_CHECKING:
    from appliance.content import Content
    from appliance.net.transport import Stack
    from appliance.parts.web import Web
    from appliance.settings import Settings

EVERY: Final = 0.4
"""Seconds between two looks, and that a change has to rest."""
SHARE: Final = 10
"""A look that takes long is followed by a pause so many times as long."""

Seen = frozenset[tuple[str, int, int]]


class Watch(Part):
    """Looks at directories, and has them loaded again."""

    def __init__(self, settings: Settings, web: Web, reload: Callable[[], None]) -> None:
        super().__init__()
        self._directories = [
            settings.site.directory,
            settings.dns.zones,
            THEME,
            *(host.directory for host in settings.host),
        ]
        self._reload = reload
        self._task: asyncio.Task[None] | None = None
        # Another number after a restart, too, so that an open page notices.
        self._generation = time.time_ns()
        web.hooks[PATH] = self._answer

    def _answer(self, request: Request, _body: bytes, _address: str) -> Answer | None:
        if request.method != b"GET":
            return None
        body = b"%d" % self._generation
        block = b"%sContent-Type: text/plain\r\nContent-Length: %d\r\nCache-Control: no-store\r\n%s"
        return Answer(200, block % (SERVER, len(body), NOSNIFF), (body,))

    async def begin(self, stack: Stack) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        loaded = seen = await loop.run_in_executor(None, look, self._directories)
        pause = EVERY
        while True:
            await asyncio.sleep(pause)
            began = loop.time()
            before, seen = seen, await loop.run_in_executor(None, look, self._directories)
            pause = max(EVERY, SHARE * (loop.time() - began))
            if seen != loaded and seen == before:
                loaded = seen
                self._reload()

    def reload(self, content: Content) -> None:
        """Tell open pages that there is something new."""
        self._generation = time.time_ns()

    def notes(self) -> list[str]:
        """That it watches."""
        return ["watching pages and zones; open pages reload themselves"]

    async def end(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()


def look(directories: list[Path]) -> Seen:
    """Return all files of some directories with their times and sizes."""
    return frozenset(found for directory in directories for found in _files(directory))


def _files(directory: Path) -> Iterator[tuple[str, int, int]]:
    stack = [str(directory)]
    while stack:
        try:
            entries = list(os.scandir(stack.pop()))
        except OSError:
            continue  # gone since its own directory was read
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    # What editors and version control keep there changes nothing that is served.
                    if not entry.name.startswith(".") or entry.name == ".well-known":
                        stack.append(entry.path)
                else:
                    status = entry.stat()
                    yield entry.path, status.st_mtime_ns, status.st_size
            except OSError:
                continue
