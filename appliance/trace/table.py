"""Connections as text: a list of all, and one's segments and states, a line each.

Imports `flows` and `picture`'s line of figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge

from appliance.trace.flows import Connection, Event, State
from appliance.trace.picture import octets, summary


def overview(connections: list[Connection]) -> Iterator[str]:
    """Yield a head and a line for each connection."""
    rows = [("no", "from", "to", "begun", "lasted", "sent", "received", "again", "state")]
    rows += [
        (
            str(each.number),
            each.local,
            each.remote,
            f"{each.begun:.3f} s",
            f"{each.lasted:.3f} s",
            octets(each.octets(True)),
            octets(each.octets(False)),
            str(each.again()),
            each.states[-1].name if each.states else "-",
        )
        for each in connections
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.ljust(width) if n in (1, 2, 8) else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def lines(connection: Connection) -> Iterator[str]:
    """Yield every segment and, between them, every state of one connection, in order of time."""
    yield f"{connection.number}. {connection.local} to {connection.remote}"
    yield summary(connection)
    yield ""
    timed: list[Iterator[tuple[float, int, str]]] = [
        ((event.at, 0, _segment(event)) for event in connection.events),
        ((state.at, 1, _state(state)) for state in connection.states),
    ]
    for at, _, words in merge(*timed):
        yield f"{at:12.6f}  {words}"
    if connection.ended is not None:
        yield f"{connection.ended:12.6f}  over"


def _segment(event: Event) -> str:
    arrow, end = "->" if event.sent else "<-", event.seq + event.length
    words = [f"{arrow} {event.flags:<4} {event.seq}:{end} ({event.length})"]
    if event.ack is not None:
        words.append(f"ack {event.ack}")
    words.append(f"win {event.window}")
    if event.sack:
        words.append("sack " + " ".join(f"{left}:{right}" for left, right in event.sack))
    if event.again:
        words.append("AGAIN")
    return " ".join(words)


def _state(state: State) -> str:
    ssthresh = "-" if state.ssthresh is None else str(state.ssthresh)
    return (
        f"   {state.name} {state.ca} una {state.snd_una} nxt {state.snd_nxt} cwnd {state.cwnd} "
        f"ssthresh {ssthresh} flight {state.in_flight} srtt {state.srtt * 1e3:.3f} ms "
        f"var {state.rttvar * 1e3:.3f} ms rto {state.rto * 1e3:.0f} ms"
    )
