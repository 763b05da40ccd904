"""The command line: words in, an exit status out.

    appliance serve    serve the site and the zones
    appliance check    every problem of settings, site and zones, with file and line

Status 0 is success, 1 that something is wrong with what is served or could not be opened, 2 that
the command line or the settings cannot be used. Errors are lines for people, never tracebacks.

Nothing heavy is imported until a command needs it.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance import __version__

if TYPE_CHECKING:
    from appliance.config import Problem

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""

EPILOG: Final = """\
Without --link the stack runs inside the process and is offered on 127.0.0.1; no privilege needed.
Signals: SIGINT and SIGTERM finish what has begun (a second one does not), SIGHUP loads site and
zones again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` are those of the process unless given."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return MISUSED
    config = options.config or _default_config()
    if config is None:
        _complain(f"no appliance.toml in {Path.cwd()}: go where one is, or name one with -c FILE")
        return MISUSED
    if options.command == "check":
        return _check(config, options)
    return _serve(config, options)


class _ShowVersion(argparse.Action):
    """Print the version, and whether the packet path is compiled (hatch_build.py) or Python."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        path = importlib.util.find_spec("appliance.net.tcp")
        compiled = path is not None and not str(path.origin).endswith(".py")
        print(f"appliance {__version__} ({'compiled' if compiled else 'pure Python'})")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="appliance", description="A whole internet host in one process."
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="say which and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve the site and the zones",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check = commands.add_parser("check", help="tell every problem of settings, site and zones")
    for command in (serve, check):
        command.add_argument(
            "-c",
            "--config",
            metavar="FILE",
            type=Path,
            help="settings (default: appliance.toml here)",
        )
        command.add_argument("--site", metavar="DIR", type=Path, help="pages")
        command.add_argument("--zones", metavar="DIR", type=Path, help="master files, *.zone")
    serve.add_argument("--link", metavar="LINK", help="pair, or tap:NAME (made if need be)")
    serve.add_argument(
        "--address",
        metavar="CIDR",
        action="append",
        help="an address of ours, as 10.0.0.2/24; may be repeated",
    )
    serve.add_argument("--gateway", metavar="IP", action="append", help="next hop to elsewhere")
    serve.add_argument(
        "--host-address", metavar="CIDR", help="configure the host's side of the tap with this"
    )
    serve.add_argument("--pcap", metavar="FILE", type=Path, help="record every frame")
    serve.add_argument(
        "--http-port", metavar="PORT", type=int, help="on 127.0.0.1, with a pair (default: 8080)"
    )
    serve.add_argument(
        "--dns-port", metavar="PORT", type=int, help="on 127.0.0.1, with a pair (default: 5353)"
    )
    serve.add_argument("-v", "--verbose", action="store_true", help="say more")
    return parser


def _default_config() -> Path | None:
    path = Path("appliance.toml")
    return path if path.exists() else None


def _overrides(options: argparse.Namespace) -> dict[str, object]:
    """What the command line puts over the file; paths are relative to the working directory."""
    from appliance.config import OPTIONS

    overrides: dict[str, object] = {}
    for key, option in OPTIONS.items():
        value = getattr(options, option.lstrip("-").replace("-", "_"), None)
        if value is not None:
            overrides[key] = value.absolute() if isinstance(value, Path) else value
    return overrides


def _serve(config: Path, options: argparse.Namespace) -> int:
    from appliance.config import ConfigError, load

    try:
        settings = load(config, _overrides(options))
    except ConfigError as exc:
        for problem in exc.problems:
            _complain(str(problem))
        return MISUSED
    # Nothing made while starting is garbage, and looking for it took a tenth of the time until the
    # banner. The appliance turns the collector on when it serves.
    gc.disable()
    from appliance.app import StartError, run

    try:
        run(settings, say=_say, verbose=options.verbose)
    except StartError as exc:
        _complain(str(exc))
        return FAILED
    except KeyboardInterrupt:  # before the signals are the appliance's own
        return INTERRUPTED
    return OK


def _check(config: Path, options: argparse.Namespace) -> int:
    from appliance.config import ConfigError, load

    problems: list[Problem] = []
    try:
        usable = load(config, _overrides(options))
    except ConfigError as exc:
        problems += exc.problems
        if exc.usable is None:
            return _tell(problems, "")
        usable = exc.usable
    from appliance.app import check_content, load_content

    content = load_content(usable)
    return _tell([*problems, *content.problems, *check_content(content)], content.summary)


def _tell(problems: Sequence[Problem], summary: str) -> int:
    """Print problems in the order of files and lines, and how many there are."""
    for problem in problems:
        where = f"{problem.file}:{problem.line}" if problem.line else problem.file
        _say(f"{where}: {problem.severity}: {problem.message}")
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    counts = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
    _say(f"{summary}; {counts}" if summary else counts)
    return FAILED if errors else OK


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Whoever read this has gone (`| head`); what is served does not depend on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(line: str) -> None:
    print(f"appliance: {line}", file=sys.stderr, flush=True)
