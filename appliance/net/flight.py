"""What has been sent and not acknowledged: one record per transmission, in sequence order.

The record of a super-segment stands for all its segments; it is split only when a selective
acknowledgment, a loss or a small window tells its parts apart.  A record is in exactly one of
four conditions: in flight, *sacked* (the peer holds it), *lost* (to be sent again) or gone.  So

    octets in flight = snd_nxt - snd_una - sacked - lost      (RFC 6675's "pipe")

A record that was sent again is in flight again, with its new time.  A peer without SACK tells
less: each duplicate acknowledgment says that *some* segment left the network, and `reno_sacked`
counts those octets without knowing which (RFC 5681 §3.2, RFC 6582 §3.2).

Bounds: records never exceed the octets in flight over the segment size, and the congestion
window bounds those.  Who is lost is decided by `rack` and the trunk; nothing here sends.
It imports only the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator


class Sent:
    """One transmission: sequence numbers [start, end) and when it last left (seconds)."""

    __slots__ = ("end", "lost", "retransmitted", "sacked", "sent_at", "stamp", "start")

    def __init__(self, start: int, end: int, sent_at: float) -> None:
        self.start = start
        self.end = end
        self.sent_at = sent_at
        self.retransmitted = False  # ever; such a record gives no RTT sample (RFC 6298 §3)
        self.stamp = 0  # our timestamp clock when it was first sent again; 0: unknown
        self.sacked = False
        self.lost = False

    def split(self, at: int) -> Sent:
        """Cut this record at sequence number `at`; return the new record of the upper part."""
        upper = Sent(at, self.end, self.sent_at)
        upper.retransmitted = self.retransmitted
        upper.stamp = self.stamp
        upper.sacked = self.sacked
        upper.lost = self.lost
        self.end = at
        return upper


class Flight:
    """The records of one connection's outstanding octets."""

    __slots__ = ("lost", "records", "reno_sacked", "resent_to", "sacked")

    def __init__(self) -> None:
        self.records: list[Sent] = []  # ascending, disjoint, without gaps
        self.sacked = 0  # octets in sacked records
        self.lost = 0  # octets in lost records
        self.reno_sacked = 0  # octets that duplicate ACKs account for, without SACK
        self.resent_to = -1  # past the highest octet ever sent again

    def sent(self, start: int, end: int, now: float) -> None:
        """Add a first transmission of [start, end) at `now`."""
        self.records.append(Sent(start, end, now))

    def acknowledge(self, una: int) -> float:
        """Drop all that lies below `una`; return when the newest of it left, -1.0 if unknowable.

        RFC 6298 §3: nothing can be measured when any of it was sent twice, for the wait was then
        for the second copy; what had been sacked arrived earlier and says nothing either.
        """
        records = self.records
        sent_at = -1.0
        twice = False
        n = 0
        for record in records:
            if record.start >= una:
                break
            if record.retransmitted:
                twice = True
            whole = record.end <= una
            length = (record.end if whole else una) - record.start
            if record.sacked:
                self.sacked -= length
            else:
                sent_at = record.sent_at
                if record.lost:
                    self.lost -= length
            if not whole:
                record.start = una
                break
            n += 1
        if n:
            del records[:n]
        return -1.0 if twice else sent_at

    def sack(self, left: int, right: int, mss: int = 1) -> list[Sent]:
        """Mark [left, right) as held by the peer; return the records that this is news of.

        RFC 8985 §6.2 step 2 speaks of segments, of `mss` octets here: of one that is held in part
        nothing is known.  (A peer that holds less than it was sent is cut in the middle of it by a
        box on the way, or lies.)
        """
        news: list[Sent] = []
        records = self.records
        i = 0
        while i < len(records):
            record = records[i]
            if record.start >= right:
                break
            if record.end > left and not record.sacked:
                start = record.start
                if start < left:
                    whole = start + -((start - left) // mss) * mss
                    if whole < min(record.end, right):
                        records.insert(i + 1, record.split(whole))
                    i += 1
                    continue
                if record.end > right:
                    whole = right - (right - start) % mss
                    if whole == start:
                        break
                    records.insert(i + 1, record.split(whole))
                length = record.end - record.start
                if record.lost:
                    record.lost = False
                    self.lost -= length
                record.sacked = True
                self.sacked += length
                news.append(record)
            i += 1
        return news

    def take_back(self) -> None:
        """Forget the last transmission: it is as if its octets had never left."""
        record = self.records.pop()
        if record.lost:
            self.lost -= record.end - record.start
        if record.sacked:
            self.sacked -= record.end - record.start

    def cut(self, at: int) -> None:
        """Forget the transmission of everything from `at` on, of which the peer holds nothing."""
        records = self.records
        while records and records[-1].end > at:
            record = records.pop()
            if record.lost:
                self.lost -= record.end - max(record.start, at)
            if record.start < at:
                record.end = at
                records.append(record)

    def mark_lost(self, record: Sent) -> None:
        """Declare `record` lost, unless the peer holds it or it is known to be lost."""
        if not record.lost and not record.sacked:
            record.lost = True
            self.lost += record.end - record.start

    def mark_all_lost(self) -> None:
        """Declare everything lost that the peer has not sacked (RFC 8985 §6.3, after an RTO)."""
        self.mark_lost_from(0)

    def mark_lost_from(self, first: int) -> None:
        """The same of what was sent from number `first` on."""
        for record in self.records:
            if record.start >= first:
                self.mark_lost(record)
        self.reno_sacked = 0

    def unmark_lost(self) -> None:
        """Take every verdict of loss back: it was spurious."""
        for record in self.records:
            record.lost = False
        self.lost = 0

    def forget_sacks(self) -> None:
        """Discard what was sacked: the peer has reneged (RFC 2018 §8)."""
        for record in self.records:
            record.sacked = False
        self.sacked = 0

    def first_lost(self) -> Sent | None:
        """Return the lowest lost record, the next to be sent again (RFC 6675 §4, NextSeg 1)."""
        if self.lost:
            for record in self.records:
                if record.lost:
                    return record
        return None

    def sent_again(self, record: Sent, octets: int, now: float, clock: int = 0) -> None:
        """Note that the first `octets` of `record` left again at `now`, our clock at `clock`."""
        if octets < record.end - record.start:
            at = self.records.index(record)
            self.records.insert(at + 1, record.split(record.start + octets))
        if record.lost:
            record.lost = False
            self.lost -= record.end - record.start
        if not record.retransmitted:
            record.retransmitted = True
            record.stamp = clock
        record.sent_at = now
        if record.end > self.resent_to:
            self.resent_to = record.end

    def in_flight(self) -> Iterator[Sent]:
        """Iterate over the records that are neither sacked nor lost."""
        return (r for r in self.records if not r.sacked and not r.lost)
