"""The eleven states of RFC 9293 §3.3.2 and every transition between them, as one table.

`Connection._become` is the only place that assigns a state, and it checks the step against
`TRANSITIONS`; the diagram in the documentation is drawn from the same rows, so the picture and
the code cannot disagree.

This module holds no behaviour.  It imports only the standard library.
"""

from __future__ import annotations

from typing import Final, NamedTuple

# Plain ints rather than an Enum: the state is tested on every segment.
CLOSED: Final = 0
LISTEN: Final = 1
SYN_SENT: Final = 2
SYN_RECEIVED: Final = 3
ESTABLISHED: Final = 4
FIN_WAIT_1: Final = 5
FIN_WAIT_2: Final = 6
CLOSE_WAIT: Final = 7
CLOSING: Final = 8
LAST_ACK: Final = 9
TIME_WAIT: Final = 10

NAMES: Final[tuple[str, ...]] = (
    "CLOSED",
    "LISTEN",
    "SYN-SENT",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
)


class Transition(NamedTuple):
    """One arrow of the diagram: from `source` to `target`, on `event`, doing `action`."""

    source: int
    target: int
    event: str
    action: str


# RFC 9293 §3.3.2, figure 5, with the arrows that its notes and §3.10 add (reset, abort, timeout).
TRANSITIONS: Final[tuple[Transition, ...]] = (
    Transition(CLOSED, LISTEN, "passive OPEN", "create TCB"),
    Transition(CLOSED, SYN_SENT, "active OPEN", "create TCB, send SYN"),
    Transition(LISTEN, SYN_RECEIVED, "receive SYN", "send SYN,ACK"),
    Transition(LISTEN, SYN_SENT, "SEND", "send SYN"),
    Transition(LISTEN, CLOSED, "CLOSE", "delete TCB"),
    Transition(SYN_SENT, SYN_RECEIVED, "receive SYN", "send SYN,ACK"),
    Transition(SYN_SENT, ESTABLISHED, "receive SYN,ACK", "send ACK"),
    Transition(SYN_SENT, CLOSED, "CLOSE, RST or timeout", "delete TCB"),
    Transition(SYN_RECEIVED, ESTABLISHED, "receive ACK of SYN", ""),
    Transition(SYN_RECEIVED, FIN_WAIT_1, "CLOSE", "send FIN"),
    Transition(SYN_RECEIVED, LISTEN, "receive RST", "back to the passive OPEN"),
    Transition(SYN_RECEIVED, CLOSED, "RST or timeout", "delete TCB"),
    Transition(ESTABLISHED, FIN_WAIT_1, "CLOSE", "send FIN"),
    Transition(ESTABLISHED, CLOSE_WAIT, "receive FIN", "send ACK"),
    Transition(ESTABLISHED, CLOSED, "ABORT, RST or timeout", "delete TCB"),
    Transition(FIN_WAIT_1, FIN_WAIT_2, "receive ACK of FIN", ""),
    Transition(FIN_WAIT_1, CLOSING, "receive FIN", "send ACK"),
    Transition(FIN_WAIT_1, TIME_WAIT, "receive FIN and ACK of FIN", "send ACK"),
    Transition(FIN_WAIT_1, CLOSED, "ABORT, RST or timeout", "delete TCB"),
    Transition(FIN_WAIT_2, TIME_WAIT, "receive FIN", "send ACK"),
    Transition(FIN_WAIT_2, CLOSED, "ABORT, RST or timeout", "delete TCB"),
    Transition(CLOSE_WAIT, LAST_ACK, "CLOSE", "send FIN"),
    Transition(CLOSE_WAIT, CLOSED, "ABORT, RST or timeout", "delete TCB"),
    Transition(CLOSING, TIME_WAIT, "receive ACK of FIN", ""),
    Transition(CLOSING, CLOSED, "ABORT, RST or timeout", "delete TCB"),
    Transition(LAST_ACK, CLOSED, "receive ACK of FIN", "delete TCB"),
    Transition(TIME_WAIT, CLOSED, "timeout of 2 MSL", "delete TCB"),
)

ALLOWED: Final[frozenset[tuple[int, int]]] = frozenset((t.source, t.target) for t in TRANSITIONS)

# The same as bits, for `_become`: bit t of STEPS[s] is set when a step leads from s to t.
STEPS: Final[tuple[int, ...]] = tuple(
    sum(1 << target for target in range(len(NAMES)) if (source, target) in ALLOWED)
    for source in range(len(NAMES))
)


def allowed(source: int, target: int) -> bool:
    """Tell whether RFC 9293 knows a step from `source` to `target`."""
    return (source, target) in ALLOWED
