"""The composition root: the one place where all rooms meet.

    settings -> content (site, zones) -> interface -> stack -> servers [-> gateway] -> banner

and backwards when it ends. `run` blocks until a signal ends it. The rooms know nothing of one
another: HTTP and DNS are plain asyncio protocols, which get a holder whose `current` is swapped
when the content is loaded again, and the stack gets their factories.

May import everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Generic, TypeVar

from appliance.banner import banner, plural
from appliance.config import OPTIONS, PAIR, Problem, Settings
from appliance.dns import Catalog, load_zones
from appliance.dns.protocol import (
    MAX_STREAMS,
    MAX_STREAMS_EACH,
    DnsDatagramProtocol,
    DnsStreamProtocol,
    Streams,
)
from appliance.figures import tcp_states
from appliance.gateway import Gateway
from appliance.http import HttpProtocol, HttpServer, load_site
from appliance.net.errors import LinkError
from appliance.net.transport import Server, Stack
from appliance.net.vif.base import Vif
from appliance.ports import PortsError

logger = logging.getLogger("appliance")

DRAIN: Final = 5.0
"""Seconds that connections have to finish after the first signal."""
BACKLOG: Final = 1024
"""Handshakes and connections waiting per port: all that a host takes on (net.stack.Limits)."""

T = TypeVar("T")
Say = Callable[[str], None]


class StartError(Exception):
    """The appliance cannot be started; the text says what is to be put right."""


class Holder(Generic[T]):
    """The content of now; assigning `current` swaps it for everybody at once."""

    __slots__ = ("current",)

    def __init__(self, current: T) -> None:
        self.current = current


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


def load_content(settings: Settings) -> Content:
    """Load site and zones; what cannot be used is left out and told in `problems`."""
    site = load_site(
        settings.site.directory,
        settings.site.base_url,
        title=settings.site.title,
        figures={"tcp-states": tcp_states()},
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
    path = Path(file)
    if path.is_absolute():
        with contextlib.suppress(ValueError):
            file = str(path.relative_to(Path.cwd()))
    return Problem(file, line, severity, message)


def run(settings: Settings, *, say: Say, verbose: bool = False) -> None:
    """Serve until a signal ends it; raises StartError if that cannot begin."""
    logging.basicConfig(
        level=settings.log.level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    uvloop = _uvloop()
    if verbose:
        say(f"event loop: {f'uvloop {uvloop.__version__}' if uvloop else 'asyncio'}")
    factory = uvloop.new_event_loop if uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(Appliance(settings, say, verbose).run())


def _uvloop() -> ModuleType | None:
    try:
        import uvloop
    except ImportError:
        return None
    module: ModuleType = uvloop
    return module


def _leave_alone() -> None:
    """Let the collector work, but not walk, again and again, what was loaded and stays."""
    gc.unfreeze()  # the content before a reload may go now
    gc.collect()
    gc.freeze()
    gc.enable()


class Appliance:
    """A running appliance: content, stack, servers, and how they begin and end.

    Raises StartError when a directory of the settings is not there.
    """

    def __init__(self, settings: Settings, say: Say, verbose: bool = False) -> None:
        for directory, key in (
            (settings.site.directory, "site.directory"),
            (settings.dns.zones, "dns.zones"),
        ):
            if not directory.is_dir():
                option = OPTIONS[key]
                raise StartError(f"{directory} is not a directory ({option} DIR, or {key})")
        self.settings = settings
        self.gateway: Gateway | None = None
        self._say = say
        self._verbose = verbose
        self._content = load_content(settings)
        self._site: Holder[Any] = Holder(self._content.site)
        self._catalog = Holder(self._content.catalog)
        self._stacks: list[Stack] = []  # the appliance's, then the gateway's
        self._servers: list[Server] = []
        self._http: HttpServer | None = None
        self._ended: asyncio.Event = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._reload_wanted = False

    async def run(self) -> None:
        """Begin, say so, serve until told to end, and end."""
        async with contextlib.AsyncExitStack() as whole:
            whole.push_async_callback(self._end)
            try:
                await self._begin()
            except (OSError, PortsError) as exc:  # LinkError is an OSError
                raise StartError(getattr(exc, "strerror", None) or str(exc)) from exc
            self._listen_to_signals()
            for line in banner(self.settings, self._content, self._stacks[0].vif, self.gateway):
                self._say(line)
            _leave_alone()
            await self._ended.wait()
            await self._drain()

    # Beginning.

    async def _begin(self) -> None:
        net = self.settings.net
        ours, theirs = _open_link(self.settings, logger.warning)
        stack = await self._stack(ours, net.address, net.gateway)
        self._http = HttpServer(self._site)
        http = self._http
        # Behind the gateway all clients have its address, so one may have all streams.
        streams = Streams(each=MAX_STREAMS if theirs is not None else MAX_STREAMS_EACH)
        for port, factory in (
            (self.settings.http.port, lambda: HttpProtocol(http)),
            (self.settings.dns.port, lambda: DnsStreamProtocol(self._catalog, streams=streams)),
        ):
            self._servers.append(await stack.create_server(factory, None, port, backlog=BACKLOG))
        await stack.create_datagram_endpoint(
            lambda: DnsDatagramProtocol(self._catalog), ("", self.settings.dns.port)
        )
        if theirs is not None:
            await self._offer(theirs)

    async def _stack(self, vif: Vif, addresses: Sequence[str], gateways: Sequence[str]) -> Stack:
        stack = Stack(vif, addresses=addresses, gateways=gateways)
        self._stacks.append(stack)
        await stack.start()
        return stack

    async def _offer(self, vif: Vif) -> None:
        """Put the gateway on the other end of the pair."""
        ours = ipaddress.IPv4Interface(self.settings.net.address[0])
        address = next(
            (ip for ip in map(ipaddress.IPv4Address, self.settings.net.gateway)
             if ip in ours.network),
            None,
        ) or next(ip for ip in ours.network.hosts() if ip != ours.ip)  # fmt: skip
        stack = await self._stack(vif, [f"{address}/{ours.network.prefixlen}"], ())
        wanted = self.settings.gateway
        self.gateway = Gateway(
            stack,
            str(ours.ip),
            bind=wanted.bind,
            http=wanted.http,
            dns=wanted.dns,
            http_port=self.settings.http.port,
            dns_port=self.settings.dns.port,
        )
        await self.gateway.start()

    # Signals.

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)

    def _told_to_end(self, number: signal.Signals) -> None:
        if self._ended.is_set():
            for stack in self._stacks:
                stack.vif.close()  # what was recorded is written
            os._exit(128 + number)
        self._ended.set()

    def _told_to_reload(self) -> None:
        self._reload_wanted = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        """Load until nobody has asked again meanwhile."""
        while self._reload_wanted:
            self._reload_wanted = False
            await self._load_again()

    async def _load_again(self) -> None:
        """Serve all of the new or all of the old; connections go on in either case."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            content = await loop.run_in_executor(None, load_content, self.settings)
        except Exception:
            logger.exception("not reloaded, the old content is served on")
            return
        for problem in content.problems:
            self._say(f"{problem.severity}: {problem}")
        if content.errors:
            self._say(f"not reloaded: {plural(content.errors, 'error')}; the old is served on")
            return
        self._content = content
        self._site.current = content.site
        self._catalog.current = content.catalog
        _leave_alone()
        self._say(f"reloaded in {time.monotonic() - began:.2f} s: {content.summary}")

    # Ending.

    async def _drain(self) -> None:
        """Let what has begun finish, for a while."""
        if self.gateway is not None:
            self.gateway.stop_accepting()
        for server in self._servers:
            server.close()
        self._say(f"ending; what has begun has {DRAIN:.0f} s to finish (a second signal: none)")
        assert self._http is not None
        self._http.drain()
        for server in self._servers[1:]:
            server.close_clients()
        try:
            async with asyncio.timeout(DRAIN):
                for server in self._servers:
                    await server.wait_closed()
                if self.gateway is not None:
                    await self.gateway.drained()
        except TimeoutError:
            self._say("some connections were cut off")

    async def _end(self) -> None:
        if self._reloading is not None:
            self._reloading.cancel()
        if self.gateway is not None:
            await self.gateway.close()
        for stack in reversed(self._stacks):
            await stack.close(timeout=0.2)
        if self._verbose:
            for stack in self._stacks:
                counted = {k: v for k, v in stack.counters.as_dict().items() if v}
                self._say(f"{stack.vif.name}: {counted}")


def _open_link(settings: Settings, warn: Callable[[str], None]) -> tuple[Vif, Vif | None]:
    """The interface of the settings, and the other end of a pair; raises LinkError."""
    net = settings.net
    kind, _, name = net.link.partition(":")
    other: Vif | None = None
    vif: Vif
    if net.link == PAIR:
        from appliance.net.vif.pair import pair

        vif, other = pair()
    elif kind == "tap":
        from appliance.net.vif.tap import configure_host_side, open_tap

        vif = open_tap(name)
        if net.host_address is not None:
            configure_host_side(name, net.host_address)
    else:
        raise LinkError(0, f"{net.link}: a raw NIC is not supported yet; use tap:NAME or pair")
    if net.pcap is not None:
        from appliance.net.vif.pcap import Recorder

        vif = Recorder(vif, net.pcap, clock=time.time_ns, warn=warn)
    return vif, other
