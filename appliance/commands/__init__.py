"""The commands of the command line, a module each, and what they have in common.

Cheap to import: argparse and pathlib; everything else is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
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


class Interrupted(BaseException):
    """A signal that ends a command; `status` is what the shell is to hear."""

    def __init__(self, number: int, *_: object) -> None:
        self.status = 128 + number
        super().__init__(signal.Signals(number).name)


def _interrupt(number: int, _: object) -> None:
    raise Interrupted(number)


def of_images(work: Callable[[], int], kept: str = "") -> int:
    """Do the work of a command about images; whatever ends it early is a line and a status.

    `kept`: what is left when it is interrupted. SIGTERM and a terminal's end are an interruption as
    Ctrl-C is, so that no program that was started outlives them.
    """
    from appliance.config import ConfigError
    from appliance.image.graph import BuildError
    from appliance.image.tools import SIGNALS

    before = {
        number: signal.signal(number, _interrupt)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup has it
    }
    try:
        return work()
    except ConfigError as exc:
        for problem in exc.problems:
            complain(str(problem))
        return MISUSED
    except BuildError as exc:
        complain(str(exc))
    except OSError as exc:
        complain(f"{exc.filename or ''}: {exc.strerror or exc}".removeprefix(": "))
    except Interrupted as exc:
        complain(f"interrupted{kept}")
        return exc.status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return FAILED


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
