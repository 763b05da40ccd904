"""UPDATE messages from arrival to answer: each is on the disk before anybody is told.

    arrive ─ signature ─ policy ─ decide (RFC 2136 §3) ─ journal ┐ many in one turn
              │               published, answered  ←  synced  ←──┘ one wait for the disk
              └ a zone that we are secondary for ─ the primary (`forward`), or refused

Several updates may wait together: each is decided upon the version that the one before leads to, so
they are all one after another, and one wait for the disk serves them all. If the disk fails, none
of them happened: all are answered SERVFAIL, and what was served stays.

Sans-I/O but for the journal's writes. Imports the leaves of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from appliance.dns.consts import (
    BADVERS,
    CLASSIC_UDP,
    FORMERR,
    HEADER_LEN,
    IN,
    NOERROR,
    NOTAUTH,
    OPCODE_UPDATE,
    RCODE_NAMES,
    REFUSED,
    SERVFAIL,
    SOA,
)
from appliance.dns.counters import Counters
from appliance.dns.edit import Edited
from appliance.dns.edns import Extensions, opt_record
from appliance.dns.errors import WireError
from appliance.dns.journal import Journal
from appliance.dns.policy import Policy
from appliance.dns.prepared import HEAD, QR
from appliance.dns.reader import Parts, take_apart
from appliance.dns.rrl import address_of
from appliance.dns.serial import Difference
from appliance.dns.transfer import Grants
from appliance.dns.tsig import Signer
from appliance.dns.update import decide
from appliance.dns.zone import Zone

WAITING: Final = 1000
"""Updates that may wait for the disk; more are told SERVFAIL, and their senders try again."""

FORWARDED: Final = 100
"""Updates with primaries at once: each may hold a stream, and 64 KB of message."""

Reply = Callable[[bytes], None]
Answered = Callable[[bytes | None], None]
"""Takes what the primary has said; None: nothing."""
HandOn = Callable[[bytes, bytes, Answered], None]
"""Origin of the zone, message, and who waits for the answer."""


class Kept:
    """A zone of which we are the primary, as far as changes are concerned."""

    __slots__ = ("digest", "dirty", "journal", "staged", "zone")

    def __init__(self, zone: Zone, journal: Journal | None) -> None:
        """`zone` is what is served; without a journal there are no updates."""
        self.zone = zone
        self.staged: Zone | None = None
        """What waiting updates lead to."""
        self.journal = journal
        self.digest = zone.digest
        """Of the master file that was read or written last."""
        self.dirty = False
        """The master file lacks something."""


class Step(NamedTuple):
    """One zone's step from version to version."""

    kept: Kept
    edited: Edited
    change: Difference


class Batch(NamedTuple):
    """Updates that wait for the disk together."""

    steps: list[Step]
    replies: list[tuple[Callable[[int], bytes], Reply]]
    sizes: dict[int, tuple[Journal, int]]
    """Journals to sync, by identity, and how long they were before."""


class Forwarded:
    """Updates that are with a primary, and who waits for them."""

    __slots__ = ("_waiting", "count")

    def __init__(self) -> None:
        """None yet."""
        self._waiting: dict[tuple[Any, bytes], list[Answered]] = {}
        self.count = 0
        """Who waits, in all."""

    def enter(self, peer: Any, message: bytes, answered: Answered) -> bool | None:
        """True: hand it on; False: it has been, and the answer will come; None: there are too many.

        Whoever hears nothing over UDP sends the same octets again; the primary gets them once.
        """
        if self.count >= FORWARDED:
            return None
        waiting = self._waiting.setdefault((peer, message), [])
        waiting.append(answered)
        self.count += 1
        return len(waiting) == 1

    def leave(self, peer: Any, message: bytes, answer: bytes | None) -> None:
        """Tell everybody who waits for a message's answer."""
        for answered in self._waiting.pop((peer, message), ()):
            self.count -= 1
            answered(answer)


