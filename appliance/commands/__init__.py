"""The commands of the command line, a module each, and what they have in common.

Cheap to import: argparse and pathlib; everything else is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""


def settings_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads the settings."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", type=Path, help="settings (default: appliance.toml here)"
    )
    parser.add_argument("--site", metavar="DIR", type=Path, help="pages")
    parser.add_argument("--zones", metavar="DIR", type=Path, help="master files, *.zone")


def config_path(options: argparse.Namespace) -> Path | None:
    """The settings' file; None, and a complaint, when there is none."""
    path: Path | None = options.config
    if path is None and os.path.lexists("appliance.toml"):
        path = Path("appliance.toml")
    if path is None and not os.access(".", os.X_OK):
        complain(f"{Path.cwd()} cannot be looked into: Permission denied")
        return None
    if path is None:
        complain(f"no appliance.toml in {Path.cwd()}: go where one is, or name one with -c FILE")
    return path


def overrides(options: argparse.Namespace) -> dict[str, object]:
    """What the command line puts over the file; paths are relative to the working directory."""
    from appliance.config import OPTIONS

    found: dict[str, object] = {}
    for key, option in OPTIONS.items():
        value = getattr(options, option.lstrip("-").replace("-", "_"), None)
        if value is not None:
            found[key] = value.absolute() if isinstance(value, Path) else value
    if more := getattr(options, "more", None):  # further links, as tables
        found["net.more"] = [{"probe": found.get("net.probe"), **link} for link in more]
    return found


def say(line: str) -> None:
    """Print a line at once."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Whoever read this has gone (`| head`); what is served does not depend on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as exc:
        # A full disk, a terminal that was hung up: nor does it on these.
        complain(f"standard output: {exc.strerror}: {line}")


def complain(line: str) -> None:
    """Print a line about what is wrong."""
    with contextlib.suppress(OSError):
        print(f"appliance: {line}", file=sys.stderr, flush=True)


def count(number: int, noun: str) -> str:
    """The number with its noun, as in 2 errors."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
