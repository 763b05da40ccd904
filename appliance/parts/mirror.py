"""DNS in several workers: the first changes zones and talks to other servers, the others follow.

    UPDATE at a follower ── words ──> the first ── journal, disk ──┐
    answer, to its sender <── words ──┴── what has changed ──> all followers

A follower answers from a catalog of its own. Differences come to it in order; when one does not fit
what it has, or when it or the first begins, it says what it has and gets whole what is different.
A follower has a version before it passes on the answer to the UPDATE that made it; another may
have it a moment later, as with any secondary. Imports the DNS room and asyncio.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from appliance.dns.authority import FEW, Options
from appliance.dns.edit import apply
from appliance.dns.errors import LocalError
from appliance.dns.service import Service
from appliance.dns.zone import collector_paused
from appliance.mesh import blob_of
from appliance.parts.authority import Authority

if TYPE_CHECKING:
    from random import Random

    from appliance.content import Content
    from appliance.dns import Zone
    from appliance.dns.authority import Authority as Server
    from appliance.dns.errors import Problem
    from appliance.dns.serial import Difference
    from appliance.mesh import Post
    from appliance.settings import Settings

logger = logging.getLogger("appliance")

UPDATES: Final = 1000
"""Updates passed on that wait for their answers; the oldest is forgotten, and its sender repeats
it. What a first worker had not answered when it died is forgotten the same way."""
FIRST: Final = 0
"""The number of the first worker."""
CENSUS: Final = b""
"""The origin of no zone."""
IN_A_LETTER: Final = 40_000
"""Octets of a difference that goes without a file."""


def of_a_follower(options: Options) -> Options:
    """What a follower's server is: the same to those who ask, and silent towards other servers."""
    return replace(options, state=None, notifier=None, produce=None)


class Follower(Authority):
    """Listeners for DNS in a worker that is not the first."""

    def __init__(
        self,
        settings: Settings,
        content: Content,
        say: Callable[[str], None],
        made: Options,
        post: Post,
    ) -> None:
        super().__init__(settings, content, say, made=of_a_follower(made))
        self.catalog = self.mirror = Mirror(self.server, random=self._random, post=post)
        server: Any = self.server  # its methods are what the catalog asks for
        heard = server.notified

        def notified(message: bytes, peer: Any) -> bytes:
            post.send(FIRST, "notify", message, peer)
            answer: bytes = heard(message, peer)
            return answer

        server.notified = notified


class Mirror(Service):
    """Keeps a follower's catalog as the first worker's is, and passes updates on to it."""

    def __init__(self, authority: Server, *, random: Random, post: Post) -> None:
        super().__init__(authority, random=random)
        self._post = post
        self._asked: OrderedDict[int, Callable[[bytes], None]] = OrderedDict()
        self._number = 0
        self._news: asyncio.Queue[tuple[bytes, Difference | None, int]] = asyncio.Queue()
        """Of a zone: by a difference, or whole in a file; of no zone: a census."""
        self._taking: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Say what there is, and get what has changed since."""
        self.current = self.authority.current
        self._taking = self._spawn(self._take())
        self.introduce()

    def introduce(self) -> None:
        """Tell the first worker which versions are here."""
        have = {origin: zone.serial for origin, zone in self.current.zones.by_origin.items()}
        blob = pickle.dumps(have)
        self._post.send(FIRST, "hello", self._post.number, blob=blob)

    def update(self, message: bytes, peer: Any, reply: Callable[[bytes], None]) -> None:
        """Pass an UPDATE on to the first worker."""
        self._number += 1
        self._asked[self._number] = reply
        if len(self._asked) > UPDATES:
            self._asked.popitem(last=False)
        self._post.send(FIRST, "update", self._post.number, self._number, message, peer)

    def answered(self, number: int, answer: bytes) -> None:
        """The first worker's answer to an update; everything that it changed has come before."""
        reply = self._asked.pop(number, None)
        if reply is None:
            return
        if self._news.empty():
            reply(answer)
        else:
            self._spawn(self._after_news(reply, answer))

    async def _after_news(self, reply: Callable[[bytes], None], answer: bytes) -> None:
        await self._news.join()
        reply(answer)

    def news(self, origin: bytes, change: Difference | None, fd: int) -> None:
        """A zone has a new version; or, of no zone, which zones there are."""
        self._news.put_nowait((origin, change, fd))

    def _take_census(self, origins: frozenset[bytes], absent: frozenset[bytes]) -> None:
        """Forget zones that are gone, and answer for nobody of whose zone there is no data."""
        catalog = self.current
        for origin in [one for one in catalog.zones.by_origin if one not in origins]:
            catalog.remove(origin)
            self.authority.options.transfers.histories.pop(origin, None)
        for origin in absent - catalog.zones.absent:
            catalog.expire(origin)
        for origin in catalog.zones.absent - absent - origins:
            catalog.remove(origin)

    async def _take(self) -> None:
        """Take versions one after another; a large one is rendered by a thread."""
        while True:
            origin, change, fd = await self._news.get()
            try:
                if change is not None:
                    self._differs(origin, change)
                elif origin == CENSUS:
                    self._take_census(*pickle.loads(blob_of(fd)))  # noqa: S301 - as below
                else:
                    await self._read_whole(fd)
            except Exception:
                logger.exception("a zone's new version cannot be taken")
            finally:
                self._news.task_done()

    def _differs(self, origin: bytes, change: Difference) -> None:
        before = self.current.zones.by_origin.get(origin)
        try:
            if before is None or before.serial != change.old_serial:
                raise LocalError("another version")
            edited = apply(before, change)
        except LocalError:
            self.introduce()
            return
        self.current.edit(edited)
        self.authority.options.transfers.changed(change)

    async def _read_whole(self, fd: int) -> None:
        catalog = self.current

        def read() -> tuple[Zone, Any]:
            with collector_paused():
                zone: Zone = pickle.loads(blob_of(fd))  # noqa: S301 - from the first worker
                return zone, catalog.render_zone(zone)

        zone, rendered = await asyncio.get_running_loop().run_in_executor(None, read)
        catalog.replace(zone, rendered)
        self.authority.options.transfers.histories.pop(zone.origin, None)

    async def reload(self, _loaded: Any) -> list[Problem]:
        """Nothing: new zones come from the first worker."""
        return []

    async def end(self) -> None:
        """Stop following."""
        if self._taking is not None:
            self._taking.cancel()
        await super().end()


