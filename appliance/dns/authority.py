"""A whole name server without sockets: zones, their changes, their secondaries and primaries.

    files ── loaded, and what the journals have beyond them ─┐
    UPDATE ── journal, disk ─────────────────────────────────┼─ catalog ── NOTIFY, IXFR
    primaries ── transfers ──────────────────────────────────┘

`Authority` owns the catalog and is the one who changes it; every change goes the same way (`_step`
or `_put`): catalog, history, NOTIFY. Sans-I/O but for journals; `service` drives it on a loop.
Imports the leaves of this package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from appliance.dns import members, names
from appliance.dns.agenda import Agenda
from appliance.dns.answer import Catalog
from appliance.dns.consts import DEFAULT_UDP, OPCODE_NOTIFY, OPCODE_UPDATE
from appliance.dns.counters import Counters
from appliance.dns.edit import Edited, apply, apply_all
from appliance.dns.edns import Extensions
from appliance.dns.errors import LocalError, Problem
from appliance.dns.journal import LIMIT, Journal, Mark
from appliance.dns.members import Member
from appliance.dns.notify import Notified, Notifier
from appliance.dns.policy import Policy
from appliance.dns.prepared import Rendered
from appliance.dns.reload import LoadedZones, Reloaded, cannot_raise, reload
from appliance.dns.restore import lost_updates, restore
from appliance.dns.rrl import RateLimiter
from appliance.dns.secondary import Primary, Secondary
from appliance.dns.serial import Difference, difference, is_newer, is_same_content, successor
from appliance.dns.transfer import Grants, Transfers
from appliance.dns.updates import Batch, Kept, Reply, Step, Updates
from appliance.dns.zone import Zone
from appliance.files import sweep

FEW: Final = 1000
"""Changed records up to which a zone is edited in the catalog; more are rendered anew."""


@dataclass
class Options:
    """What a server is configured to be; all of it has a default that gives nothing away."""

    udp_size: int = DEFAULT_UDP
    minimal: bool = True
    extensions: Extensions = field(default_factory=Extensions)
    limiter: RateLimiter | None = None
    transfers: Transfers = field(default_factory=Transfers)
    notifier: Notifier | None = None
    policy: Policy = field(default_factory=Policy)
    forward: Grants = field(default_factory=Grants)
    """Whose updates of zones that we are secondary for are handed on to their primaries."""
    chaos: Mapping[bytes, bytes] = field(default_factory=dict)
    """TXT rdata by lower-cased name in class CHAOS (RFC 4892)."""
    state: Path | None = None
    """The directory of journals and of the zones of primaries; None: nothing is kept."""
    journal_limit: int = LIMIT
    secondaries: Mapping[bytes, tuple[Primary, ...]] = field(default_factory=dict)
    """Primaries by lower-cased origin."""
    catalogs: Mapping[bytes, tuple[Primary, ...]] = field(default_factory=dict)
    """Catalog zones that say of what else we are secondary (RFC 9432), and whence all that is."""
    produce: bytes | None = None
    """The name of the catalog zone of our own zones."""
    notify_from: Callable[[str], bool] = lambda _address: False
    """Addresses besides the primaries' own whose NOTIFY is heard."""


