"""Pictures for the pages, drawn from the code that they explain.

So far one: the TCP state diagram. Its arrows and their words are the rows of
`appliance.net.tcp_state.TRANSITIONS`; only where they run is placed by hand here. An arrow without
a place still appears, as a straight line, so a new row cannot be missing from the picture.

Pure text in, text out. May import the table and the standard library.
"""

from __future__ import annotations

from html import escape
from typing import Final

from appliance.net import tcp_state as tcp
from appliance.net.tcp_state import NAMES, TRANSITIONS, Transition

WIDTH: Final = 880
HEIGHT: Final = 910
BOX: Final = (136, 40)
"""Width and height of a state's box, in the units of the drawing, as everything below."""

# Centre of each state. The three columns are the passive, the common and the active way.
STATES: Final[dict[int, tuple[int, int]]] = {
    tcp.CLOSED: (440, 36),
    tcp.LISTEN: (440, 162),
    tcp.SYN_RECEIVED: (150, 290),
    tcp.SYN_SENT: (730, 290),
    tcp.ESTABLISHED: (440, 420),
    tcp.FIN_WAIT_1: (150, 550),
    tcp.CLOSE_WAIT: (730, 550),
    tcp.CLOSING: (440, 650),
    tcp.FIN_WAIT_2: (150, 750),
    tcp.LAST_ACK: (730, 710),
    tcp.TIME_WAIT: (440, 860),
}
END: Final = (730, 860)
"""CLOSED a second time, as in RFC 9293's own figure, so that the way out need not climb."""

# Path of an arrow, then place and anchor of its words. CLOSED as a target at the bottom is END.
ROUTES: Final[dict[tuple[int, int], tuple[str, int, int, str]]] = {
    (tcp.CLOSED, tcp.LISTEN): ("M424 56V142", 414, 94, "end"),
    (tcp.LISTEN, tcp.CLOSED): ("M456 142V56", 466, 94, "start"),
    (tcp.CLOSED, tcp.SYN_SENT): ("M508 36H700Q730 36 730 66V270", 722, 94, "end"),
    (tcp.LISTEN, tcp.SYN_SENT): ("M508 170H640Q676 170 684 204L698 270", 640, 190, "end"),
    (tcp.LISTEN, tcp.SYN_RECEIVED): ("M372 170H240Q204 170 196 204L182 270", 240, 190, "start"),
    (tcp.SYN_RECEIVED, tcp.LISTEN): ("M150 270V184Q150 154 180 154H372", 160, 126, "start"),
    (tcp.SYN_SENT, tcp.SYN_RECEIVED): ("M662 290H218", 440, 264, "middle"),
    (tcp.SYN_RECEIVED, tcp.ESTABLISHED): ("M190 310Q220 404 372 416", 282, 362, "start"),
    (tcp.SYN_SENT, tcp.ESTABLISHED): ("M690 310Q660 404 508 416", 598, 356, "end"),
    (tcp.SYN_RECEIVED, tcp.FIN_WAIT_1): ("M120 310V530", 128, 440, "start"),
    (tcp.ESTABLISHED, tcp.FIN_WAIT_1): ("M372 426Q220 436 190 530", 276, 480, "start"),
    (tcp.ESTABLISHED, tcp.CLOSE_WAIT): ("M508 426Q660 436 690 530", 604, 480, "end"),
    (tcp.FIN_WAIT_1, tcp.CLOSING): ("M218 546H410Q440 546 440 576V630", 432, 576, "end"),
    (tcp.FIN_WAIT_1, tcp.TIME_WAIT): ("M196 570Q222 780 382 840", 280, 728, "start"),
    (tcp.FIN_WAIT_1, tcp.FIN_WAIT_2): ("M120 570V730", 112, 656, "end"),
    (tcp.FIN_WAIT_2, tcp.TIME_WAIT): ("M150 770V830Q150 860 180 860H372", 176, 838, "start"),
    (tcp.CLOSING, tcp.TIME_WAIT): ("M456 670V840", 464, 756, "start"),
    (tcp.CLOSE_WAIT, tcp.LAST_ACK): ("M730 570V690", 738, 624, "start"),
    (tcp.LAST_ACK, tcp.CLOSED): ("M730 730V840", 738, 778, "start"),
    (tcp.TIME_WAIT, tcp.CLOSED): ("M508 860H662", 585, 834, "middle"),
}

STUB: Final = 40
"""Length of such an arrow."""