class Publisher:
    """What the first worker tells the others of its zones."""

    def __init__(self, authority: Authority, post: Post) -> None:
        """Once the authority has begun."""
        self._server = authority.server
        self._holder = authority.catalog
        self._post = post
        self._told: dict[bytes, Zone] = dict(self._server.current.zones.by_origin)
        self._census: tuple[frozenset[bytes], frozenset[bytes]] | None = None
        before = self._server.changed

        def changed(zone: Zone) -> None:
            before(zone)
            self._tell(zone.origin)

        self._server.changed = changed
        for follower in self._followers():
            post.send(follower, "who")

    def _followers(self) -> range:
        return range(1, self._post.mesh.count)

    def _tell(self, origin: bytes) -> None:
        zone = self._server.current.zones.by_origin.get(origin)
        before = self._told.get(origin)
        if zone is None or zone is before:
            return
        self._told[origin] = zone
        history = self._server.options.transfers.histories.get(origin)
        last = history.differences[-1] if history is not None and history.differences else None
        if (
            last is not None
            and before is not None
            and (last.old_serial, last.new_serial) == (before.serial, zone.serial)
            and len(last.removed) + len(last.added) <= FEW
            and len(pickle.dumps(last)) < IN_A_LETTER
        ):
            for follower in self._followers():
                self._post.send(follower, "zone", origin, last)
        else:
            blob = pickle.dumps(zone, protocol=5)
            for follower in self._followers():
                self._post.send(follower, "zone", origin, None, blob=blob)

    def hello(self, follower: int, have: dict[bytes, int]) -> None:
        """A follower says what it has: give it what it lacks."""
        for origin, zone in self._server.current.zones.by_origin.items():
            if have.get(origin) != zone.serial:
                blob = pickle.dumps(zone, protocol=5)
                self._post.send(follower, "zone", origin, None, blob=blob)
        self._post.send(follower, "zone", CENSUS, None, blob=pickle.dumps(self._count()))

    def update(self, follower: int, number: int, message: bytes, peer: Any) -> None:
        """An UPDATE that came to a follower."""

        def reply(answer: bytes) -> None:
            self._post.send(follower, "answer", number, answer)

        self._holder.update(message, peer, reply)

    def notified(self, message: bytes, peer: Any) -> None:
        """A NOTIFY that came to a follower, which has answered it."""
        self._server.notified(message, peer)

    def look(self) -> None:
        """Once a second: what no version tells of (zones that go, expire or were laid over)."""
        zones = self._server.current.zones
        for origin, zone in list(zones.by_origin.items()):
            if self._told.get(origin) is not zone:
                self._tell(origin)
        census = self._count()
        if census != self._census:
            self._census = census
            for follower in self._followers():
                self._post.send(follower, "zone", CENSUS, None, blob=pickle.dumps(census))

    def _count(self) -> tuple[frozenset[bytes], frozenset[bytes]]:
        zones = self._server.current.zones
        return frozenset(zones.by_origin), frozenset(zones.absent)
