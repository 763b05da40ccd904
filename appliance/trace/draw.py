"""Charts in SVG: panels with axes, and lines, bars and points in them; light and dark.

Plain text, a few classes whose colours are in one style sheet inside the picture. A picture of
many points stays small: lines and bars that fall into the same half pixel are drawn once. Imports
the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Final

# Light, dark. The hues tell apart with any kind of colour vision (after Okabe and Ito, 2008).
COLOURS: Final[dict[str, tuple[str, str]]] = {
    "paper": ("#ffffff", "#15181c"),
    "ink": ("#20242a", "#e4e7eb"),
    "faint": ("#6a727c", "#98a1ac"),
    "grid": ("#e3e6ea", "#2c3138"),
    "blue": ("#0072b2", "#56b4e9"),
    "orange": ("#d55e00", "#ff8c42"),
    "green": ("#007a5a", "#2fc79c"),
    "purple": ("#a3498b", "#e08cc6"),
    "amber": ("#9a6b00", "#e6b33c"),
}
_STEP: Final = 0.5  # pixels: what is closer together is one


def style() -> str:
    """Return the style sheet: one class for each colour, as line (`s-`) and as area (`f-`)."""

    def rules(index: int) -> str:
        return "".join(
            f".s-{name}{{stroke:{both[index]}}}.f-{name}{{fill:{both[index]}}}"
            for name, both in COLOURS.items()
        )

    return (
        "<style>svg{font:12px ui-sans-serif,system-ui,sans-serif}text{stroke:none}"
        "path{fill:none;stroke-linejoin:round}.b{font-weight:600}.t{font-size:15px}"
        f"{rules(0)}@media (prefers-color-scheme:dark){{{rules(1)}}}</style>"
    )


def document(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """Return a whole SVG picture on its own paper."""
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                f'width="{width}" height="{height}" role="img">'
            ),
            f"<title>{escape(title)}</title>",
            style(),
            f'<rect class="f-paper" width="{width}" height="{height}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", cls: str = "f-ink") -> str:
    """Return a line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{cls}">{escape(words)}</text>'
    )


def legend(x: float, y: float, entries: Sequence[tuple[str, str]]) -> str:
    """Return a row of (colour, words), each with its mark."""
    parts = []
    for colour, words in entries:
        parts.append(
            f'<rect class="f-{colour}" x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10"/>'
        )
        parts.append(text(x + 15, y, words))
        x += 15 + 6.6 * len(words) + 18
    return "".join(parts)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers from `low` to `high`, about `count` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / max(count, 1)
    unit: float = 10.0 ** floor(log10(raw))
    step = next(unit * f for f in (1, 2, 5, 10) if unit * f >= raw * 0.999)
    first = ceil(low / step - 1e-9)
    return [n * step for n in range(first, floor(high / step + 1e-9) + 1)]


