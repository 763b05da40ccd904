"""The authority: the zones over DNS, on the stack's own port, UDP and TCP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from appliance.dns.authority import Authority as Server
from appliance.dns.errors import Problem
from appliance.dns.protocol import (
    DnsDatagramProtocol,
    DnsStreamProtocol,
    Streams,
)
from appliance.dns.service import Service
from appliance.links import PAIR
from appliance.parts.base import Part
from appliance.parts.dns_options import options
from appliance.parts.holder import BACKLOG

if TYPE_CHECKING:
    from appliance.content import Content
    from appliance.dns import Zone
    from appliance.dns.authority import Options
    from appliance.dns.service import Connect, Endpoint, Secure
    from appliance.net.transport import Stack
    from appliance.settings import Settings

logger = logging.getLogger("appliance")


class Authority(Part):
    """Listeners for DNS, and the zones that they answer from."""

    def __init__(
        self,
        settings: Settings,
        content: Content,
        say: Callable[[str], None] = lambda _line: None,
        made: Options | None = None,
    ) -> None:
        """Serve what was loaded, and what the journals have beyond it; OptionsError.

        `made`: of the settings, earlier, as workers have it that share its secrets.
        """
        super().__init__()
        self._settings = settings
        self._port = settings.dns.port
        self._say = say
        self._random = SystemRandom()  # which two copies of a machine do not share
        self.server = Server(
            made if made is not None else options(settings),
            counters=content.catalog.counters,
            random=self._random,
            say=say,
        )
        told = set(content.loaded.problems)
        for problem in self.server.begin(content.loaded, content.catalog):
            if problem not in told:
                say(str(problem))
        self.catalog = Service(self.server, random=self._random)
        """What protocols are given: has `current`, and takes updates."""
        dns = settings.dns
        # Behind the gateway all clients have its address, so one may have all streams.
        each = dns.connections if settings.net.link == PAIR else dns.connections_each
        self.streams = Streams(dns.connections, each)
        self._reloading: set[asyncio.Task[None]] = set()
        self._latest: asyncio.Task[None] | None = None
        self._log: Any = None
        self.holder: Any = self.catalog
        """What protocols ask, once the part has begun: the catalog, or the query log before it."""

    async def begin(self, stack: Stack) -> None:
        """Listen for queries, and talk to other servers."""
        dns = self._settings.dns
        holder: Any = self.catalog
        if dns.query_log is not None:
            from appliance.parts.query_log import QueryLog

            self._log = holder = QueryLog(
                self.catalog, dns.query_log, dns.query_log_format, dns.query_log_sample, self._say
            )
        self.holder = holder
        self.servers.append(
            await stack.create_server(
                lambda: DnsStreamProtocol(
                    holder, streams=self.streams, idle_timeout=dns.idle_seconds
                ),
                None,
                self._port,
                backlog=BACKLOG,
            )
        )
        await stack.create_datagram_endpoint(lambda: DnsDatagramProtocol(holder), ("", self._port))
        # On a pair nobody but the gateway is there; the host's own sockets reach others.
        ours = self._settings.net.link != PAIR
        self.catalog.reach(
            connect=stack.create_connection if ours else None,
            endpoint=_endpoint(stack) if ours else None,
            secure=_secure(stack.create_connection if ours else None)
            if any(one.tls for one in dns.primary)
            else None,
        )
        await self.catalog.begin()
        if dns.watch:
            task = asyncio.get_running_loop().create_task(self._watch(dns.watch))
            self._reloading.add(task)

    def answer_http(self, message: bytes, address: str) -> bytes | None:
        """The answer to a message that came over HTTPS (RFC 8484)."""
        peer = (address, 0)
        answer = self.server.answer_http(message, peer)
        if self._log is not None:
            self._log.answered(message, answer, "https", peer)
        return answer

    def tell(self, zone: Zone) -> None:
        """Tell secondaries of a version that was not loaded; they get it whole."""
        self.server.options.transfers.histories.pop(zone.origin, None)
        self.server.changed(zone)

    def reload(self, content: Content) -> None:
        """Answer from other zones, as soon as it is clear what has changed."""
        task = asyncio.get_running_loop().create_task(self._reload(content.loaded))
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)
        self._latest = task

    async def reloaded(self) -> None:
        """Return when the zones loaded last are served."""
        if self._latest is not None:
            await self._latest

    async def _reload(self, loaded: Any) -> None:
        known: set[Problem] = set(loaded.problems)
        for problem in await self.catalog.reload(loaded):
            if problem not in known:
                self._say(str(problem))

    async def _watch(self, every: float) -> None:
        """Look at the zones' files now and then, and serve what has changed."""
        from appliance.dns.loading import load_zones

        loop = asyncio.get_running_loop()
        told: set[Problem] = set()
        while True:
            await asyncio.sleep(every)
            known = self.server.known()
            load = partial(load_zones, self._settings.dns.zones, known=known)
            try:
                loaded = await loop.run_in_executor(None, load)
                problems = set(await self.catalog.reload(loaded))
            except Exception:
                logger.exception("the zones are not looked at this time")
                continue
            for problem in sorted(problems - told):
                self._say(str(problem))
            told = problems

    def reopen(self) -> None:
        """Go on with a new query log."""
        if self._log is not None:
            self._log.reopen()

    def drain(self) -> None:
        """Close the streams; datagrams are answered until the stack ends."""
        super().drain()
        for server in self.servers:
            server.close_clients()

    async def end(self) -> None:
        """Write back what updates have changed."""
        for task in list(self._reloading):
            task.cancel()
        await self.catalog.end()
        if self._log is not None:
            await self._log.close()


def _endpoint(stack: Stack) -> Endpoint:
    return lambda factory: stack.create_datagram_endpoint(factory, ("", 0))


def _secure(connect: Connect | None) -> Secure:
    from appliance.parts.primaries import SecurePrimaries  # which brings OpenSSL with it

    return SecurePrimaries(connect)
