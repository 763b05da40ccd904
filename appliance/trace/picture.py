"""One connection as a picture: sequence numbers over time, and below the windows and round trips.

    top       each segment sent is an upright bar from its first number to its last; in another
              colour when it was sent again; the line under them is what has been acknowledged,
              the one above them the peer's window; bars beside them are SACK blocks
    middle    congestion window, threshold and octets in flight; with a capture, what was in flight
    bottom    round trips as measured, smoothed, and the timeout

Bands mark repairs. The way that is drawn is the one of the end that sent more; with a trace, ours.
"""

from __future__ import annotations

from html import escape
from typing import Final

from appliance.trace import draw
from appliance.trace.draw import Panel, quantity
from appliance.trace.flows import Connection, State

WIDTH: Final = 1120
_LEFT, _RIGHT = 74, 20
_TOP: Final = 96
_TALL, _MIDDLE, _LOW = 400, 170, 130
_GAP: Final = 44
HEIGHT: Final = _TOP + _TALL + _MIDDLE + _LOW + 2 * _GAP + 50


def svg(connection: Connection) -> str:
    """Draw one connection."""
    end = max(connection.begun + connection.lasted, connection.begun + 1e-6)
    span = (connection.begun, end)
    x_ticks = draw.ticks(*span, 10)
    width = WIDTH - _LEFT - _RIGHT
    sequence = _sequence_panel(connection, span, width)
    windows = _windows_panel(connection, span, width)
    trips = _trips_panel(connection, span, width)
    parts = [
        draw.text(_LEFT, 28, f"{connection.local} to {connection.remote}", cls="f-ink b t"),
        draw.text(_LEFT, 48, summary(connection), cls="f-faint"),
        *_sequence(connection, sequence, x_ticks),
        *_windows(connection, windows, x_ticks),
        *_trips(connection, trips, x_ticks),
    ]
    title = f"TCP connection {connection.number}: {connection.local} to {connection.remote}"
    return draw.document(WIDTH, HEIGHT, title, parts)


def html(connections: list[Connection]) -> str:
    """Draw several on one page that needs nothing else."""
    pictures = "\n".join(
        f'<h2 id="c{each.number}">{each.number}. {escape(each.local)} – {escape(each.remote)}'
        f"</h2>\n{svg(each)}"
        for each in connections
    )
    paper, ink = draw.COLOURS["paper"], draw.COLOURS["ink"]
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TCP connections</title>
<style>
body {{ margin: 1rem; font: 15px/1.5 ui-sans-serif, system-ui, sans-serif;
  background: {paper[0]}; color: {ink[0]} }}
