"""The table for people and the JSON for programs."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path

from bench.rows import Result

_HEAD = (
    *("row", "unit", "ours", "±", "peer", "±", "ratio", "cpu µs ours", "cpu µs peer"),
    *("p99 µs ours", "p99 µs peer", "peer is"),
)
_LEFT = (0, 1, len(_HEAD) - 1)  # columns of words

_NOTES = """\
Medians of {rounds} rounds in alternation; ± is (largest - smallest) / median; ratio is ours / peer;
cpu is user and system time of the server process per request, p99 the latency that 99 of 100
requests stayed below. Less is better where the unit is KB, MB or µs, and in lines "also", but for
rates."""


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"


def _cells(result: Result) -> tuple[str, ...]:
    return (
        result.row,
        result.unit,
        _figure(result.median("ours")),
        f"{result.spread('ours'):.0%}",
        _figure(result.median("peer")),
        f"{result.spread('peer'):.0%}",
        f"{result.ratio:.2f}" if result.median("peer") else "-",
        _figure(result.median("cpu_us_ours")),
        _figure(result.median("cpu_us_peer")),
        _figure(result.median("p99_us_ours")) if result.median("p99_us_ours") else "-",
        _figure(result.median("p99_us_peer")) if result.median("p99_us_peer") else "-",
        result.peer_name,
    )


def table(results: list[Result]) -> str:
    """Return the table: medians, spread, ratio ours to peer, server processor time per request."""
    rows = [_HEAD, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    more = [
        f"{result.row} also: {name} {_figure(ours)} against {_figure(peer)}"
        for result in results
        for name, (ours, peer) in result.more().items()
    ]
    if more:
        lines += ["", *more]
    lines += ["", _NOTES.format(rounds=len(results[0].rounds) if results else 0)]
    lines.append(f"Python {platform.python_version()}, Linux {platform.release()}.")
    return "\n".join(lines)


def write_json(results: list[Result], path: Path) -> None:
    """Write a list of objects, one a row: medians, ratio, and every round's values."""
    rows = [
        {
            "row": result.row,
            "ours": result.median("ours"),
            "peer": result.median("peer"),
            "peer_name": result.peer_name,
            "unit": result.unit,
            "ratio": result.ratio if result.median("peer") else None,
            "cpu_us_ours": result.median("cpu_us_ours"),
            "cpu_us_peer": result.median("cpu_us_peer"),
            "p99_us_ours": result.median("p99_us_ours"),
            "p99_us_peer": result.median("p99_us_peer"),
            "more": result.more(),
            "rounds": [asdict(each) for each in result.rounds],
        }
        for result in results
    ]
    path.write_text(json.dumps(rows, indent=2) + "\n")
