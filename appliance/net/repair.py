"""The sender's judgement: what arrived, what is lost, and how much may be under way.

One object per connection brings the leaves together that answer those questions: `flight` (what
was sent), `rtt` (how long to wait), `sack` and `rack` (what is missing), `prr` and a congestion
control (how much to send).  The trunk tells it of every acknowledgment, timeout and transmission,
and asks three things: what is to be sent again, how much the network allows, and when to wake.

    OPEN       nothing seems lost
    RECOVERY   an acknowledgment showed a loss: repair, the window falling by PRR (RFC 9937)
    LOSS       the timer expired: everything is suspect, the window starts anew (RFC 5681 §3.1);
               or a router told that segments are too large, or nothing but the try of a larger
               one was lost, and the window stays (RFC 1191 §6.5, RFC 4821 §3)

With SACK the detector is RACK (RFC 8985); without it, duplicate acknowledgments are counted
(RFC 5681 §3.2, RFC 6582).  A repair that turns out to have been needless is undone (RFC 3522,
RFC 4015).  Values and `now` in, values out: it sends nothing and arms nothing.
"""

from __future__ import annotations

from math import inf
from typing import Final

from appliance.net import rack, sack
from appliance.net.congestion import CongestionControl
from appliance.net.counters import Counters
from appliance.net.cubic import Cubic
from appliance.net.flight import Flight, Sent
from appliance.net.newreno import NewReno
from appliance.net.prr import Prr
from appliance.net.rack import Rack
from appliance.net.rtt import RttEstimator
from appliance.net.seq import HALF, MASK

OPEN: Final = 0
RECOVERY: Final = 1
LOSS: Final = 2

ALGORITHMS: Final[dict[str, type[CongestionControl]]] = {"cubic": Cubic, "newreno": NewReno}