h2 {{ font-size: 1rem; margin: 2rem 0 .5rem }}
body > svg {{ max-width: 100%; height: auto; display: block }}
@media (prefers-color-scheme: dark) {{ body {{ background: {paper[1]}; color: {ink[1]} }} }}
</style>
{pictures}
</html>
"""


def summary(connection: Connection) -> str:
    """Return a line of figures."""
    sent, lasted = connection.octets(True), connection.lasted
    parts = [
        f"{octets(sent)} sent",
        f"{octets(connection.octets(False))} received",
        f"{lasted:.3f} s",
    ]
    if lasted > 0:
        parts.append(f"{sent * 8 / lasted / 1e6:.2f} Mbit/s")
    again = connection.again()
    parts.append(f"{again} segment{'' if again == 1 else 's'} sent again")
    if connection.states:
        parts.append(connection.states[-1].congestion)
    trips = [seconds for _, seconds in connection.round_trips()]
    if trips:
        parts.append(f"fastest round trip {min(trips) * 1e3:.1f} ms")
    return " · ".join(parts)


def octets(count: int) -> str:
    """Write a number of octets: 800 B, 64 kB."""
    return f"{quantity(count)}B" if count >= 1000 else f"{count} B"


# ---- panels


def _sequence_panel(connection: Connection, span: tuple[float, float], width: float) -> Panel:
    sent = [e for e in connection.events if e.sent and e.length]
    acks = [e for e in connection.events if not e.sent and e.ack is not None]
    low = min([*(e.seq for e in sent), *(e.ack or 0 for e in acks)], default=0)
    top = max([low + 1, *(e.seq + e.length for e in sent)])
    # The window matters where it is near; one of megabytes would flatten everything else.
    window = max([top, *((e.ack or 0) + e.window for e in acks)])
    high = min(window, low + (top - low) * 1.25)
    return Panel(_LEFT, _TOP, width, _TALL, span, (low, high + (high - low) * 0.02))


def _windows_panel(connection: Connection, span: tuple[float, float], width: float) -> Panel:
    values = [float(s.cwnd) for s in connection.states]
    values += [s.in_flight for s in connection.states]
    # A first threshold that was left at the sky would hide the rest.
    values += [s.ssthresh for s in connection.states if s.ssthresh is not None]
    values += [octets for _, octets in in_flight(connection)]
    top = _TOP + _TALL + _GAP
    return Panel(_LEFT, top, width, _MIDDLE, span, (0, max([1, *values]) * 1.08))


def _trips_panel(connection: Connection, span: tuple[float, float], width: float) -> Panel:
    values = [seconds for _, seconds in connection.round_trips()]
    values += [s.srtt for s in connection.states]
    rto = max([s.rto for s in connection.states if s.srtt], default=0.0)
    most = max([1e-6, *values])
    top = _TOP + _TALL + _MIDDLE + 2 * _GAP
    # The timeout is drawn as far as it does not flatten the measurements.
    return Panel(_LEFT, top, width, _LOW, span, (0, min(max(most, rto), most * 4) * 1.1))


def _sequence(connection: Connection, panel: Panel, x_ticks: list[float]) -> list[str]:
    events = connection.events
    limit = panel.y_range[1]
    sent = [e for e in events if e.sent and e.length]
    acks = [e for e in events if not e.sent and e.ack is not None]
    top, una = [], []
    highest = 0
    for event in acks:
        assert event.ack is not None
        highest = max(highest, event.ack)
        una.append((event.at, highest))
        top.append((event.at, min(event.ack + event.window, limit)))
    if una:
        una.append((panel.x_range[1], una[-1][1]))
        top.append((panel.x_range[1], top[-1][1]))
    blocks = [(e.at, left, right) for e in acks for left, right in e.sack]
    return [
        draw.legend(
            _LEFT + 190,
            _TOP - 8,
            (
                ("blue", "sent"), ("orange", "sent again"), ("green", "acknowledged"),
                ("purple", "SACK blocks"), ("amber", "the peer's window"),
            ),
        ),
        panel.frame(
            "Sequence numbers", x_ticks=x_ticks, y_ticks=draw.ticks(*panel.y_range, 8)
        ),
        *_repairs(connection, panel),
        panel.line(top, "amber", steps=True),
        panel.bars(blocks, "purple", 1.0),
        panel.line(una, "green", steps=True),
        panel.bars(
            [(e.at, e.seq, e.seq + e.length) for e in sent if not e.again], "blue", 1.5
        ),
        panel.bars([(e.at, e.seq, e.seq + e.length) for e in sent if e.again], "orange", 2.5),
        # In a long trace one segment is less than a pixel, and these are what one looks for.
        panel.dots([(e.at, e.seq + e.length / 2) for e in sent if e.again], "orange", 2.2),
    ]  # fmt: skip


def _windows(connection: Connection, panel: Panel, x_ticks: list[float]) -> list[str]:
    states = connection.states
    y_ticks = draw.ticks(*panel.y_range, 4)
    if not states:
        return [
            panel.frame("In flight, octets", x_ticks=x_ticks, y_ticks=y_ticks),
            panel.line(in_flight(connection), "blue", steps=True),
        ]
    threshold = [(s.at, s.ssthresh) for s in states if s.ssthresh is not None]
    if threshold:
        threshold.append((states[-1].at, threshold[-1][1]))
    entries = (("blue", "in flight"), ("green", "cwnd"), ("amber", "ssthresh"))
    return [
        draw.legend(_LEFT + 190, panel.top - 8, entries),
        panel.frame("Windows, octets", x_ticks=x_ticks, y_ticks=y_ticks),
        *_repairs(connection, panel),
        panel.line([(s.at, s.in_flight) for s in states], "blue", steps=True, width=1.0),
        panel.line(threshold, "amber", steps=True, dashed=True),
        panel.line([(s.at, s.cwnd) for s in states], "green", steps=True, width=1.8),
    ]


def _trips(connection: Connection, panel: Panel, x_ticks: list[float]) -> list[str]:
    states = [s for s in connection.states if s.srtt]
    limit = panel.y_range[1]
    entries = [("blue", "measured")]
    if states:
        entries += [("green", "srtt"), ("amber", "timeout")]
    return [
        draw.legend(_LEFT + 190, panel.top - 8, entries),
        panel.frame(
            "Round trips, ms",
            x_ticks=x_ticks,
            y_ticks=draw.ticks(*panel.y_range, 4),
            x_name=lambda v: f"{v:g} s" if v >= 1 or v == 0 else f"{v * 1e3:g} ms",
            y_name=lambda v: f"{v * 1e3:g}",
        ),
        *_repairs(connection, panel),
        panel.line([(s.at, min(s.rto, limit)) for s in states], "amber", steps=True, dashed=True),
        panel.dots(connection.round_trips(), "blue", 1.6),
        panel.line([(s.at, s.srtt) for s in states], "green", steps=True, width=1.8),
    ]


def _repairs(connection: Connection, panel: Panel) -> list[str]:
    return [
        panel.shade(during(connection.states, "recovery"), "purple"),
        panel.shade(during(connection.states, "loss"), "orange"),
    ]


def during(states: list[State], ca: str) -> list[tuple[float, float]]:
    """Return the spans of time in which the connection was in this state of repair."""
    spans: list[tuple[float, float]] = []
    since: float | None = None
    for state in states:
        if state.ca == ca and since is None:
            since = state.at
        elif state.ca != ca and since is not None:
            spans.append((since, state.at))
            since = None
    if since is not None:
        spans.append((since, states[-1].at))
    return spans


def in_flight(connection: Connection) -> list[tuple[float, float]]:
    """Return octets sent and not acknowledged over time, as the segments show it."""
    found: list[tuple[float, float]] = []
    nxt = una = 0
    for event in connection.events:
        if event.sent:
            nxt = max(nxt, event.seq + event.length)
        elif event.ack is not None:
            una = max(una, event.ack)
        found.append((event.at, max(nxt - una, 0)))
    return found
