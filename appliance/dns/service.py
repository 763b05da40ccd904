"""Drives an `Authority` on a loop: disk, timers, NOTIFY, transfers from primaries, reloads.

What may take long (waiting for the disk, reading and rendering zones) is done by a thread; what
changes the catalog is done on the loop, between two queries. How streams and datagrams are made is
given by the caller, so that primaries are reached through asyncio's transports or our own stack's.

Imports asyncio; never `net`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from appliance.dns import names
from appliance.dns.authority import FEW, Authority
from appliance.dns.conversation import Conversations
from appliance.dns.copies import Copy, Found
from appliance.dns.denial import link
from appliance.dns.edit import Edited, apply_all
from appliance.dns.errors import (
    DnsError,
    LocalError,
    Problem,
    SenselessError,
    WireError,
    ZoneError,
)
from appliance.dns.forward import carry
from appliance.dns.incoming import Incoming, Result, UpToDate, Whole
from appliance.dns.journal import Mark
from appliance.dns.notify import Notifier
from appliance.dns.protocol import DnsNotifyProtocol
from appliance.dns.reload import LoadedZones
from appliance.dns.restore import fold
from appliance.dns.secondary import Primary, Secondary
from appliance.dns.serial import Difference
from appliance.dns.updates import Answered, Kept, Updates
from appliance.dns.zone import Zone, collector_paused
from appliance.files import write_whole

WRITE_BACK: Final = 1.0
"""Seconds from an update until the master file has it: many updates make one change there."""
CONVERSATIONS: Final = 10
"""Conversations with primaries at once: each may hold a zone."""

# What reads and writes master files brings dnspython with it, so it is imported when it is used.


Connect = Callable[..., Awaitable[tuple[Any, Any]]]
"""Like `loop.create_connection`: factory, host, port."""
Secure = Callable[[Callable[[], asyncio.Protocol], Primary], Awaitable[tuple[Any, Any]]]
"""Makes a stream under TLS to a primary that has shown who it is, and the protocol above it."""
Endpoint = Callable[[Callable[[], asyncio.DatagramProtocol]], Awaitable[Any]]
"""Makes an endpoint on any port."""


class Service:
    """The tasks around an authority."""

    def __init__(
        self,
        authority: Authority,
        *,
        random: Random,
        connect: Connect | None = None,
        endpoint: Endpoint | None = None,
        secure: Secure | None = None,
        write_back: float = WRITE_BACK,
    ) -> None:
        """Without `connect` and `endpoint`, asyncio's own sockets are used.

        Without `secure`, primaries that want TLS are not reached.
        """
        self.authority = authority
        self.current = authority.current
        """The catalog to ask; with `update`, what protocols want of a holder. A plain attribute,
        since every query reads it; an authority that has begun edits its catalog in place."""
        self._random = random
        self._connect = connect
        self._endpoint = endpoint
        self._secure = secure
        self._write_back = write_back
        self._tasks: set[asyncio.Task[None]] = set()
        self._commits: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._notify: DnsNotifyProtocol | None = None
        self._notify_end: Any = None
        self._writing: dict[bytes, asyncio.TimerHandle] = {}
        self._copies: dict[bytes, Copy] = {}
        self._saving: dict[bytes, asyncio.Future[None]] = {}
        self._talking = 0
        self._due: deque[Secondary] = deque()
        """Secondaries that wait for room for a conversation."""
        self._conversations = Conversations(self._reach)
        self._reloading = asyncio.Lock()
        self._ended = False

    def reach(
        self, connect: Connect | None, endpoint: Endpoint | None, secure: Secure | None = None
    ) -> None:
        """Talk to other servers this way, as in `Service(...)`; before `begin`."""
        self._connect = connect
        self._endpoint = endpoint
        self._secure = secure

    async def _reach(
        self, factory: Callable[[], asyncio.Protocol], primary: Primary
    ) -> tuple[Any, Any]:
        """A stream to a primary, in the way that it is to be reached, and no other."""
        if primary.tls is None:
            connect = self._connect or asyncio.get_running_loop().create_connection
            return await connect(factory, primary.address, primary.port)
        if self._secure is None:
            raise LocalError("there is no TLS here")
        return await self._secure(factory, primary)

    async def begin(self) -> None:
        """Load what is on the disk of other people's zones, and begin to keep them fresh."""
        authority = self.authority
        self.current = authority.current
        authority.changed = self._changed
        authority.forgotten = self._forgotten
        authority.updates.hand_on = self._hand_on
        if authority.options.notifier is not None:
            await self._open_notify(authority.options.notifier)
        configured = dict(authority.secondaries)
        for secondary in configured.values():
            await self._load(secondary)
        for origin, secondary in list(authority.secondaries.items()):
            if configured.get(origin) is not secondary:
                await self._load(secondary)  # what the catalogs on the disk have brought
        for zone in list(authority.current.zones.by_origin.values()):
            self._changed(zone)
        for kept in authority.kept.values():
            if kept.dirty:
                self._write_soon(kept)
        # Not before: a catalog would have its members sent while they are still being read.
        authority.stirred = self._stir
        self._stir()

    async def _open_notify(self, notifier: Notifier) -> None:
        def factory() -> DnsNotifyProtocol:
            return DnsNotifyProtocol(notifier)

        if self._endpoint is not None:
            end, protocol = await self._endpoint(factory)
        else:
            loop = asyncio.get_running_loop()
            end, protocol = await loop.create_datagram_endpoint(factory, ("0.0.0.0", 0))  # noqa: S104
        self._notify_end, self._notify = end, protocol

    def _changed(self, zone: Zone) -> None:
        if self._notify is not None:
            self._notify.changed(zone)
        kept = self.authority.kept.get(zone.origin)
        if kept is not None and kept.dirty:
            self._write_soon(kept)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Updates.

    def update(self, message: bytes, peer: Any, reply: Callable[[bytes], None]) -> None:
        """Take an UPDATE, and see that the disk has it."""
        self.authority.update(message, peer, reply)
        if self.authority.updates.waiting and self._commits is None:
            self._commits = self._spawn(self._commit())

    async def _commit(self) -> None:
        """Write what waits, again and again until nothing does."""
        authority = self.authority
        loop = asyncio.get_running_loop()
        try:
            while (batch := authority.commit()) is not None:
                failed = False
                try:
                    await loop.run_in_executor(None, Updates.sync, batch)
                except OSError as error:
                    failed = True
                    authority.say(f"error: the journal: {error.strerror}")
                authority.committed(batch, failed)
        finally:
            self._commits = None

    def _hand_on(self, origin: bytes, message: bytes, answered: Answered) -> None:
        self._spawn(self._carry(origin, message, answered))

    async def _carry(self, origin: bytes, message: bytes, answered: Answered) -> None:
        """Bring an update to a zone's primaries, and the answer to whoever waits for it."""
        secondary = self.authority.secondaries.get(origin)
        answer: bytes | None = None

        def failed(primary: Primary, why: str) -> None:
            self.authority.say(f"warning: an update of {names.file_name(origin)} was not handed on "
                               f"to {primary.address} port {primary.port}: {why}")  # fmt: skip

        try:
            if secondary is not None:
                answer = await carry(message, secondary.primaries, self._reach, failed)
        finally:
            answered(answer)

    # Master files.

    def _write_soon(self, kept: Kept) -> None:
        origin = kept.zone.origin
        if origin not in self._writing and not self._ended:
            loop = asyncio.get_running_loop()
            wait = 0.0 if kept.journal is not None and kept.journal.full else self._write_back
            self._writing[origin] = loop.call_later(wait, lambda: self._spawn(self._write(origin)))

    async def _write(self, origin: bytes) -> None:
        """Bring a master file up to date."""
        async with self._reloading:
            self._writing.pop(origin, None)
            kept = self.authority.kept.get(origin)
            if kept is None or not kept.dirty or kept.journal is None:
                return
            await self._write_zone(kept)
        if kept.dirty:
            self._write_soon(kept)

    async def _write_zone(self, kept: Kept) -> None:
        authority = self.authority
        zone = kept.zone
        loop = asyncio.get_running_loop()
        assert kept.journal is not None
        try:
            texts, digest, whole = await loop.run_in_executor(None, _rewritten, zone, kept.digest)
            if digest:
                # A mark comes first: whatever file a crash leaves, the journal knows it.
                kept.journal.append(Mark(digest, zone.serial))
                await loop.run_in_executor(None, kept.journal.sync)
                for name, text in texts.items():
                    await loop.run_in_executor(
                        None, write_whole, Path(name), text.encode("utf-8", "surrogateescape")
                    )
                kept.digest = digest
                kept.journal.append(Mark(digest, zone.serial, there=True))
                kept.dirty = kept.zone is not zone
                if whole:
                    authority.say(f"warning: {zone.name}: its file could not be edited and was "
                                  "written anew")  # fmt: skip
                if kept.journal.bulky and kept.staged is None and not kept.dirty:
                    kept.journal.compact()
            else:
                authority.say(f"{zone.files[0]} was changed by somebody; it is read again first")
                await self._read_again(kept)
        except (OSError, DnsError) as error:
            authority.say(f"error: {zone.name} cannot be written back: {error}")
            kept.dirty = False  # until the next update; the journal has everything
            if kept.journal.bulky and kept.staged is None:
                await self._fold(kept)

    async def _fold(self, kept: Kept) -> None:
        """Keep the journal of a file that cannot be written from growing for ever."""
        zone, journal = kept.zone, kept.journal
        assert journal is not None
        with contextlib.suppress(OSError, DnsError):
            read = await self._read(kept)
            # Not if somebody has edited it: that would be undone.
            if kept.staged is None and kept.zone is zone and read.digest == kept.digest:
                fold(zone, journal, read)

    async def _read_again(self, kept: Kept) -> None:
        zone = await self._read(kept)
        if zone.origin == kept.zone.origin:
            self.authority.reread(kept, zone)

    @staticmethod
    async def _read(kept: Kept) -> Zone:
        """What a master file says now; OSError, ZoneError."""
        from appliance.dns.zonefile import read_file

        path = Path(kept.zone.files[0])
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lambda: read_file(path, root=path.parent))

    # Reload.

    async def reload(self, loaded: LoadedZones) -> list[Problem]:
        """Serve files that were loaded again; the problems, and what was done about them."""
        authority = self.authority
        loop = asyncio.get_running_loop()
        async with self._reloading:
            loaded = authority.unchanged(loaded)
            served = [kept.zone for kept in authority.kept.values()]
            plan = await loop.run_in_executor(None, authority.plan, loaded, served)
            # Large zones are rendered by a thread, too.
            small = {
                one.new[0].lower()
                for one in plan.changes
                if len(one.removed) + len(one.added) <= FEW
            }
            big = [zone for zone in plan.news if len(zone.nodes) > FEW and zone.origin not in small]
            rendered = {
                zone.origin: await loop.run_in_executor(None, authority.current.render_zone, zone)
                for zone in big
            }
            problems = authority.install(plan, loaded, rendered)
        for kept in authority.kept.values():
            if kept.dirty:
                self._write_soon(kept)
        return problems

    # Secondaries.

    def _stir(self) -> None:
        """Look at the secondaries now, and set the timer for the next."""
        if self._ended:
            return
        loop = asyncio.get_running_loop()
        authority = self.authority
        now = authority.clock()
        for secondary in authority.agenda.due(now):
            authority.expire(secondary, now)
            if not (secondary.queued or secondary.busy) and secondary.is_due(now):
                secondary.queued = True
                self._due.append(secondary)
            authority.agenda.plan(secondary)
        while self._due and self._talking < CONVERSATIONS:
            secondary = self._due.popleft()
            secondary.queued = False
            if authority.secondaries.get(secondary.origin) is secondary:
                self._talking += 1
                self._spawn(self._talk(secondary, secondary.begin()))
                authority.agenda.plan(secondary)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = authority.agenda.deadline()
        if deadline < math.inf:
            self._timer = loop.call_later(max(deadline - now, 0.001), self._stir)

    async def _talk(self, secondary: Secondary, primary: Primary) -> None:
        """One conversation, and what comes of it."""
        authority = self.authority
        before = secondary.zone
        try:
            result = await self._what_is_new(secondary, primary, before)
            if isinstance(result, UpToDate) or result is None:
                secondary.confirmed(authority.clock())
                await self._confirm(secondary)
            elif isinstance(result, Whole):
                await self._whole(secondary, result)
            else:
                try:
                    await self._differences(secondary, before, result)
                except LocalError as error:
                    # The primary's idea of our version is not ours: have it all.
                    authority.say(f"warning: IXFR from {primary.address} does not fit: {error}")
                    result = (await self._converse(secondary, primary, None)).result
                    if not isinstance(result, Whole):
                        raise WireError("no whole zone came") from None
                    await self._whole(secondary, result)
        except (OSError, DnsError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            secondary.failed(authority.clock(), f"{primary.address}: {why}")
            name = names.file_name(secondary.origin)
            authority.say(f"warning: {name} from {primary.address} port {primary.port}: {why}")
        finally:
            secondary.finished(authority.clock())
            self._talking -= 1
            if authority.secondaries.get(secondary.origin) is secondary:
                authority.agenda.plan(secondary)
            self._stir()

    async def _what_is_new(
        self, secondary: Secondary, primary: Primary, before: Zone | None
    ) -> Result | None:
        """What a primary has that is newer than a version: differences, or else all of it."""
        try:
            return (await self._converse(secondary, primary, before)).result
        except SenselessError as error:
            # They would make as little sense the next time.
            self.authority.say(f"warning: IXFR from {primary.address} makes no sense: {error}")
            return (await self._converse(secondary, primary, None)).result

    async def _converse(
        self, secondary: Secondary, primary: Primary, before: Zone | None
    ) -> Incoming:
        def make() -> Incoming:
            return Incoming(
                before.apex.owner if before is not None else secondary.origin,
                before.serial if before is not None else None,
                key=primary.key,
                random=self._random,
                wall=self.authority.wall,
                padded=primary.tls is not None,
            )

        return await self._conversations.converse(primary, make)

    async def _whole(self, secondary: Secondary, result: Whole) -> None:
        authority = self.authority
        loop = asyncio.get_running_loop()
        if result.left_out:
            authority.say(f"warning: {names.file_name(secondary.origin)}: {result.left_out} "
                          "records lay outside the zone")  # fmt: skip

        def finish() -> tuple[Zone, Any]:
            with collector_paused():
                zone = _bounded(result.builder.finish())
                return zone, authority.current.render_zone(zone)

        zone, rendered = await loop.run_in_executor(None, finish)
        if authority.take_over(secondary, zone, (), rendered):
            await self._save(secondary, zone)

    async def _differences(
        self, secondary: Secondary, before: Zone | None, changes: tuple[Difference, ...]
    ) -> None:
        assert before is not None
        loop = asyncio.get_running_loop()

        def finish() -> tuple[Edited, Any]:
            edited = apply_all(before, changes)
            zone = _bounded(edited.zone)
            if len(edited.names) > FEW:
                return edited, self.authority.current.render_zone(zone)
            link(zone, before, edited.names)  # rather than on the loop
            return edited, None

        edited, rendered = await loop.run_in_executor(None, finish)
        if self.authority.take_over(secondary, edited.zone, changes, rendered, edited):
            await self._save(secondary, edited.zone, changes)

    # Other people's zones on our disk.

    def _copy(self, origin: bytes) -> Copy | None:
        state = self.authority.options.state
        if origin not in self._copies and state is not None:
            self._copies[origin] = Copy(state / "secondary", origin)
        return self._copies.get(origin)

    def _forgotten(self, origin: bytes) -> None:
        """RFC 9432 §5.6: nothing of it must come back when another zone has the name."""
        copy = self._copy(origin)
        if copy is not None:
            del self._copies[origin]
            with contextlib.suppress(OSError):
                copy.forget()

    async def _save(
        self, secondary: Secondary, zone: Zone, changes: tuple[Difference, ...] = ()
    ) -> None:
        origin = secondary.origin
        copy = self._copy(origin)
        if copy is None:
            return
        # Of another zone of that name, which a catalog has listed before.
        while (other := self._saving.get(origin)) is not None:
            await asyncio.wait([other])
        loop = asyncio.get_running_loop()
        saving = self._saving[origin] = loop.run_in_executor(None, copy.save, zone, changes)
        try:
            await saving
            copy.problem = ""
        except OSError as error:
            why = error.strerror or str(error)
            if why != copy.problem:
                name = names.file_name(origin)
                self.authority.say(f"error: {name} was not kept on the disk: {why}")
            copy.problem = why
        finally:
            del self._saving[origin]

    async def _confirm(self, secondary: Secondary) -> None:
        """Let the disk know that a primary has nothing newer, or else what there is."""
        copy, zone = self._copy(secondary.origin), secondary.zone
        if copy is None or zone is None:
            return
        with contextlib.suppress(OSError):
            if copy.confirm(zone.serial):
                return
        await self._save(secondary, zone)

    async def _load(self, secondary: Secondary) -> None:
        authority = self.authority
        copy = self._copy(secondary.origin)
        if copy is None:
            return

        def read() -> Found | None:
            found = copy.load()
            if found is not None:
                link(_bounded(found.zone))  # sorted here, as in `_differences`
            return found

        try:
            found = await asyncio.get_running_loop().run_in_executor(None, read)
        except (OSError, WireError, ZoneError) as error:
            authority.say(f"warning: {names.file_name(secondary.origin)} on the disk cannot be "
                          f"used: {error}")  # fmt: skip
            return
        if found is None:
            return
        zone = found.zone
        # Meanwhile a primary may have sent a newer one, or a catalog may list it no more.
        if authority.secondaries.get(zone.origin) is secondary and secondary.zone is None:
            authority.follow(secondary, zone, max(0.0, authority.wall() - found.confirmed))
            # NOTIFY went to nobody meanwhile, and a crash may have taken the last version.
            secondary.ask_now(authority.clock())
            authority.stir(secondary)
            for change in found.changes:
                authority.options.transfers.changed(change)

    # Ending.

    async def end(self) -> None:
        """Write back what is changed, and stop."""
        if self._timer is not None:
            self._timer.cancel()
        if self._commits is not None:
            await asyncio.wait([self._commits])
        for timer in self._writing.values():
            timer.cancel()
        async with self._reloading:  # what is being written is not to be written twice
            for kept in list(self.authority.kept.values()):
                if kept.dirty and kept.journal is not None:
                    await self._write_zone(kept)
        self._ended = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._conversations.close()
        if self._notify_end is not None:
            self._notify_end.close()
        for kept in self.authority.kept.values():
            if kept.journal is not None:
                kept.journal.close()


def _bounded(zone: Zone) -> Zone:
    """The same zone; WireError if each answer from it would cost too much, as files' may not."""
    from appliance.dns.checks import too_costly

    complaint = too_costly(zone)
    if complaint is not None:
        raise WireError(complaint)
    return zone


def _rewritten(zone: Zone, digest: bytes) -> tuple[dict[str, str], bytes, bool]:
    """New texts, the digest that the files will have, and whether all was written anew.

    No digest: the files are not what they were, so they must be read first.
    """
    from appliance.dns.writeback import Rewriter
    from appliance.dns.zonefile import digest_of

    if digest_of(zone.files) != digest:
        return {}, b"", False
    main = Path(zone.files[0])
    rewriter = Rewriter(zone, main, main.parent)
    texts = rewriter.texts()
    return texts, rewriter.digest(texts), rewriter.whole
