"""One of several workers: an appliance on one queue of an interface, beside others like it.

Number 0, the first, is the host towards the network: it finds addresses, answers ARP, discovery and
pings, changes zones, talks to other servers and authorities, and has the control socket and the
metrics. The others follow it in all of this, and serve HTTP, DNS and TLS like it.

`family` has what they have in common, and `workers` forks them off. May import everything.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from appliance.app import COLLECT, Appliance, event_loop, secure_parts
from appliance.family import Family, settings_of
from appliance.mesh import Post, blob_of
from appliance.net.link import Ipv6Settings
from appliance.net.steer import Addressing, SameSecret, Steer, addressing, follow
from appliance.net.tcb import TcpSettings
from appliance.net.transport import Stack
from appliance.net.vif.tap import Tap
from appliance.parts.authority import Authority
from appliance.parts.metrics import Metrics
from appliance.parts.mirror import FIRST, Follower, Publisher
from appliance.parts.observer import Counts, resident

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.content import Content
    from appliance.net.transport_watch import Seen
    from appliance.net.vif.base import Vif
    from appliance.parts.acme import Keeper
    from appliance.parts.base import Part
    from appliance.parts.web import Web
    from appliance.trace.record import TraceFile

logger = logging.getLogger("appliance")

EVERY: Final = 1.0
"""Seconds between two looks at what changes without a word: routes, zones that expire, counters."""
CONFIRMED: Final = 15.0
"""Seconds beyond `net.wait` that a new first worker has to find again what the one before it had:
a lease is asked for and probed in some ten (RFC 2131 §4.4.1, RFC 5227 §1.1)."""
RETRY: Final = 0.01
"""Seconds until letters that found no room are tried again."""


class Worker(Appliance):
    """A running worker."""

    def __init__(self, family: Family, index: int) -> None:
        self.family = family
        self.index = index
        self.post = Post(family.mesh, index)
        self.steer: Steer | None = None
        self._publisher: Publisher | None = None
        self._told: Addressing | None = None
        self._inherited: list[Any] = []  # addresses and routes of a first worker before this
        self._timer: asyncio.TimerHandle | None = None
        self._watched = False  # somebody captures
        self._seen: Seen = _nobody
        self._unwatch: Callable[[], None] | None = None
        self._flushing = False
        self._prepared: tuple[int, Content] | None = None
        self._preparing = 0  # the number of the latest reload that is wanted
        self._tasks: set[asyncio.Task[None]] = set()
        self.others: dict[int, Counts] = {}
        """The latest counters of the followers, at the first worker."""
        self._gone: list[Counts] = []  # what those had counted that are no more
        self._keeper: Keeper | None = None
        super().__init__(
            settings_of(family, index),
            family.say if index == FIRST else _silent,
            family.verbose and index == FIRST,
            content=family.content,
        )
        for part in self._parts:
            if isinstance(part, Metrics):
                part.others = self._counts

    # What is made otherwise than in an appliance that is alone.

    def _authority(self) -> Authority:
        family = self.family
        if self.index == FIRST:
            return Authority(self.settings, family.content, family.say, made=family.options)
        return Follower(
            self.settings, family.content, self._warn, made=family.options, post=self.post
        )

    def _warn(self, line: str) -> None:
        self.family.say(f"worker {self.index}: {line}")

    def _others(self, web: Web, authority: Authority) -> list[Part]:
        self._web, self._dns = web, authority
        if self.family.certificates is not None:
            self.family.certificates.makes = self.index == FIRST
        parts = secure_parts(self.settings, web, authority, self.family.certificates)
        acme = self.family.settings.acme
        if acme.directory is not None and self.family.certificates is not None:
            self._keeper = self._kept_by(parts, authority)
        return parts

    def _kept_by(self, parts: Sequence[Part], authority: Authority) -> Keeper:
        """The keeper of the certificate: at work in the first worker, a reader in the others."""
        from appliance.parts.acme import Keeper
        from appliance.parts.overlay import Overlay

        certificates = self.family.certificates
        assert certificates is not None
        if self.index != FIRST:
            return Keeper(self.family.settings, certificates, Overlay(authority.catalog))
        keeper = next(part for part in parts if isinstance(part, Keeper))
        keeper.on_proofs = self._proofs
        keeper.on_new = lambda: self._tell_followers("certificate")
        return keeper

    def _proofs(self, shown: bool) -> None:
        """Proofs for a certificate authority are there, or no longer."""
        if self._publisher is not None:
            self._publisher.look()  # it asks whichever worker, and at once
        # Others are on the first worker's listeners: new connections go there meanwhile.
        self._tell_followers("alone", shown)

    def _tell_followers(self, *words: Any) -> None:
        for other in range(1, self.family.count):
            self.post.send(other, *words)

    def _open_cable(self) -> tuple[Vif, Vif | None]:
        return self._recorded(self.family.queues[self.index][0], self.settings.net.pcap), None

    def _open_more(self) -> list[Vif]:
        pcap, queues = self.settings.net.pcap, self.family.queues[self.index][1:]
        return [
            self._recorded(queue, pcap and pcap.with_stem(f"{pcap.stem}.{queue.name}"))
            for queue in queues
        ]

    def _recorded(self, queue: Vif, pcap: Path | None) -> Vif:
        if self.index == FIRST and isinstance(queue, Tap):
            queue.on_lost = logger.warning
        if pcap is None:
            return queue
        from appliance.net.vif.pcap import Recorder

        self._keep_recording(pcap)
        return Recorder(queue, pcap, clock=time.time_ns, warn=logger.warning)

    def _tracing(self) -> TraceFile | None:
        if self.settings.net.trace is not None:
            self._keep_recording(self.settings.net.trace)
        return super()._tracing()

    def _keep_recording(self, path: Path) -> None:
        """What a worker before this has recorded stays, under a number: perhaps why it died."""
        if not self.family.banner:
            from appliance.net.vif.pcap import set_aside

            set_aside(path)

    async def _stack(
        self,
        vif: Vif,
        addresses: Sequence[str],
        gateways: Sequence[str],
        *,
        ipv6: Ipv6Settings | None = None,
        dhcp: bool = False,
    ) -> Stack:
        secret = SameSecret(self.family.secret)
        chosen = TcpSettings(**vars(self.settings.tcp))
        stack = Stack(vif, ipv6=ipv6, dhcp=dhcp, tcp=chosen, tcp_random=secret)
        self._stacks.append(stack)
        tcp, udp = self.family.ports()
        self.steer = Steer(
            stack.host,
            self.index,
            self.family.count,
            tcp=tcp,
            udp=udp,
            pass_on=self.family.mesh.pass_on,
        )
        loop = asyncio.get_running_loop()
        await stack.start()
        loop.add_reader(self.family.mesh.frames[self.index][0], self._frames)
        if self.index == FIRST:
            stack.host.network.on_change.append(self._tell_addressing)
            self._seen = stack.share_watching(self._watch)
            loop.add_reader(self.family.mesh.seen[0], self._shown)
        return stack

    def _linked(self, stack: Stack) -> None:
        """Be who the workers were, before this one finds out for itself."""
        if self.family.addressing is not None:
            network = stack.host.network
            follow(network, self.family.addressing)
            if self.index == FIRST:
                self._inherited = [*network.addresses.local.values(), *network.routes]

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._listen_to_signals()
        if self.index == FIRST:
            loop.add_reader(self.post.fileno(), self._letters)
            await super()._begin()
            if self._inherited:
                loop.call_later(self.settings.net.wait + CONFIRMED, self._let_go)
            self._publisher = Publisher(self._dns, self.post)
            # Whatever a first worker before this was at.
            self._tell_followers("alone", False)
            self._tell_followers("watch", False)
        else:
            stack = await self._follow_links()
            for part in self._parts:
                await part.begin(stack)
            loop.add_reader(self.post.fileno(), self._letters)
        self._tick()

    async def _follow_links(self) -> Stack:
        """A stack on all links, whose addresses the first worker finds."""
        net = self.settings.net
        tracing = self._tracing()
        vifs = [self._open_cable()[0], *self._open_more()]
        if tracing is not None:
            vifs = [tracing.around(vif) for vif in vifs]
        followed = Ipv6Settings(self.family.secret, autonomous=False, detect=0, follows=True)
        ipv6 = [followed if cable.ipv6 != "off" else None for cable in (net, *net.more)]
        stack = await self._stack(vifs[0], (), (), ipv6=ipv6[0])
        for vif, settings in zip(vifs[1:], ipv6[1:], strict=True):
            stack.add_vif(vif, ipv6=settings)
        self._linked(stack)
        if tracing is not None:
            stack.host.on_turn = tracing.trace.turn
        return stack

    def _let_go(self) -> None:
        """Give up what a first worker before this had found, and this one has not."""
        network = self._stacks[0].host.network
        gone = {id(one) for one in self._inherited}
        self._inherited.clear()
        network.routes.remove(lambda route: id(route) in gone)
        for address, own in list(network.addresses.local.items()):
            if id(own) in gone:
                network.address_lost(address)

    def _introduce(self) -> None:
        if self.index == FIRST and self.family.banner:
            super()._introduce()

    def _settle_down(self) -> None:
        # What was there before the fork stays where it is: moving it between the collector's lists
        # would make a copy of every page of it.
        gc.freeze()
        gc.set_threshold(*COLLECT)
        gc.enable()
        self.post.send(self.family.supervisor, "ready", self.index)

    def _told_to_reload(self) -> None:
        self.post.send(self.family.supervisor, "reload")

    async def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await super()._end()
        self.post.flush()

    # Frames and letters.

    def _frames(self) -> None:
        messages = self.family.mesh.frames_for(self.index)
        if messages and self.steer is not None:
            self.steer.taken(messages, time.monotonic())
            self._stacks[0].host.wake()

    def _letters(self) -> None:
        for words, fd in self.post.receive():
            try:
                self._letter(words, fd)
            except Exception:
                logger.exception("a letter of another worker: %s", words[0])
        self._flush()

    def _flush(self) -> None:
        """Send what waits, soon; a worker that lets too much wait is told of."""
        self._flushing = False
        done = self.post.flush()
        while self.post.stuck:
            self.post.send(self.family.supervisor, "stuck", self.post.stuck.pop())
        if not done and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(RETRY, self._flush)

    def _letter(self, words: tuple[Any, ...], fd: int) -> None:
        kind, *rest = words
        if kind in ("prepare", "serve", "drop"):
            self._reload_step(kind, rest[0], fd)
        elif self.index == FIRST:
            self._letter_to_first(kind, rest, fd)
        elif isinstance(self._dns, Follower):
            mirror = self._dns.mirror
            if kind == "zone":
                mirror.news(rest[0], rest[1], fd)
            elif kind == "answer":
                mirror.answered(*rest)
            elif kind == "who":
                mirror.introduce()
            elif kind == "addressing":
                follow(self._stacks[0].host.network, rest[0])
            elif kind == "alone" and self.steer is not None:
                self.steer.leave(self._web_ports() if rest[0] else ())
            elif kind == "watch":
                self._watch_here(rest[0])
            elif kind == "certificate" and self._keeper is not None:
                self._keeper.look_again()

    def _web_ports(self) -> list[int]:
        return [self.settings.http.port, self.settings.tls.port]

    def _letter_to_first(self, kind: str, rest: list[Any], fd: int) -> None:
        if kind == "counters":
            self._counted(*rest)
            return
        publisher = self._publisher
        if publisher is None:
            if fd >= 0:
                os.close(fd)
            return  # followers are asked who they are when there is one
        if kind == "hello":
            publisher.hello(rest[0], pickle.loads(blob_of(fd)))  # noqa: S301 - from a worker
            if self._told is not None:
                self.post.send(rest[0], "addressing", self._told)
            if self._watched:
                self.post.send(rest[0], "watch", True)
        elif kind == "update":
            publisher.update(*rest)
        elif kind == "notify":
            publisher.notified(*rest)

    def _counted(self, other: int, counts: Counts) -> None:
        """A follower's counters; what one before it had counted stays counted."""
        before = self.others.get(other)
        if before is not None and before["process"]["pid"] != counts["process"]["pid"]:
            http = {k: v for k, v in before["http"].items() if k != "connections"}
            self._add_gone({**before, "http": http, "process": {}})
        self.others[other] = counts

    def _counts(self) -> list[Counts]:
        """What the metrics of the first worker are to add to what they know."""
        ours: list[Counts] = [{"net": dict(self.steer.as_dict())}] if self.steer else []
        return [*self.others.values(), *self._gone, *ours]

    def _add_gone(self, counts: Counts) -> None:
        if not self._gone:
            self._gone.append({})
        (total,) = self._gone
        for room, values in counts.items():
            sums = total.setdefault(room, {})
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value

    # Those who watch frames ask the first worker, and want those of all.

    def _watch(self, on: bool) -> None:
        self._watched = on
        self._tell_followers("watch", on)

    def _shown(self) -> None:
        for frame, link in self.family.mesh.shown():
            self._seen(frame, link)

    def _watch_here(self, on: bool) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if on:
            self._unwatch = self._stacks[0].watch(self.family.mesh.show)

    # Once a second.

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._tick)
        if self.index == FIRST:
            self._tell_addressing()
            if self._publisher is not None:
                self._publisher.look()
        else:
            self.post.send(FIRST, "counters", self.index, self.counters())
        self._flush()

    def _tell_addressing(self) -> None:
        """Have the others be who we are now; while nothing is found yet they stay who they were."""
        now = addressing(self._stacks[0].host.network)
        if now == self._told or (self._told is None and not any(on.addresses for on in now)):
            return
        self._told = now
        for other in range(1, self.family.count + 1):
            self.post.send(other, "addressing", now)

    def counters(self) -> Counts:
        """What this worker has counted, by room."""
        http: dict[str, float] = {}
        for server in self._web.http:
            for name, value in server.counters().items():
                http[name] = http.get(name, 0) + value
        versions: dict[str, float] = {}
        for server in self._web.http:
            for version, count in server.tally.versions.items():
                versions[version] = versions.get(version, 0) + count
        host = self._stacks[0].host
        certificates = self.family.certificates
        times = os.times()
        return {
            "http": http,
            "versions": versions,
            "dns": dict(self._dns.server.counters.as_dict()),
            "tls": dict(certificates.counters.as_dict()) if certificates is not None else {},
            "net": {**host.counters.as_dict(), **(self.steer.as_dict() if self.steer else {})},
            "process": {
                "worker": self.index,
                "pid": os.getpid(),
                "cpu": times.user + times.system,
                "memory": resident(),
                "flows": len(host.tcp.flows),
            },
        }

    # A reload: everybody prepares, and then everybody serves it, or nobody.

    def _reload_step(self, kind: str, number: int, fd: int) -> None:
        if kind == "prepare":
            task = asyncio.get_running_loop().create_task(self._prepare(number, fd))
        elif kind == "serve" and self._prepared is not None and self._prepared[0] == number:
            content = self._prepared[1]
            self._prepared = None
            task = asyncio.get_running_loop().create_task(self._serve(number, content))
        else:
            self._prepared = None
            if self._preparing == number:
                self._preparing = 0
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepare(self, number: int, fd: int) -> None:
        self._preparing = number
        well = True
        try:
            content = await asyncio.get_running_loop().run_in_executor(
                None, lambda: pickle.loads(blob_of(fd))  # noqa: S301 - from the supervisor
            )  # fmt: skip
            if self._preparing == number:  # it was not given up meanwhile
                self._prepared = number, replace(content, catalog=self._content.catalog)
        except Exception:
            logger.exception("worker %d cannot take what was loaded", self.index)
            well = False
        self.post.send(self.family.supervisor, "prepared", self.index, number, well)

    async def _serve(self, number: int, content: Content) -> None:
        try:
            await self._serve_now(content)
        except Exception:
            logger.exception("worker %d: reload", self.index)
        self.post.send(self.family.supervisor, "served", self.index, number)