def quantity(value: float) -> str:
    """Write octets in the unit that suits: 1500, 64 k, 1.5 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


@dataclass
class Panel:
    """A rectangle with two axes; `x` and `y` map values to pixels."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log_x: bool = False
    log_y: bool = False

    def x(self, value: float) -> float:
        """Return the place of a value on the horizontal axis."""
        return self.left + self.width * _share(value, self.x_range, self.log_x)

    def y(self, value: float) -> float:
        """Return the place of a value on the vertical axis."""
        return self.top + self.height * (1.0 - _share(value, self.y_range, self.log_y))

    def frame(
        self,
        name: str,
        *,
        x_ticks: Sequence[float],
        y_ticks: Sequence[float],
        x_name: Callable[[float], str] | None = None,
        y_name: Callable[[float], str] = quantity,
    ) -> str:
        """Return grid, axes' words and the panel's name; without `x_name` no words below."""
        right, bottom = self.left + self.width, self.top + self.height
        grid = "".join(f"M{self.x(v):.1f} {self.top:.1f}V{bottom:.1f}" for v in x_ticks)
        grid += "".join(f"M{self.left:.1f} {self.y(v):.1f}H{right:.1f}" for v in y_ticks)
        parts = [f'<path class="s-grid" d="{grid}"/>']
        parts += [
            text(self.left - 8, self.y(v) + 4, y_name(v), anchor="end", cls="f-faint")
            for v in y_ticks
        ]
        if x_name is not None:
            parts += [
                text(self.x(v), bottom + 18, x_name(v), anchor="middle", cls="f-faint")
                for v in x_ticks
            ]
        parts.append(text(self.left, self.top - 8, name, cls="f-ink b"))
        return "".join(parts)

    def line(
        self,
        points: Iterable[tuple[float, float]],
        colour: str,
        *,
        steps: bool = False,
        dashed: bool = False,
        width: float = 1.5,
    ) -> str:
        """Return a line through the points, or (`steps`) one that holds each value to the next."""
        d: list[str] = []
        last = (-1e9, -1e9)
        held: tuple[float, float] | None = None  # left out for being close; the last one counts
        for at, value in points:
            place = (self.x(at), self.y(value))
            if d and abs(place[0] - last[0]) < _STEP and abs(place[1] - last[1]) < _STEP:
                held = place
                continue
            d += _to(held, steps) if held is not None and d else []
            d += _to(place, steps) if d else [f"M{place[0]:.1f} {place[1]:.1f}"]
            last, held = place, None
        if held is not None:
            d += _to(held, steps)
        if not d:
            return ""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        return f'<path class="s-{colour}" stroke-width="{width}"{dash} d="{"".join(d)}"/>'

    def bars(self, spans: Iterable[tuple[float, float, float]], colour: str, width: float) -> str:
        """Return upright bars, each (time, from, to); those in one column are joined."""
        columns: dict[int, list[tuple[float, float]]] = {}
        for at, low, high in spans:
            place = self.y(low), self.y(high)
            columns.setdefault(round(self.x(at) / _STEP), []).append((place[1], place[0]))
        d: list[str] = []
        for column, pieces in sorted(columns.items()):
            pieces.sort()
            top, bottom = pieces[0]
            for start, end in [*pieces[1:], (float("inf"), 0.0)]:
                if start <= bottom + _STEP:
                    bottom = max(bottom, end)
                    continue
                # A small segment in a long trace must not vanish.
                d.append(f"M{column * _STEP:g} {top:.1f}V{max(bottom, top + 1.0):.1f}")
                top, bottom = start, end
        if not d:
            return ""
        return f'<path class="s-{colour}" stroke-width="{width}" d="{"".join(d)}"/>'

    def dots(self, points: Iterable[tuple[float, float]], colour: str, size: float = 2.0) -> str:
        """Return a dot at each point."""
        places = {(round(self.x(at), 1), round(self.y(value), 1)) for at, value in points}
        return "".join(
            f'<circle class="f-{colour}" cx="{x:g}" cy="{y:g}" r="{size}"/>'
            for x, y in sorted(places)
        )

    def shade(self, spans: Iterable[tuple[float, float]], colour: str) -> str:
        """Return bands from top to bottom over spans of the horizontal axis."""
        return "".join(
            f'<rect class="f-{colour}" opacity=".13" x="{self.x(a):.1f}" y="{self.top:.1f}" '
            f'width="{max(self.x(b) - self.x(a), 1):.1f}" height="{self.height:.1f}"/>'
            for a, b in spans
        )


def _share(value: float, limits: tuple[float, float], log: bool) -> float:
    low, high = limits
    if log:
        value, low, high = log10(value), log10(low), log10(high)
    return (value - low) / (high - low) if high > low else 0.5


def _to(place: tuple[float, float], steps: bool) -> list[str]:
    x, y = place
    return [f"H{x:.1f}V{y:.1f}"] if steps else [f"L{x:.1f} {y:.1f}"]
