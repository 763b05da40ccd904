"""What must hold inside a host after every turn: the books balance, and the right timers are armed.

    numbers     SND.UNA <= SND.NXT; the records of what is out cover exactly what is out
    queues      octets unsent, held and out of order are what their counts say, and under their caps
    timers      a retransmission timer if and only if something is out; somebody asks for a closed
                window; the host looks at each connection no later than its first deadline
    tables      nothing is left in any table once everything is over

It reads the privates of `net.tcp.Connection` and `net.stack.Host`, and is the one place of the
harness that does: a change there that makes a rule false is either a mistake or a change of rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final

from appliance.net.stack import Host
from appliance.net.syn_queue import HalfOpen
from appliance.net.tcp import Connection
from appliance.net.tcp_state import (
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    LAST_ACK,
    SYN_RECEIVED,
    TIME_WAIT,
)
from appliance.net.time_wait import TimeWait

MANY_RECORDS: Final = 64
"""Records of a flight up to which it is counted at every event, so that a check stays cheap."""
_SENDING: Final = frozenset((ESTABLISHED, CLOSE_WAIT, FIN_WAIT_1, CLOSING, LAST_ACK))

Broken = tuple[str, str]
"""The name of a rule, and how it is broken."""


def of_connection(connection: Connection, host: Host, now: float) -> Iterator[Broken]:
    """Every rule that a connection breaks at the end of a turn at `now`."""
    c = connection
    if c.state in (CLOSED, TIME_WAIT):
        return
    where = f"{c.local[1]}>{c.remote[1]} {c.state_name}"
    if not c.iss <= c.snd_una <= c.snd_nxt:
        yield "numbers", f"{where}: ISS {c.iss}, SND.UNA {c.snd_una}, SND.NXT {c.snd_nxt}"
    if c.dirty and not host.blocked():
        yield "turn", f"{where}: has something to send at the end of a turn"
    yield from _flight(c, where)
    yield from _receiving(c, where)
    if not host.blocked():
        yield from _timers(c, where, now)


def _flight(c: Connection, where: str) -> Iterator[Broken]:
    """What is out, and what waits to be sent."""
    flight = c.repair.flight
    records = flight.records
    if len(records) <= MANY_RECORDS:
        at = c.snd_una
        lost = sacked = 0
        for record in records:
            if record.start != at or record.end <= at:
                yield "flight", f"{where}: a record [{record.start}, {record.end}) at {at}"
                break
            at = record.end
            lost += (record.end - record.start) * record.lost
            sacked += (record.end - record.start) * record.sacked
        else:
            if at != c.snd_nxt:
                yield "flight", f"{where}: records end at {at}, SND.NXT is {c.snd_nxt}"
            if (lost, sacked) != (flight.lost, flight.sacked):
                yield (
                    "flight",
                    (f"{where}: lost {flight.lost} ({lost}), sacked {flight.sacked} ({sacked})"),
                )
    if c.state > SYN_RECEIVED:
        fin = 0 <= c._fin_seq < c.snd_nxt
        unsent = c._sendq.end - (c.snd_nxt - fin)
        if c.unsent != unsent:
            yield "unsent", f"{where}: {c.unsent} octets unsent, the queue says {unsent}"
        if c._sendq.start > c.snd_una and not fin:
            yield "unsent", f"{where}: octets from {c.snd_una} on are out, and forgotten"


def _receiving(c: Connection, where: str) -> Iterator[Broken]:
    """What has arrived."""
    if c.rcv_nxt > c.rcv_adv and c.state >= ESTABLISHED:
        yield "window", f"{where}: RCV.NXT {c.rcv_nxt} beyond the window's edge {c.rcv_adv}"
    if c.reassembly.octets > max(c.rcv_adv - c.rcv_nxt, 0):
        yield (
            "memory",
            f"{where}: {c.reassembly.octets} octets out of order, {c.rcv_adv - c.rcv_nxt} offered",
        )
    if c._held_octets != sum(map(len, c._held)):
        yield "held", f"{where}: holds {sum(map(len, c._held))} octets, counts {c._held_octets}"
    most = c._settings.receive_buffer + c.rcv_mss + (1 << c.rcv_wscale)
    if c._held_octets + c.reassembly.octets > most:
        yield "memory", f"{where}: keeps {c._held_octets + c.reassembly.octets} octets of {most}"


def _timers(c: Connection, where: str, now: float) -> Iterator[Broken]:
    """Armed exactly when needed."""
    out = c.snd_nxt > c.snd_una
    due = c.next_deadline()
    if due < now:
        yield "timer", f"{where}: a timer of {due} did not run by {now}"
    if c.heap_at > due:
        yield "timer", f"{where}: the host looks at {c.heap_at}, a timer is due at {due}"
    repairing = min(c._retransmit_at, c._persist_at, c._reorder_at)
    if out and repairing == inf:
        yield "timer", f"{where}: {c.snd_nxt - c.snd_una} octets out, and no timer"
    if not out and c._retransmit_at < inf:
        yield "timer", f"{where}: nothing is out, and the retransmission timer runs"
    if c.unsent and not out and repairing == inf and c.state in _SENDING:
        yield "timer", f"{where}: {c.unsent} octets wait, nothing is out, and no timer"
    if c._unacked and c._delack_at == inf and c.state >= ESTABLISHED:
        yield "timer", f"{where}: {c._unacked} octets to acknowledge, and no timer"


def of_host(host: Host) -> Iterator[Broken]:
    """Every rule that a host's tables break, whatever goes on."""
    table = host.tcp
    limits, half_open, waiting = table.limits, table._half_open.count, table._time_wait.count
    half = waits = 0
    for flow in table.flows.values():
        half += isinstance(flow, HalfOpen)
        waits += isinstance(flow, TimeWait)
    if (half, waits) != (half_open, waiting):
        yield "tables", f"{half} half-open, {waits} in TIME-WAIT; counted {half_open}, {waiting}"
    for name, size, most in (
        ("connections", len(table.flows) - waits, limits.connections),
        ("half-open", half, limits.half_open),
        ("TIME-WAIT", waits, limits.time_wait),
        ("UDP flows", len(host.udp.flows), limits.udp_flows),
        ("UDP peers", len(host.udp.peers), limits.udp_flows),
    ):
        if size > most:
            yield "tables", f"{size} {name}, at most {most}"


def of_idle_host(host: Host) -> Iterator[Broken]:
    """Every rule that a host breaks on which nothing has been going on for longer than 2 MSL."""
    yield from of_host(host)
    table = host.tcp
    for flow in table.flows.values():
        name = flow.state_name if isinstance(flow, Connection) else type(flow).__name__
        yield "afterlife", f"something lives on: {name}"
    if table._per_peer:
        yield "afterlife", f"connections by peer are {table._per_peer}"
    if host._dirty:
        yield "afterlife", f"{len(host._dirty)} connections want a turn"
    for listener in table._listeners.values():
        if listener.half_open:
            yield "afterlife", f"a listener counts {listener.half_open} half-open connections"
        if listener.opens.is_full(1, inf):  # without those that were reset, which count by time
            yield "afterlife", f"a listener counts {listener.opens.pending} fast opens"