def _nobody(_frame: bytes, _link: str) -> None:
    """Nobody watches."""


def _silent(_line: str) -> None:
    """The first worker says it for all."""


def _brought_up_to_date(family: Family, again: bool) -> Content:
    """What a worker begins with; one that comes later finds what was loaded last."""
    content, settings = family.content, family.settings
    catalog: Any = content.catalog  # none after a reload
    if again and (settings.dns.update or settings.dns.watch):
        # The master files have changed since; the journals fit what they are now.
        from appliance.dns import load_zones

        content, catalog = replace(content, loaded=load_zones(settings.dns.zones)), None
    if catalog is None:
        from appliance.dns import Catalog

        zones = content.loaded.zones
        made = Catalog(zones, udp_size=settings.dns.udp_size, minimal=settings.dns.minimal)
        content = replace(content, catalog=made)
    return content


def run_worker(family: Family, index: int, lifeline: int, *, again: bool) -> None:
    """Be a worker until told to end; returns when that went well.

    `lifeline` is readable when the supervisor is gone; `again`: others have been here before.
    Raises StartError.
    """
    family.content = _brought_up_to_date(family, again and index == FIRST)
    family.banner = not again

    async def serve() -> None:
        worker = Worker(family, index)
        loop = asyncio.get_running_loop()

        def orphaned() -> None:
            loop.remove_reader(lifeline)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(lifeline, orphaned)
        await worker.run()

    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(serve())