class Authority:
    """The server; `current` is the catalog to ask."""

    def __init__(
        self,
        options: Options,
        *,
        counters: Counters | None = None,
        random: Random,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """`wall` is the time of day, `clock` monotonic; `say` takes lines for the operator."""
        self.options = options
        self.counters = counters if counters is not None else Counters()
        self.say = say
        self.wall = wall
        self.clock = clock
        self._random = random
        self.kept: dict[bytes, Kept] = {}
        """Zones that we are primary of, by origin."""
        self.secondaries: dict[bytes, Secondary] = {}
        self.agenda = Agenda()
        """Which of them has something to do next."""
        self.listed: dict[bytes, tuple[bytes, Member]] = {}
        """Members of catalogs, by origin: the catalog that brought them, and what it says."""
        self.forgotten: Callable[[bytes], None] = lambda _origin: None
        """Told of zones that no catalog lists any more; `service` removes what it has of them."""
        self.changed: Callable[[Zone], None] = lambda _zone: None
        """Told of every new version; `service` sends NOTIFY."""
        self.updates = Updates(
            self.kept.get,
            self.secondaries.__contains__,
            policy=options.policy,
            forward=options.forward,
            extensions=options.extensions,
            counters=self.counters,
            today=self.today,
            udp_size=options.udp_size,
        )
        self._notified = Notified(options.extensions, self.counters)
        self.current = self._catalog(())
        for some in (options.secondaries, options.catalogs):
            for origin, primaries in some.items():
                self._follow(origin, primaries)

    def _catalog(self, zones: Iterable[Zone]) -> Catalog:
        options = self.options
        return Catalog(
            zones,
            udp_size=options.udp_size,
            minimal=options.minimal,
            counters=self.counters,
            extensions=options.extensions,
            limiter=options.limiter,
            transfers=options.transfers,
            services=self,
            clock=self.clock,
        )

    def _adopt(self, catalog: Catalog) -> None:
        """Serve from a catalog that was made elsewhere, as this server."""
        options = self.options
        catalog.equip(
            udp_size=options.udp_size,
            counters=self.counters,
            extensions=options.extensions,
            limiter=options.limiter,
            transfers=options.transfers,
            services=self,
            clock=self.clock,
        )
        self.current = catalog
        for kept in self.kept.values():
            before = catalog.zones.by_origin.get(kept.zone.origin)
            if before is kept.zone:
                continue
            change = difference(before, kept.zone) if before is not None else None
            if before is not None and change is not None and _is_small(change):
                # A serial, or a few updates: not worth rendering a large zone again.
                kept.zone = self._edit(before, change, kept.zone)
            else:
                catalog.replace(kept.zone, catalog.render_zone(kept.zone))

    def today(self) -> int:
        """The date as 20260131, for serials that are dates."""
        return int(time.strftime("%Y%m%d", time.gmtime(self.wall())))

    # What the catalog asks of us (`respond.Services`).

    def takes(self, opcode: int) -> bool:
        """NOTIFY always, UPDATE if anybody may."""
        options = self.options
        return opcode == OPCODE_NOTIFY or (
            opcode == OPCODE_UPDATE and (bool(options.policy) or bool(options.forward))
        )

    def chaos(self, name: bytes) -> bytes | None:
        """The server's own words, if it is to say any."""
        return self.options.chaos.get(name)

    def notified(self, message: bytes, peer: Any) -> bytes:
        """Hear a NOTIFY, and answer it."""
        heard, answer = self._notified.take(message, peer, self._may_notify)
        if heard is not None:
            secondary = self.secondaries[heard.zone]
            secondary.notified(self.clock(), heard.address, heard.serial)
            self.stir(secondary)
        return answer

    def stir(self, secondary: Secondary) -> None:
        """It may have something to do earlier than it said."""
        self.agenda.plan(secondary)
        self.stirred()

    stirred: Callable[[], None] = staticmethod(lambda: None)
    """Called when the agenda may have become an earlier one."""

    def _may_notify(self, origin: bytes, address: str, key: bytes | None) -> bool | None:
        """None: the zone is not one that anybody could tell us of."""
        secondary = self.secondaries.get(origin)
        if secondary is None:
            return None
        return self.options.notify_from(address) or any(
            one.address == address or (one.key is not None and one.key.name == key)
            for one in secondary.primaries
        )

    def update(self, message: bytes, peer: Any, reply: Reply) -> None:
        """Take an UPDATE; see `updates`."""
        self.updates.arrive(message, peer, reply)

    def answer_http(self, message: bytes, peer: Any = None) -> bytes | None:
        """The answer to a message that came over HTTPS (RFC 8484); UPDATE and transfers are not."""
        self.counters.https_queries += 1
        return self.current.answer(message, transport="https", peer=peer)

    # Zones from files.

    def begin(self, loaded: LoadedZones, catalog: Catalog | None = None) -> list[Problem]:
        """Serve what was loaded, with what the journals have beyond it; once, and it may take long.

        `catalog`: of just these zones, if there is one already. The problems of the files and of
        the journals.
        """
        problems = list(loaded.problems)
        self._sweep(loaded)
        for zone in loaded.zones:
            if zone.origin in self.secondaries:
                line = zone.soa.where & 0xFFFFFFFF
                message = f"{zone.name} has a file here and a primary elsewhere; the file counts"
                problems.append(Problem(zone.files[0], line, "warning", message))
                self.agenda.forget(self.secondaries.pop(zone.origin))
            self.kept[zone.origin] = self._restore(zone, problems)
        if catalog is None:
            self.current = self._catalog(kept.zone for kept in self.kept.values())
        else:
            self._adopt(catalog)
        for origin in self.secondaries:
            self.current.expire(origin)
        self._produce()
        return problems

    def _sweep(self, loaded: LoadedZones) -> None:
        """Remove what was left beside files by a process that was killed while it wrote them."""
        if self.options.state is not None:
            folders = {Path(file).parent for zone in loaded.zones for file in zone.files}
            for folder in (
                *folders,
                self.options.state / "journals",
                self.options.state / "secondary",
            ):
                sweep(folder)

    def journal_path(self, origin: bytes) -> Path | None:
        """Where a zone's journal is, if there are any."""
        if self.options.state is None:
            return None
        return self.options.state / "journals" / f"{names.file_name(origin)}.journal"

    def _restore(self, zone: Zone, problems: list[Problem]) -> Kept:
        """A zone as its journal says it was served last."""
        path = self.journal_path(zone.origin)
        if path is None or not zone.files:
            return Kept(zone, None)
        journal = Journal(path, limit=self.options.journal_limit)
        kept, changes = restore(zone, journal, self.today(), problems)
        for change in changes:
            self.options.transfers.changed(change)
        return kept

    # Every change of a zone that is served.

    def _step(self, step: Step) -> None:
        """A zone goes on by a difference, unless its file has gone meanwhile."""
        zone = step.edited.zone
        if self.kept.get(zone.origin) is not step.kept:
            return
        step.kept.zone = zone
        step.kept.dirty = True
        self.current.edit(step.edited)
        self._spread(zone, step.change)

    def _put(self, zone: Zone, change: Difference | None, rendered: Rendered | None = None) -> None:
        """A zone is there, in a version that may have little to do with the one before."""
        before = self.current.zones.by_origin.get(zone.origin)
        if before is not None and change is not None and _is_small(change) and rendered is None:
            zone = self._edit(before, change, zone)
        else:
            if rendered is None and len(zone.nodes) <= FEW:
                rendered = self.current.render_zone(zone)
            self.current.replace(zone, rendered)
        self._spread(zone, change)

    def _edit(self, before: Zone, change: Difference, zone: Zone) -> Zone:
        """Go on from what is served to `zone`; gives the version, equal to it, that is served."""
        edited = apply(before, change)
        edited.zone.files, edited.zone.digest = zone.files, zone.digest
        self.current.edit(edited)
        return edited.zone

    def _spread(self, zone: Zone, change: Difference | None) -> None:
        if change is not None:
            self.options.transfers.changed(change)
        else:
            self.options.transfers.histories.pop(zone.origin, None)
        self.changed(zone)

    # Updates.

    def commit(self) -> Batch | None:
        """Updates to be synced by another thread (`Updates.sync`), then `committed`."""
        return self.updates.begin() if self.updates.waiting else None

    def committed(self, batch: Batch, failed: bool) -> None:
        """Publish and answer what is on the disk."""
        if failed:
            self.say("error: updates could not be written to the journal; none was made")
        self.updates.end(batch, failed, self._step)

    # Reload.

    def known(self) -> dict[str, tuple[Zone, bytes]]:
        """For `load_zones`: what need not be read again."""
        return {
            kept.zone.files[0]: (kept.zone, kept.digest)
            for kept in self.kept.values()
            if kept.zone.files
        }

    def unchanged(self, loaded: LoadedZones) -> LoadedZones:
        """Zones whose files are as they were, as they are served now."""
        zones: list[Zone] = []
        for zone in loaded.zones:
            kept = self.kept.get(zone.origin)
            if kept is not None and (
                kept.zone is zone or kept.digest == zone.digest or zone.origin in loaded.stale
            ):
                zone = kept.zone
            zones.append(zone)
        return LoadedZones(tuple(zones), loaded.problems, loaded.stale)

    def plan(self, loaded: LoadedZones, served: Iterable[Zone]) -> Reloaded:
        """What a reload leads to; touches nothing, so another thread may do it."""
        return reload(served, loaded, self.today())

    def install(
        self,
        plan: Reloaded,
        loaded: LoadedZones,
        rendered: Mapping[bytes, Rendered] | None = None,
    ) -> list[Problem]:
        """Serve what a reload led to; the problems of the files, and what was done about them.

        `rendered`: by origin, what `Catalog.render_zone` made of large zones of the plan.

        Zones that were updated since the plan was made are planned again.
        """
        served = {kept.zone.origin: kept.zone for kept in self.kept.values()}
        if any(served.get(zone.origin) is not zone for zone in plan.served):
            plan = self.plan(self.unchanged(loaded), served.values())
            rendered = None
        changes = {change.new[0].lower(): change for change in plan.changes}
        problems = list(plan.problems)
        fresh = {zone.origin: zone for zone in plan.zones}
        gone = [origin for origin in self.kept if origin not in fresh]
        for origin in gone:
            self._drop(origin)
        if gone:
            self._succeed(gone)
        for origin, zone in fresh.items():
            kept = self.kept.get(origin)
            if kept is None:
                secondary = self.secondaries.pop(origin, None)
                if secondary is not None:
                    self.agenda.forget(secondary)
                self.listed.pop(origin, None)
                kept = self.kept[origin] = self._restore(zone, problems)
                same = kept.zone is zone  # as it was rendered
                self._put(kept.zone, None, (rendered or {}).get(origin) if same else None)
            elif kept.zone is not zone:
                self._from_file(kept, zone, changes.get(origin), (rendered or {}).get(origin))
        self._produce()
        return problems

    def _drop(self, origin: bytes) -> None:
        kept = self.kept.pop(origin)
        if kept.journal is not None:
            kept.journal.close()
        self.options.transfers.histories.pop(origin, None)
        self.current.remove(origin)

    def _succeed(self, origins: Iterable[bytes]) -> None:
        """Zones whose files are gone may be somebody else's, whom we follow from now on."""
        configured = {**self.options.secondaries, **self.options.catalogs}
        for origin in origins:
            if origin in configured:
                self._follow(origin, configured[origin])
                self.say(f"{names.to_text(origin)} has no file any more; it comes from its primary")
        for origin in self.options.catalogs:
            catalog = self.secondaries.get(origin)
            if catalog is not None and catalog.zone is not None:
                self._members(catalog.zone)
        self.stirred()

    def reread(self, kept: Kept, zone: Zone) -> None:
        """The files of one zone were read again, since somebody else has changed them."""
        if kept.journal is None or not kept.dirty or kept.staged is not None:
            return  # updates that wait for the disk come first; then the files are looked at again
        change = difference(kept.zone, zone)
        newer = is_newer(zone.serial, kept.zone.serial)
        if zone.signed and not newer and not is_same_content(change):
            self.say(str(cannot_raise(kept.zone, zone)))
            kept.dirty = False  # until the next update; the journal has everything
        else:
            self._from_file(kept, zone, change)

    def _from_file(
        self, kept: Kept, zone: Zone, change: Difference | None, rendered: Rendered | None = None
    ) -> None:
        """A zone's files have another content."""
        digest = zone.digest
        if kept.staged is not None:
            return  # updates wait for the disk; the file is looked at again after them
        ahead = kept.journal is not None and (kept.dirty or kept.journal.ahead)
        if ahead and zone.signed:
            self.say(f"warning: {lost_updates(zone)}")
            kept.dirty = False
        elif ahead:
            # Also what could not be written back.
            zone, change = self._merged(kept, zone)
            kept.dirty = True
            rendered = None
        kept.zone, kept.digest = zone, digest
        if kept.journal is not None and not kept.dirty:
            try:
                if change is not None:
                    kept.journal.append(change)
                kept.journal.append(Mark(digest, zone.serial, there=True))
                kept.journal.sync()
            except OSError as error:
                self.say(f"error: {kept.journal.path}: {error.strerror}")
        self._put(zone, change, rendered)
        kept.zone = self.current.zones.by_origin[zone.origin]

    def _merged(self, kept: Kept, zone: Zone) -> tuple[Zone, Difference]:
        """A file's new content, and on top of it the updates that it lacks."""
        assert kept.journal is not None
        zone = apply_all(zone, kept.journal.unmarked(), lenient=True).zone
        if not is_newer(zone.serial, kept.zone.serial):
            zone.renumber(successor(kept.zone.serial, self.today()))
        change = difference(kept.zone, zone)
        try:
            kept.journal.append(change)
            kept.journal.sync()
        except OSError as error:
            self.say(f"error: {kept.journal.path}: {error.strerror}")
        return zone, change

    # Secondaries.

    def _follow(self, origin: bytes, primaries: tuple[Primary, ...]) -> None:
        secondary = self.secondaries[origin] = Secondary(origin, primaries, random=self._random)
        self.agenda.plan(secondary)
        self.current.expire(origin)

    def follow(self, secondary: Secondary, zone: Zone, age: float = 0.0) -> None:
        """Serve a version that is on the disk, unless it has expired: confirmed `age` seconds ago.

        A catalog counts even then: what it lists has expire times of its own.
        """
        now = self.clock()
        secondary.have(zone, now, age)
        self.agenda.plan(secondary)
        if not self.expire(secondary, now):
            self._put(zone, None)
        self._listing(zone)

    def take_over(
        self,
        secondary: Secondary,
        zone: Zone,
        changes: tuple[Difference, ...],
        rendered: Rendered | None,
        edited: Edited | None = None,
    ) -> bool:
        """Serve a version that came from a primary, by differences if there are any.

        `edited`: how it comes from the version that the secondary has; what is the same stays
        rendered. False: nobody is to follow that zone any more, so it is not served.
        """
        if self.secondaries.get(secondary.origin) is not secondary:
            return False
        self.counters.transfers_in += 1
        before = self.current.zones.by_origin.get(zone.origin)
        follows = before is not None and before is secondary.zone
        secondary.have(zone, self.clock())
        for change in changes[:-1]:
            self.options.transfers.changed(change)
        if follows and edited is not None and rendered is None:
            self.current.edit(edited)
        else:
            if rendered is None and len(zone.nodes) <= FEW:
                rendered = self.current.render_zone(zone)
            self.current.replace(zone, rendered)
        self._spread(zone, changes[-1] if changes else None)
        self._listing(zone)
        return True

    def expire(self, secondary: Secondary, now: float) -> bool:
        """Stop answering from a zone if nobody has confirmed it for too long."""
        if not secondary.expired(now):
            return False
        self.counters.zones_expired += 1
        self.current.expire(secondary.origin)
        why = secondary.problem or "it was on the disk for too long"
        self.say(f"error: {names.to_text(secondary.origin)} has expired: {why}")
        return True

    # Catalog zones.

    def _listing(self, zone: Zone) -> None:
        """Follow what a catalog lists, and nothing that it lists no more."""
        if zone.origin not in self.options.catalogs:
            return
        for heir in self._members(zone):
            # What was a clash of names may be a change of owners now.
            other = self.secondaries.get(heir) if heir in self.options.catalogs else None
            if other is not None and other.zone is not None and heir != zone.origin:
                self._members(other.zone)
        self.stirred()

    def _members(self, zone: Zone) -> set[bytes]:
        """Bring the members of a catalog up to date; the catalogs that may take some of them."""
        try:
            wanted = members.read(zone)
        except LocalError as error:
            self.say(f"error: {error}; its zones stay as they are")
            return set()
        for origin, (catalog, _) in list(self.listed.items()):
            if catalog == zone.origin and origin not in wanted:
                self._unlist(origin)
                self.say(f"{names.to_text(origin)} is in {zone.name} no more")
        for origin, member in wanted.items():
            before = self.listed.get(origin)
            # RFC 9432 §5.5: a zone goes to another catalog if the one it is in says so.
            if before is not None and zone.origin in (before[0], before[1].heir):
                if before[1].label != member.label:
                    self._unlist(origin)  # §5.4, §5.5: another label means another zone
                else:
                    self.listed[origin] = (zone.origin, member)
                    if before[0] != zone.origin:
                        self.secondaries[origin].move(self.options.catalogs[zone.origin])
            if origin in self.secondaries or origin in self.kept or origin == zone.origin:
                continue  # §5.2: whoever has it first keeps it
            self.listed[origin] = (zone.origin, member)
            self._follow(origin, self.options.catalogs[zone.origin])
            self.say(f"{names.to_text(origin)} comes by way of {zone.name}")
        return {member.heir for member in wanted.values() if member.heir is not None}

    def _unlist(self, origin: bytes) -> None:
        """RFC 9432 §5.3, §5.6: a zone is removed with all its state."""
        del self.listed[origin]
        self.agenda.forget(self.secondaries.pop(origin))
        self.options.transfers.histories.pop(origin, None)
        self.current.remove(origin)
        self.forgotten(origin)

    def _produce(self) -> None:
        """Bring the catalog of our own zones up to date."""
        origin = self.options.produce
        if origin is None:
            return
        lowered = origin.lower()
        before = self.current.zones.by_origin.get(lowered)
        listed = [one for one in self.kept if one != lowered]
        serial = successor(before.serial, 0) if before is not None else int(self.wall())
        zone = members.make(origin, listed, serial)
        if before is None:
            self._put(zone, None)
            return
        change = difference(before, zone)
        if change.removed or change.added:
            self._put(zone, change)


def _is_small(change: Difference) -> bool:
    """True if it is to be made in the catalog; else the zone is rendered anew."""
    return len(change.removed) + len(change.added) <= FEW
