"""The composition root: the one place where all rooms meet.

    settings -> content (site, zones) -> interface -> stack -> parts [-> gateway] -> banner

and backwards when it ends. `run` blocks until a signal ends it. Each service is a part (parts/);
the rooms know nothing of one another: HTTP and DNS are plain asyncio protocols, and the stack gets
their factories from the parts.

May import everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Final

from appliance.banner import banner, plural, url
from appliance.cabling import Cabling, configuration, open_cable, open_more, worth_telling
from appliance.content import Content, load_content
from appliance.links import opposite
from appliance.net.link import Ipv6Settings
from appliance.net.tcb import TcpSettings
from appliance.net.transport import Stack
from appliance.net.vif.base import Vif
from appliance.parts.authority import Authority
from appliance.parts.base import Part
from appliance.parts.dns_options import OptionsError
from appliance.parts.web import Web
from appliance.ports import PortsError

if TYPE_CHECKING:
    from appliance.gateway import Gateway
    from appliance.parts.certificates import Certificates
    from appliance.settings import Settings
    from appliance.trace.record import TraceFile

logger = logging.getLogger("appliance")

DRAIN: Final = 5.0
"""Seconds that connections have to finish after the first signal."""
COLLECT: Final = (50_000, 50, 50)
"""The collector's thresholds. Connections end without cycles, so there is next to nothing to find,
and walking all that live costs 100 ms with 16,000 pairs in TIME-WAIT."""
Say = Callable[[str], None]


class StartError(Exception):
    """The appliance cannot be started; the text says what is to be put right."""


def run(settings: Settings, *, say: Say, verbose: bool = False) -> None:
    """Serve until a signal ends it; raises StartError if that cannot begin."""
    logging.basicConfig(
        level=settings.log.level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    uvloop = _uvloop()
    if verbose:
        say(f"event loop: {f'uvloop {uvloop.__version__}' if uvloop else 'asyncio'}")
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(Appliance(settings, say, verbose).run())


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the fastest loop that is installed; None: asyncio's own."""
    uvloop = _uvloop()
    return uvloop.new_event_loop if uvloop else None


def _uvloop() -> ModuleType | None:
    try:
        import uvloop
    except ImportError:
        return None
    module: ModuleType = uvloop
    return module


def told(exc: Exception) -> str:
    """What an error that was raised while starting says to people, with its file if it has one."""
    why = getattr(exc, "strerror", None) or str(exc)
    file = getattr(exc, "filename", None)
    return f"{file}: {why}" if file else why


def _leave_alone() -> None:
    """Let the collector work, but not walk, again and again, what was loaded and stays."""
    gc.unfreeze()  # the content before a reload may go now
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    gc.enable()


def look_for_directories(settings: Settings) -> None:
    """Raise StartError when one of the settings is not there."""
    for directory, key in (
        (settings.site.directory, "site.directory"),
        (settings.dns.zones, "dns.zones"),
    ):
        if not directory.is_dir():
            from appliance.config import OPTIONS

            option = OPTIONS[key]
            raise StartError(f"{directory} is not a directory ({option} DIR, or {key})")