class Updates:
    """Takes UPDATE messages and decides about them."""

    def __init__(
        self,
        find: Callable[[bytes], Kept | None],
        is_ours: Callable[[bytes], bool],
        *,
        policy: Policy,
        forward: Grants,
        extensions: Extensions,
        counters: Counters,
        today: Callable[[], int],
        udp_size: int,
    ) -> None:
        """`find` gives a zone by origin; `is_ours` tells of zones that we are secondary for."""
        self._find = find
        self._is_ours = is_ours
        self._policy = policy
        self._forward = forward
        self._forwarded = Forwarded()
        self.hand_on: HandOn | None = None
        """Takes what is for a zone's primary; `service` does."""
        self._extensions = extensions
        self._counters = counters
        self._today = today
        self._udp_size = udp_size
        self._batch = Batch([], [], {})

    @property
    def waiting(self) -> bool:
        """True if there is something for `begin` to take."""
        return bool(self._batch.replies)

    def arrive(self, message: bytes, peer: Any, reply: Reply) -> None:
        """Take an UPDATE; `reply` is called with the answer, at once or after `end`."""
        if len(message) < HEADER_LEN or message[2] & QR:
            self._counters.dropped += 1
            return
        signer: Signer | None = None
        try:
            parts = take_apart(message)
            if parts.tsig_at:
                signer = self._extensions.signer(message, parts.tsig_at)
        except WireError:
            self._tell(self._answer(message, None, None)(FORMERR), FORMERR, reply)
            return
        answer = self._answer(message, parts, signer)
        rcode: int | None
        if self._find(parts.name) is None and self._is_ours(parts.name):
            rcode = self._hand_on(message, parts, signer, peer, answer, reply)
        else:
            rcode = self._judge(parts, signer)
            if rcode is None:
                rcode = self._decide(parts, signer, answer, reply)
        if rcode is not None:
            self._tell(answer(rcode), rcode, reply)

    def _judge(self, parts: Parts, signer: Signer | None) -> int | None:
        """A response code if the update may not even look at the zone."""
        if signer is not None and signer.error:
            return NOTAUTH  # RFC 8945 §5.2
        if parts.version:
            return BADVERS  # RFC 6891 §6.1.3
        if parts.qtype != SOA or parts.qclass != IN:
            return FORMERR if parts.qtype != SOA else NOTAUTH
        kept = self._find(parts.name)
        if kept is None:
            return NOTAUTH
        # Prerequisites would tell strangers what a zone has, so permission comes first.
        key = signer.key if signer is not None else None
        if key is None or not self._policy.knows(key.name, parts.name):
            return REFUSED
        if kept.zone.signed:
            return REFUSED  # RFC 3007 §4: we have no key to sign with what changes
        return None

    def _hand_on(
        self,
        message: bytes,
        parts: Parts,
        signer: Signer | None,
        peer: Any,
        answer: Callable[[int], bytes],
        reply: Reply,
    ) -> int | None:
        """Give an update to the zone's primary (RFC 2136 §6); a response code if that is not to be.

        A secondary may refuse to (§3.1.2). What has no signature is refused in any case, since the
        primary would see our address, and may trust it.
        """
        key = None
        if signer is not None and signer.key is not None and not signer.error:
            key = signer.key.name
        allowed = signer is not None and self._forward.allows(parts.name, address_of(peer), key)
        if not allowed or self.hand_on is None:
            return REFUSED

        def answered(found: bytes | None) -> None:
            if found is None:
                self._tell(answer(SERVFAIL), SERVFAIL, reply)
            else:
                self._tell(found, found[3] & 15, reply)

        fresh = self._forwarded.enter(peer, message, answered)
        if fresh is None:
            return SERVFAIL
        if fresh:
            self._counters.updates_forwarded += 1
            self.hand_on(
                parts.name, message, lambda found: self._forwarded.leave(peer, message, found)
            )
        return None

    def _decide(
        self, parts: Parts, signer: Signer | None, answer: Callable[[int], bytes], reply: Reply
    ) -> int | None:
        """Put the update into the batch; a response code if there is nothing to wait for."""
        kept = self._find(parts.name)
        assert kept is not None
        assert signer is not None
        assert signer.key is not None
        if kept.journal is None or len(self._batch.replies) >= WAITING:
            return SERVFAIL
        key = signer.key.name
        version = kept.staged or kept.zone
        outcome = decide(
            version,
            parts,
            lambda name, rtype: self._policy.allows(key, parts.name, name, rtype),
            self._today(),
        )
        if outcome.rcode != NOERROR:
            return outcome.rcode
        if outcome.change is None or outcome.edited is None:
            if kept.staged is None:
                return NOERROR
        else:
            sizes = self._batch.sizes
            before = kept.journal.size
            try:
                kept.journal.append(outcome.change)
            except OSError:
                return SERVFAIL
            sizes.setdefault(id(kept.journal), (kept.journal, before))
            kept.staged = outcome.edited.zone
            self._batch.steps.append(Step(kept, outcome.edited, outcome.change))
        self._batch.replies.append((answer, reply))
        return None

    def begin(self) -> Batch:
        """What waits for the disk, to be synced by another thread; then comes `end`."""
        batch = self._batch
        self._batch = Batch([], [], {})
        return batch

    @staticmethod
    def sync(batch: Batch) -> None:
        """Wait for the disk; OSError."""
        for journal, _ in batch.sizes.values():
            journal.sync()

    def end(self, batch: Batch, failed: bool, publish: Callable[[Step], None]) -> None:
        """Publish and answer a batch, or take everything back that is not on the disk."""
        if failed:
            # What came later was built upon it, so that goes too.
            later = self.begin()
            for sizes in (later.sizes, batch.sizes):
                for journal, size in sizes.values():
                    try:
                        journal.truncate(size)
                    except OSError:
                        # What stays there would not lead to what comes next, so nothing does.
                        journal.close()
            for step in (*batch.steps, *later.steps):
                step.kept.staged = None
            for answer, reply in (*batch.replies, *later.replies):
                self._tell(answer(SERVFAIL), SERVFAIL, reply)
            return
        for step in batch.steps:
            publish(step)
            self._counters.updates += 1
            if step.kept.staged is step.edited.zone:
                step.kept.staged = None
        for answer, reply in batch.replies:
            self._tell(answer(NOERROR), NOERROR, reply)

    def _answer(
        self, message: bytes, parts: Parts | None, signer: Signer | None
    ) -> Callable[[int], bytes]:
        """A function from response code to the whole answer."""

        def answer(rcode: int) -> bytes:
            # RFC 2136 §3.8: the header's identifier and opcode come back, and the zone section.
            end = parts.end if parts is not None else HEADER_LEN
            edns = parts is not None and parts.edns
            do = parts.do if parts is not None else 0
            head = HEAD(QR | OPCODE_UPDATE << 3, rcode & 15, parts is not None, 0, 0, edns)
            opt = opt_record(max(self._udp_size, CLASSIC_UDP), do, rcode) if edns else b""
            out = message[:2] + head + message[HEADER_LEN:end] + opt
            return out if signer is None else signer.sign(out, self._extensions.clock())

        return answer

    def _tell(self, answer: bytes, rcode: int, reply: Reply) -> None:
        if rcode in RCODE_NAMES:
            self._counters.rcodes[rcode].count += 1
        reply(answer)
