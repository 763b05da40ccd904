"""The table for people and the JSON for programs."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path

from bench.rows import Result

_HEAD = ("row", "unit", "ours", "±", "peer", "±", "ratio", "cpu µs ours", "cpu µs peer", "peer is")

_NOTES = """\
Medians of {rounds} rounds in alternation; ± is (largest - smallest) / median; ratio is ours / peer;
cpu is user and system time of the server process per request. idle-1000: resident memory and cpu
for each connection opened, less is better."""


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
        f"{result.ratio:.2f}",
        _figure(result.median("cpu_us_ours")),
        _figure(result.median("cpu_us_peer")),
        result.peer_name,
    )


def table(results: list[Result]) -> str:
    """Return the table: medians, spread, ratio ours to peer, server processor time per request."""
    rows = [_HEAD, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, 1, 9) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
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
            "ratio": result.ratio,
            "cpu_us_ours": result.median("cpu_us_ours"),
            "cpu_us_peer": result.median("cpu_us_peer"),
            "rounds": [asdict(each) for each in result.rounds],
        }
        for result in results
    ]
    path.write_text(json.dumps(rows, indent=2) + "\n")
