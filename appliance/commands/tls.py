"""`appliance tls`: each certificate, its chain, when it ends and is renewed, and what went wrong.

The running appliance writes what it knows to the state directory; this reads it, and needs nothing
but the file. Status 1 tells that something is wrong: an error, or a certificate that has expired.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
from pathlib import Path
from typing import Any

from appliance.commands import FAILED, MISUSED, OK, complain, config_path, overrides, say


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", type=Path, help="settings (default: appliance.toml here)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> int:
    """Tell."""
    from appliance.config import ConfigError, load

    path = config_path(options)
    if path is None:
        return MISUSED
    try:
        settings = load(path, overrides(options))
    except ConfigError as exc:
        for problem in exc.problems:
            complain(str(problem))
        return MISUSED
    file = settings.tls.state / "tls" / "status.json"
    try:
        status: dict[str, Any] = json.loads(file.read_text())
        rows: list[dict[str, Any]] = status["certificates"]
    except FileNotFoundError:
        complain(f"{file} is not there: the appliance has not served with TLS from here yet")
        return FAILED
    except (OSError, ValueError, KeyError, TypeError) as exc:
        complain(f"{file} cannot be read: {exc}")
        return FAILED
    now = dt.datetime.now(dt.UTC)
    if options.json:
        say(json.dumps(status, indent=2))
    else:
        for line in table(rows, now):
            say(line)
        say(f"as of {status.get('written', 'an unknown time')}")
    return FAILED if any(trouble(row, now) for row in rows) else OK


def trouble(row: dict[str, Any], now: dt.datetime) -> str:
    """What is wrong with a certificate, in words; "" if nothing is."""
    if row["error"]:
        return str(row["error"])
    if row["not_after"] is None:
        return "there is none yet"
    if dt.datetime.fromisoformat(row["not_after"]) <= now:
        return "it has expired"
    return ""


def table(rows: list[dict[str, Any]], now: dt.datetime) -> list[str]:
    """The lines, a few for each certificate."""
    if not rows:
        return ["no certificates"]
    lines: list[str] = []
    for row in rows:
        lines.append(", ".join(row["names"]) or "(names unknown)")
        about = [("from", row["file"] if row["source"] == "files" else row["source"])]
        if row["not_after"] is not None:
            about += [
                ("issuer", row["issuer"]),
                ("key", row["key"]),
                ("chain", " <- ".join(row["chain"])),
                ("SHA-256", row["sha256"]),
                ("valid until", f"{row['not_after']} ({_left(row['not_after'], now)})"),
            ]
        renewal = row["renewal"]
        about.append(
            ("next renewal", f"{renewal} ({_left(renewal, now)})" if renewal else "when it changes")
        )
        wrong = trouble(row, now)
        if wrong:
            when = f" ({row['error_at']})" if row["error"] else ""
            about.append(("error", wrong + when))
        lines += [f"  {label + ':':<14}{value}" for label, value in about]
    return lines


def _left(text: str, now: dt.datetime) -> str:
    """How far away a time is: in days, or hours when it is near."""
    seconds = (dt.datetime.fromisoformat(text) - now).total_seconds()
    amount, unit = abs(seconds) / 3600, "hours"
    if amount > 48:
        amount, unit = amount / 24, "days"
    return f"in {amount:.0f} {unit}" if seconds > 0 else f"{amount:.0f} {unit} ago"