class Appliance:
    """A running appliance: content, stack, servers, and how they begin and end.

    Raises StartError when a directory of the settings is not there.
    """

    def __init__(
        self,
        settings: Settings,
        say: Say,
        verbose: bool = False,
        content: Content | None = None,
        patient: bool = False,
        load: Callable[..., Content] = load_content,
    ) -> None:
        """`content`: loaded earlier, as an image has it (default: loaded now).

        `load` makes the next one, as `load_content` would from `settings` and what came `before`.
        `patient`: HTTP and DNS begin alone, and all other parts with `begin_rest`.
        """
        if content is None:
            look_for_directories(settings)
            content = load_content(settings)
        self.settings = settings
        self.gateway: Gateway | None = None
        self._say = say
        self._verbose = verbose
        self._content = content
        self._load = load
        self._stacks: list[Stack] = []  # the appliance's, then the gateway's
        try:
            web, authority = Web(settings, self._content), self._authority()
        except OptionsError as exc:
            raise StartError(str(exc)) from exc
        self._parts: list[Part] = [web, authority]
        self._rest = partial(self._others, web, authority)
        if not patient:
            self._parts += self._rest()
        if settings.site.watch:
            from appliance.parts.watch import Watch

            self._parts.append(Watch(settings, web, self._told_to_reload))
        if settings.control.enabled and not patient:
            from appliance.parts.control import Control

            self._parts.append(Control(settings))
        if not patient:
            self._parts += self._metrics(web, authority)
        self._ended: asyncio.Event = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._reload_wanted = False
        self._begun = False

    def _authority(self) -> Authority:
        """The name server; raises OptionsError."""
        return Authority(self.settings, self._content, self._say)

    def _others(self, web: Web, authority: Authority) -> list[Part]:
        """All parts but HTTP and DNS, in the order in which they begin."""
        return secure_parts(self.settings, web, authority)

    def _metrics(self, web: Web, authority: Authority) -> list[Part]:
        """The listener for operators, if there is one; its library is imported only then."""
        if not self.settings.metrics.port:
            return []
        from appliance.parts.metrics import Metrics

        return [Metrics(self.settings, web, authority)]

    async def run(self) -> None:
        """Begin, say so, serve until told to end, and end."""
        async with contextlib.AsyncExitStack() as whole:
            whole.push_async_callback(self._end)
            self._listen_to_signals()
            try:
                await self._begin_until_told()
            except (OSError, PortsError) as exc:  # LinkError is an OSError
                raise StartError(told(exc)) from exc
            if self._ended.is_set():
                return
            self._introduce()
            self._settle_down()
            self._begun = True
            if self._reload_wanted:
                self._told_to_reload()
            await self._ended.wait()
            await self._drain()

    def _introduce(self) -> None:
        """Say what is served, and where."""
        notes = [note for part in self._parts for note in part.notes()]
        stack = self._stacks[0]
        addresses = worth_telling(stack.addresses())
        taken = self._cabling.contested
        for line in banner(
            self.settings, self._content, stack.vifs, self.gateway, notes, addresses, taken
        ):
            self._say(line)
        if self.gateway is None:
            self._tell_changes(stack)

    def _settle_down(self) -> None:
        """Everything has begun: nothing that is there now is garbage."""
        _leave_alone()

    # Beginning.

    async def _begin_until_told(self) -> None:
        """Begin, or give up when told to end: an address may be waited for for long."""
        beginning = asyncio.create_task(self._begin())
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait((beginning, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            beginning.cancel()  # which does nothing to one that is done
            with contextlib.suppress(asyncio.CancelledError):
                await beginning

    async def _begin(self) -> None:
        net = self.settings.net
        tracing = self._tracing()
        ours, theirs = self._open_cable()
        more = self._open_more()
        if tracing is not None:
            ours, more = tracing.around(ours), [tracing.around(vif) for vif in more]
        stack = await self._stack(ours, (), (), **configuration(net))
        for cable, vif in zip(net.more, more, strict=True):
            stack.add_vif(vif, **configuration(cable))
        self._linked(stack)
        self._cabling = Cabling(net, stack, self._say)
        try:
            self._cabling.join()
        except ValueError as exc:
            raise StartError(str(exc)) from exc
        if tracing is not None:
            stack.host.on_turn = tracing.trace.turn
        for part in self._parts:
            await part.begin(stack)
        if theirs is not None:
            await self._offer(theirs)
        await self._cabling.settle()

    def _tracing(self) -> TraceFile | None:
        """The file that a trace goes to, if one is wanted; raises LinkError."""
        if self.settings.net.trace is None:
            return None
        from appliance.trace.record import TraceFile

        return TraceFile(self.settings.net.trace, warn=logger.warning)

    def _open_cable(self) -> tuple[Vif, Vif | None]:
        """The first link, and the other end of a pair; raises LinkError."""
        return open_cable(self.settings.net, self.settings.net.pcap, logger.warning)

    def _open_more(self) -> list[Vif]:
        """The further links; raises LinkError."""
        return open_more(self.settings.net, logger.warning)

    def _linked(self, stack: Stack) -> None:
        """All links are there, and have no addresses yet."""

    def _tell_changes(self, stack: Stack) -> None:
        """Say where we are found from now on, when that changes."""
        net = self.settings.net
        given = {*net.address, *(cidr for cable in net.more for cidr in cable.address)}
        told = {*worth_telling(stack.addresses()), *worth_telling([*given])}
        told -= self._cabling.contested
        had = set(worth_telling(stack.addresses()))

        def changed() -> None:
            now = set(worth_telling(stack.addresses()))
            for address in sorted(now - told):
                self._say(f"found at {url(address, self.settings.http.port)}")
            for address in sorted(gone := had - now):
                self._say(f"no longer at {url(address, self.settings.http.port)}")
            told.update(now)
            told.difference_update(gone)
            had.clear()
            had.update(now)

        stack.host.network.on_change.append(changed)

    async def begin_rest(self) -> None:
        """Import and begin the parts that a patient start has left; raises as they do."""
        # In a thread, so that the loop goes on serving: on a slow machine it takes seconds.
        await asyncio.to_thread(bring_in, self.settings)
        web, authority = self._parts[:2]
        assert isinstance(web, Web)
        assert isinstance(authority, Authority)
        parts = [*self._rest(), *self._metrics(web, authority)]
        for server in web.http:
            server.hook_up(web.hooks)
        for part in parts:
            await part.begin(self._stacks[0])
            self._parts.append(part)
            for note in part.notes():
                self._say(f"  {note}")
        _leave_alone()

    async def _stack(
        self,
        vif: Vif,
        addresses: Sequence[str],
        gateways: Sequence[str],
        *,
        ipv6: Ipv6Settings | None = None,
        dhcp: bool = False,
    ) -> Stack:
        try:
            tcp = TcpSettings(**vars(self.settings.tcp))
            stack = Stack(
                vif, addresses=addresses, gateways=gateways, ipv6=ipv6, dhcp=dhcp, tcp=tcp
            )
        except ValueError as exc:
            raise StartError(str(exc)) from exc
        self._stacks.append(stack)
        await stack.start()
        return stack

    async def _offer(self, vif: Vif) -> None:
        """Put the gateway on the other end of the pair."""
        from appliance.gateway import Gateway

        net = self.settings.net
        ours = next(cidr.partition("/")[0] for cidr in net.address if ":" not in cidr)
        theirs = opposite(net.address, net.gateway)
        if theirs is None:
            raise StartError(f"the network of {ours} has no room for the gateway")
        stack = await self._stack(vif, [theirs], ())
        wanted = self.settings.gateway
        self.gateway = Gateway(
            stack,
            ours,
            bind=wanted.bind,
            http=wanted.http,
            dns=wanted.dns,
            http_port=self.settings.http.port,
            dns_port=self.settings.dns.port,
            streams={
                name: (port, inner) for part in self._parts for name, port, inner in part.offers()
            },
            local=[
                name for part in self._parts for name, *_ in part.offers() if part.is_local(name)
            ],
        )
        await self.gateway.start()
        for part in self._parts:
            for name, _, _ in part.offers():
                part.offered(name, self.gateway.place_of(name), self.gateway.ports[name])

    # Signals.

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        loop.add_signal_handler(signal.SIGUSR1, self._told_to_reopen)

    def _told_to_end(self, number: signal.Signals) -> None:
        if self._ended.is_set():
            for stack in self._stacks:
                stack.vif.close()  # what was recorded is written
            os._exit(128 + number)
        self._ended.set()

    def _told_to_reload(self) -> None:
        self._reload_wanted = True
        if not self._begun:
            return  # as soon as there is something to serve it
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    def _told_to_reopen(self) -> None:
        for part in self._parts:
            part.reopen()

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
            content = await loop.run_in_executor(
                None, partial(self._load, self.settings, before=self._content)
            )
        except Exception:
            logger.exception("not reloaded, the old content is served on")
            return
        for problem in content.problems:
            self._say(f"{problem.severity}: {problem}")
        if content.site_errors:
            self._say(f"not reloaded: {plural(content.site_errors, 'error')}; the old is served on")
            return
        try:
            await self._serve_now(content)
        except Exception:
            logger.exception("reloaded, but not everything that was loaded is served")
            return
        self._say(f"reloaded in {time.monotonic() - began:.2f} s: {content.summary}")

    async def _serve_now(self, content: Content) -> None:
        """Serve what was loaded again."""
        self._content = content
        for part in self._parts:
            part.reload(content)
        for part in self._parts:
            await part.reloaded()
        _leave_alone()

    # Ending.

    async def _drain(self) -> None:
        """Let what has begun finish, for a while."""
        if self.gateway is not None:
            self.gateway.stop_accepting()
        self._say(f"ending; what has begun has {DRAIN:.0f} s to finish (a second signal: none)")
        for part in self._parts:
            part.drain()
        try:
            async with asyncio.timeout(DRAIN):
                for part in self._parts:
                    await part.drained()
                if self.gateway is not None:
                    await self.gateway.drained()
        except TimeoutError:
            self._say("some connections were cut off")

    async def _end(self) -> None:
        if self._reloading is not None:
            self._reloading.cancel()
        for part in self._parts:
            await part.end()
        if self.gateway is not None:
            await self.gateway.close()
        for stack in reversed(self._stacks):
            await stack.close(timeout=0.2)
        if self._verbose:
            for stack in self._stacks:
                counted = {k: v for k, v in stack.counters.as_dict().items() if v}
                self._say(f"{stack.vif.name}: {counted}")


def bring_in(settings: Settings) -> None:
    """Import what `begin_rest` will import."""
    wanted = ["certificates", "secure"] if settings.tls.port or settings.tls.dot_port else []
    if wanted and settings.acme.directory is not None:
        wanted += ["acme", "overlay"]
    if settings.metrics.port:
        wanted.append("metrics")
    for name in wanted:
        importlib.import_module(f"appliance.parts.{name}")


def secure_parts(
    settings: Settings, web: Web, authority: Authority, certificates: Certificates | None = None
) -> list[Part]:
    """The parts with TLS in them; OpenSSL is imported only if they are wanted.

    `certificates`: made earlier, as workers have them in common.
    """
    if not (settings.tls.port or settings.tls.dot_port):
        return []
    from appliance.parts.certificates import Certificates
    from appliance.parts.secure import Secure

    if certificates is None:
        certificates = Certificates(settings)
    web.hooks.update(certificates.hooks)
    parts: list[Part] = [certificates, Secure(settings, certificates, web, authority)]
    if settings.acme.directory is not None:
        from appliance.parts.acme import Keeper
        from appliance.parts.overlay import Overlay

        keeper = Keeper(settings, certificates, Overlay(authority.catalog, authority.tell))
        web.hooks.update(keeper.hooks)
        parts.append(keeper)
    return parts