class Repair:
    """Loss recovery and congestion control of one direction of a connection.

    `una` and `nxt` in its methods are SND.UNA and SND.NXT before the event, in unwrapped numbers.
    """

    __slots__ = (
        "_counters",
        "_peak",
        "_peak_end",
        "_prr",
        "_reno_dups",
        "_tlp_is_retransmission",
        "cc",
        "flight",
        "mss",
        "path_probe",
        "probing",
        "rack",
        "recover",
        "reduced",
        "reorder_at",
        "rtt",
        "sack_on",
        "state",
        "tlp_end",
    )

    def __init__(self, algorithm: str, mss: int, sack_on: bool, counters: Counters) -> None:
        self._counters = counters
        self.mss = mss
        self.sack_on = sack_on
        self.cc = ALGORITHMS[algorithm](mss)
        self.flight = Flight()
        self.rtt = RttEstimator()
        self.rack = Rack()
        self.state = OPEN
        self.recover = 0  # SND.NXT when the repair began; it ends when all below is acknowledged
        self.reduced = False  # the window; the next new data tells the peer (RFC 3168 §6.1.2, CWR)
        self.reorder_at = inf  # when RACK wants to look again; inf: not
        self.path_probe = -1  # first number of the last segment that tried a larger path MTU
        self.probing = True  # a tail that is not acknowledged is probed for (RFC 8985 §7)
        self.tlp_end = -1  # SND.NXT when a tail probe left; -1: none is under way
        self._tlp_is_retransmission = False
        self._prr: Prr | None = None  # while in RECOVERY
        self._reno_dups = 0  # duplicate acknowledgments in a row, without SACK
        self._peak = 0  # most octets out in this round, ...
        self._peak_end = 0  # ... which ends when this number is acknowledged

    def start(self, mss: int, sack_on: bool) -> None:
        """Begin with what the handshake has settled."""
        self.mss = mss
        self.sack_on = sack_on
        self.cc.start(mss)

    def syn_lost(self, times: int) -> None:
        """The SYN had to be sent again (RFC 6298 §5.7); the path is worse than we hoped."""
        self.rtt.forget_lost_syn()
        if times > 1:
            # RFC 5681 §3.1: IW is one segment; for a single loss RFC 6928 §3 leaves it be.
            self.cc.cwnd = self.mss

    # ------------------------------------------------------------------ questions

    def allowed(self, outstanding: int) -> int:
        """Return how many octets more the network may carry, `outstanding` being unacknowledged."""
        flight = self.flight
        return self.cc.cwnd - outstanding + flight.sacked + flight.reno_sacked + flight.lost

    def quiet(self, una: int) -> bool:
        """Tell whether nothing is suspected, being repaired, or out for the second time."""
        flight = self.flight
        return (
            self.state == OPEN
            and self.tlp_end < 0
            and not self._reno_dups
            and not flight.reno_sacked
            and not flight.sacked
            and not flight.lost
            and flight.resent_to <= una
        )

    def recovering(self) -> bool:
        """Tell whether a repair is under way."""
        return self.state != OPEN

    def timer(self, now: float, outstanding: int) -> tuple[float, bool]:
        """Return when to stop waiting, and whether to probe then (RFC 6298 §5, RFC 8985 §7.2)."""
        rtt = self.rtt
        if (
            self.sack_on
            and self.probing
            and rtt.srtt > 0.0
            and self.state == OPEN
            and self.tlp_end < 0
            and not self.flight.sacked
        ):
            segments = -(-outstanding // self.mss)
            pto = rack.probe_timeout(rtt.srtt, rtt.rto, segments)
            # RFC 8985 §7.2: a PTO later than the RTO is brought forward to it, and still probes.
            return now + pto, True
        return now + rtt.rto, False

    def next_lost(self, una: int, nxt: int, edge: int) -> Sent | None:
        """Return the record to send again now; None: nothing is lost, or no window is open.

        `edge` is the right edge of the peer's window; its first octet may always be repaired.
        """
        record = self.flight.first_lost()
        if record is None:
            return None
        flight = self.flight
        pipe = nxt - una - flight.sacked - flight.reno_sacked - flight.lost
        if pipe > 0 and self.cc.cwnd - pipe < self.mss:
            return None
        if record.start >= edge and record.start != una:
            return None
        return record

    # ------------------------------------------------------------------ transmissions

    def sent_new(self, start: int, end: int, now: float) -> None:
        """New octets [start, end) left at `now`."""
        self.flight.records.append(Sent(start, end, now))
        if self._prr is not None:
            self._prr.out += end - start

    def sent_again(self, record: Sent, octets: int, now: float, clock: int) -> None:
        """The first `octets` of a lost record left again; `clock` is our timestamp clock."""
        self.flight.sent_again(record, octets, now, clock)
        if self._prr is not None:
            self._prr.out += octets

    def probe_sent(self, nxt: int, record: Sent | None, start: int, now: float, clock: int) -> None:
        """A tail probe left, of new data or of the end of `record` from `start` (RFC 8985 §7.3)."""
        self.tlp_end = nxt
        self._tlp_is_retransmission = record is not None
        if record is not None:
            if start > record.start:
                record = record.split(start)
                self.flight.records.append(record)
            self.flight.sent_again(record, record.end - record.start, now, clock)

    # ------------------------------------------------------------------ acknowledgments

    def advanced(self, now: float, una: int, nxt: int, ack: int) -> None:
        """Everything below `ack` arrived, while all is quiet: the common case."""
        if self.sack_on:
            self._delivered_below(now, ack, False)
        sent_at = self.flight.acknowledge(ack)
        if sent_at >= 0.0:
            self.rtt.sample(now - sent_at)
        if self._held_back(una, nxt):
            self.cc.acked(ack - una, now, self.rtt, ack, nxt)

    def _held_back(self, una: int, nxt: int) -> bool:
        """Tell whether the window, and not the application, limited what was out in this round.

        RFC 7661, RFC 9438 §5.8: only then does it grow.  In slow start more than half of it in use
        suffices, since it may double within the round.
        """
        used = nxt - una
        if used > self._peak or una >= self._peak_end:
            self._peak = used
            self._peak_end = nxt
        peak, cwnd = self._peak, self.cc.cwnd
        return peak + self.mss > cwnd or (peak * 2 > cwnd and cwnd < self.cc.ssthresh)

    def acknowledged(
        self,
        now: float,
        una: int,
        nxt: int,
        ack: int,
        blocks: tuple[tuple[int, int], ...],
        tsecr: int,
        clock: int,
        duplicate: bool,
    ) -> None:
        """Take in an acknowledgment of any kind.

        `blocks` are its SACK blocks as on the wire, `tsecr` the timestamp echoed (0: none),
        `clock` our timestamp clock now, `duplicate` the verdict of RFC 5681 §2.
        """
        flight, progress = self.flight, ack - una
        sacked_before = flight.sacked + flight.reno_sacked
        spurious = bool(tsecr and progress) and self._sent_again_needlessly(tsecr)
        if progress and self.sack_on:
            # Before the blocks: what is reported together arrived in order, not out of it.
            self._delivered_below(now, ack, spurious)
        dsack = self._selective(now, ack, nxt, blocks, spurious) if self.sack_on else None
        if progress:
            self._cumulative(now, ack, progress, tsecr, clock)
        elif duplicate and not self.sack_on:
            self._reno_dups += 1
            flight.reno_sacked = min(flight.reno_sacked + self.mss, max(nxt - una - self.mss, 0))
        lost_before = flight.lost
        if spurious and self.state != OPEN:
            self._undo()
        else:
            self.detect(now, ack, progress > 0)
        delivered = progress + flight.sacked + flight.reno_sacked - sacked_before
        self._judge_probe(now, nxt - una, ack, dsack, duplicate and not blocks)
        self._steer(now, una, nxt, ack, max(delivered, 0), flight.lost <= lost_before)

    def _delivered_below(self, now: float, ack: int, spurious: bool) -> None:
        """Tell RACK of what is cumulatively acknowledged and was not sacked before."""
        for record in self.flight.records:
            if record.start >= ack:
                break
            if not record.sacked:
                end = record.end
                self.rack.delivered(record, min(ack, end), now, spurious)

    def _sent_again_needlessly(self, tsecr: int) -> bool:
        """Tell whether what is being acknowledged is the first copy of what was sent twice.

        RFC 3522 §3.2, Eifel detection: the timestamp echoed is older than the second copy.
        """
        records = self.flight.records
        if not records or not records[0].stamp:
            return False
        return (tsecr - records[0].stamp) & MASK > HALF

    def _selective(
        self,
        now: float,
        ack: int,
        nxt: int,
        wire_blocks: tuple[tuple[int, int], ...],
        spurious: bool,
    ) -> sack.Block | None:
        """Mark what the blocks report; return the duplicate that they report, if any."""
        if not wire_blocks:
            return None
        dsack, blocks = sack.read(wire_blocks, ack, nxt)
        for left, right in sorted(blocks):
            for record in self.flight.sack(left, right, self.mss):
                self.rack.delivered(record, record.end, now, spurious)
        if dsack is not None:
            self._counters.tcp_dsack_in += 1
            self.rack.duplicate_sacked(ack, nxt)
        return dsack

    def _cumulative(self, now: float, ack: int, progress: int, tsecr: int, clock: int) -> None:
        """Drop what is acknowledged and measure the round trip (RFC 6298 §3, RFC 7323 §4.1)."""
        flight = self.flight
        sent_at = flight.acknowledge(ack)
        if sent_at >= 0.0:
            self.rtt.sample(now - sent_at)
        elif tsecr:
            age = (clock - tsecr) & MASK
            if age < HALF:
                self.rtt.sample(age / 1000.0)
        if flight.records and flight.records[0].sacked:
            # RFC 2018 §8: the octet at the edge was sacked, so why is it not acknowledged?
            self._counters.tcp_sack_reneged += 1
            flight.forget_sacks()
        if self.state == OPEN:
            flight.reno_sacked = 0
        else:
            flight.reno_sacked = max(flight.reno_sacked - max(progress - self.mss, 0), 0)
        self._reno_dups = 0

    def detect(self, now: float, una: int, progress: bool) -> None:
        """Find what is lost: by time with SACK (RFC 8985 §6), by counting without (RFC 6582)."""
        flight = self.flight
        if self.sack_on:
            if not flight.sacked and self.state == OPEN:
                # All that is out was sent after all that arrived: nothing to judge it by.
                self.reorder_at = inf
                return
            window = self.rack.reordering_window(
                self.rtt.srtt, self.state != OPEN, flight.sacked // self.mss
            )
            wait = self.rack.detect(flight, now, window)
            self.reorder_at = now + wait if wait > 0.0 else inf
            return
        if not flight.records:
            return
        # RFC 5681 §3.2: the third duplicate; RFC 6582 §3.2 step 3: each partial acknowledgment.
        # Step 2 there: copies of what was sent twice bring duplicates, too, of the number at which
        # the last repair ended; nothing is lost until more than that is acknowledged.
        third = self.state == OPEN and self._reno_dups >= rack.DUP_THRESH and una > self.recover
        if third or (self.state == RECOVERY and progress and una < self.recover):
            head = flight.records[0]
            if head.end - head.start > self.mss and not head.lost:
                flight.records.insert(1, head.split(head.start + self.mss))
            flight.mark_lost(head)

    def _judge_probe(
        self, now: float, out: int, ack: int, dsack: sack.Block | None, bare_duplicate: bool
    ) -> None:
        """Did the tail probe repair a loss that nobody noticed? (RFC 8985 §7.4.2)

        `out` octets were outstanding when the acknowledgment came (RFC 5681 §2, FlightSize).
        """
        end = self.tlp_end
        if end < 0 or ack < end:
            return
        if not self._tlp_is_retransmission or (dsack is not None and dsack[1] == end):
            self.tlp_end = -1
        elif ack > end:
            self.tlp_end = -1
            if self.state == OPEN:
                self.reduced = True
                self.cc.lost(min(out, self.cc.cwnd), now)
                self.cc.cwnd = min(self.cc.cwnd, self.cc.ssthresh)
        elif bare_duplicate:
            self.tlp_end = -1

    def _steer(self, now: float, una: int, nxt: int, ack: int, delivered: int, safe: bool) -> None:
        """Enter or leave a repair; grow or shrink the window."""
        cc, flight = self.cc, self.flight
        used, progress = nxt - una, ack - una
        recovered = False
        if self.state != OPEN and ack >= self.recover:
            # RFC 6582 §3.2 step 3, RFC 6675 §5: all that was out when the loss was found arrived.
            # What this acknowledges was counted when it was sacked: the window does not grow by it.
            recovered = self.state == RECOVERY
            if recovered:
                cc.cwnd = max(cc.ssthresh, self.mss)
            self._leave()
        if self.state == OPEN and flight.lost:
            self.enter(now, used, used - flight.sacked - flight.reno_sacked + delivered, nxt)
        if self._prr is not None:
            pipe = nxt - ack - flight.sacked - flight.reno_sacked - flight.lost
            cc.cwnd = self._prr.window(delivered, pipe, self.mss, safe and progress > 0)
        elif progress and not recovered and self._held_back(una, nxt):
            # RFC 5681 §3.1: what was sacked before has left the pipe, and counted, already.
            newly = min(progress, delivered)
            if newly:
                cc.acked(newly, now, self.rtt, ack, nxt)

    # ------------------------------------------------------------------ states

    def enter(self, now: float, flight_size: int, recover_fs: int, nxt: int) -> None:
        """Begin a RECOVERY with `flight_size` octets out (RFC 6675 §5 step 4).

        `recover_fs` are those of them that the repair will see delivered (RFC 9937 §6).
        """
        lost = self.flight.first_lost()
        if (
            self.sack_on
            and lost is not None
            and lost.start == self.path_probe
            and not lost.retransmitted
            and lost.end - lost.start == self.flight.lost
        ):
            # RFC 4821 §3: the loss of a probe alone tells of an MTU and not of congestion.
            self.refused(nxt, nxt)
            return
        self._counters.tcp_fast_recoveries += 1
        self.state = RECOVERY
        self.reduced = True
        self.recover = nxt
        self.tlp_end = -1
        # The window that met the loss: never more than was in use (RFC 9438 §4.6).
        self.cc.lost(min(flight_size, self.cc.cwnd), now)
        self._prr = Prr(recover_fs, self.cc.ssthresh)

    def enter_by_time(self, now: float, una: int, nxt: int) -> None:
        """Begin a RECOVERY because a timer found the loss: no acknowledgment paces it yet."""
        flight, out = self.flight, nxt - una
        self.enter(now, out, out - flight.sacked, nxt)
        if self._prr is not None:
            # RFC 9937 §6: the first retransmission leaves, the rest by what will be delivered.
            pipe = out - flight.sacked - flight.reno_sacked - flight.lost
            self.cc.cwnd = self._prr.window(0, pipe, self.mss, False)

    def marked(self, now: float, in_flight: int) -> None:
        """The peer echoes a congestion mark: reduce, repair nothing (RFC 3168 §6.1.2)."""
        self.reduced = True
        if self.state == OPEN:
            self._counters.tcp_ecn_reductions += 1
            self.cc.lost(min(in_flight, self.cc.cwnd), now)
            self.cc.cwnd = max(self.cc.ssthresh, self.mss)

    def timed_out(self, now: float, una: int, nxt: int) -> None:
        """The retransmission timer expired on data (RFC 6298 §5.4 to §5.6, RFC 5681 §3.1)."""
        self.rtt.back_off()
        self.flight.mark_all_lost()
        self.cc.timed_out(min(nxt - una, self.cc.cwnd), now, self.state != LOSS)
        self.state = LOSS
        self.reduced = True
        self.recover = nxt
        self.reorder_at = inf
        self.tlp_end = -1
        self._prr = None
        self._reno_dups = 0

    def _leave(self) -> None:
        self.state = OPEN
        self._prr = None
        self.flight.reno_sacked = 0
        self.rack.recovered()

    def _undo(self) -> None:
        """The repair was needless: restore what it cost (RFC 4015 §3, RFC 5682 §2)."""
        self._counters.tcp_spurious_recoveries += 1
        self.flight.unmark_lost()
        self.reduced = False
        self.cc.undo()
        self.rtt.undo_back_off()
        self.rack.reordering_seen = True
        self._leave()

    def raise_mss(self, mss: int) -> None:
        """The path carries larger segments than we thought; the window stays what it is."""
        self.mss = self.cc.mss = mss

    def set_mss(self, mss: int, nxt: int, first: int) -> None:
        """Segments carry `mss` octets from now on; what is out from `first` on was too large.

        RFC 1191 §6.5: all of it leaves again at once as far as the window allows, which stays what
        it is: a router that says so is not congested (RFC 8201 §5.4).
        """
        self.mss = mss
        self.cc.set_mss(mss)
        self.refused(nxt, first)

    def refused(self, nxt: int, first: int) -> None:
        """What is out from `first` on was not taken, though nothing is congested: it leaves again.

        Of octets that went with a SYN, RFC 7413 §4.2.1 says so; of too large ones, RFC 1191 §6.5.
        """
        self.flight.mark_lost_from(first)
        if self.state == OPEN and self.flight.lost:
            self.state = LOSS
            self.recover = nxt
            self.tlp_end = -1
            self.cc.forget()
            self._reno_dups = 0