# Resets, aborts and timeouts end almost every state; a short arrow beside the box says so: where it
# starts, and which way it points.
STUBS: Final[dict[int, tuple[int, int, str]]] = {
    tcp.SYN_SENT: (798, 290, "right"),
    tcp.SYN_RECEIVED: (82, 290, "left"),
    tcp.ESTABLISHED: (440, 440, "down"),
    tcp.FIN_WAIT_1: (82, 550, "left"),
    tcp.FIN_WAIT_2: (82, 750, "left"),
    tcp.CLOSE_WAIT: (798, 550, "right"),
    tcp.CLOSING: (372, 650, "left"),
}
# The path of such an arrow, then the place of its words from where it starts.
WAYS: Final[dict[str, tuple[str, int, int, str]]] = {
    "left": (f"h-{STUB}", -4, 16, "end"),
    "right": (f"h{STUB}", 4, 16, "start"),
    "down": (f"v{STUB}", 8, 22, "start"),
}


def tcp_states() -> str:
    """The state diagram of RFC 9293 §3.3.2 as an inline SVG that takes the page's text colour."""
    parts = [
        (
            f'<svg class="tcp-states" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'xmlns="http://www.w3.org/2000/svg" aria-labelledby="tcp-states-title" '
            'font-family="ui-sans-serif, system-ui, sans-serif" font-size="13" fill="currentColor">'
        ),
        (
            '<title id="tcp-states-title">The states of a TCP connection and the steps between them'
            "</title>"
        ),
        (
            '<defs><marker id="tcp-states-tip" viewBox="0 0 10 10" refX="9" refY="5" '
            'markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
            '<path d="M0 1 10 5 0 9z"/></marker></defs>'
        ),
        '<g fill="none" stroke="currentColor" stroke-width="1.4">',
        *(_arrow(step) for step in TRANSITIONS),
        "</g>",
        "<g>",
        *(_words(step) for step in TRANSITIONS),
        "</g>",
        '<g text-anchor="middle" font-weight="600">',
        *(_box(NAMES[state], *centre) for state, centre in STATES.items()),
        _box(NAMES[tcp.CLOSED], *END),
        "</g>",
        _text(14, HEIGHT - 12, "start", "dashed: to CLOSED", "", 10),
        "</svg>",
    ]
    return "\n".join(parts)


def _is_stub(step: Transition) -> bool:
    return (step.source, step.target) not in ROUTES and (
        step.target == tcp.CLOSED and step.source in STUBS
    )


def _arrow(step: Transition) -> str:
    names = f'data-from="{NAMES[step.source]}" data-to="{NAMES[step.target]}"'
    tip = 'marker-end="url(#tcp-states-tip)"'
    if _is_stub(step):
        x, y, way = STUBS[step.source]
        return f'<path {names} d="M{x} {y}{WAYS[way][0]}" stroke-dasharray="4 3" {tip}/>'
    route = ROUTES.get((step.source, step.target))
    if route is None:
        (x1, y1), (x2, y2) = STATES[step.source], STATES[step.target]
        return f'<path {names} d="M{x1} {y1}L{x2} {y2}" stroke-dasharray="1 3" {tip}/>'
    return f'<path {names} d="{route[0]}" {tip}/>'


def _words(step: Transition) -> str:
    """The event, and under it, paler, what is done."""
    if _is_stub(step):
        x, y, way = STUBS[step.source]
        _, right, down, anchor = WAYS[way]
        first, _, second = step.event.rpartition(" or ")
        return _text(x + right, y + down, anchor, first, f"or {second}", 10)
    route = ROUTES.get((step.source, step.target))
    if route is None:
        (x1, y1), (x2, y2) = STATES[step.source], STATES[step.target]
        return _text((x1 + x2) // 2, (y1 + y2) // 2, "middle", step.event, step.action)
    _, x, y, anchor = route
    return _text(x, y, anchor, step.event, step.action)


def _text(x: int, y: int, anchor: str, event: str, action: str, size: int = 12) -> str:
    action = (
        f'<tspan x="{x}" dy="1.2em" opacity=".65" font-style="italic">{escape(action)}</tspan>'
        if action
        else ""
    )
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(event)}{action}</text>"
    )


def _box(name: str, x: int, y: int) -> str:
    width, height = BOX
    return (
        f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" '
        'rx="8" fill="currentColor" fill-opacity=".07" stroke="currentColor"/>'
        f'<text x="{x}" y="{y + 5}">{escape(name)}</text>'
    )
