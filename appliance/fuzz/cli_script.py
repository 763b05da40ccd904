"""`appliance fuzz script`: packetdrill scripts in virtual time.

Imports `fuzz.script` when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.commands import FAILED, MISUSED, OK, complain, say

if TYPE_CHECKING:
    from appliance.fuzz.script.runner import Result

_NAMES: Final = "*.pkt"
VERSIONS: Final = ("ipv4", "ipv4-mapped-ipv6", "ipv6")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.add_argument(
        "paths", nargs="+", metavar="FILE|DIR", help="a script, or a folder of *.pkt"
    )
    parser.add_argument(
        "--report", action="append", default=[], metavar="FILE",
        help="write a table of all outcomes; HTML when FILE ends in .html",
    )  # fmt: skip
    parser.add_argument(
        "-D", "--define", action="append", default=[], metavar="NAME=VALUE",
        help="let a word of the scripts stand for another",
    )  # fmt: skip
    parser.add_argument(
        "--exact-push", action="store_true",
        help="compare PSH bit by bit, not by what RFC 9293 demands of it",
    )  # fmt: skip
    parser.add_argument(
        "--ip-version", action="append", default=[], choices=(*VERSIONS, "all"), metavar="VERSION",
        help="play over ipv4 (default), ipv4-mapped-ipv6, ipv6, or all of them; may be given again",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of the host's random choices")
    parser.add_argument("-q", "--quiet", action="store_true", help="tell failures and the sum only")


def run(options: argparse.Namespace) -> int:
    """Play every script; 1 if an applicable one fails, 2 if there is none to play."""
    from appliance.fuzz.script import report, runner

    definitions: dict[str, str] = {}
    for word in options.define:
        name, equals, value = word.partition("=")
        if not equals or not name:
            complain(f"fuzz script: --define wants NAME=VALUE, not {word!r}")
            return MISUSED
        definitions[name] = value
    versions = VERSIONS if "all" in options.ip_version else tuple(dict.fromkeys(options.ip_version))
    every = [
        runner.Choices(definitions, options.exact_push, options.seed, version)
        for version in versions or ("",)
    ]
    results: list[runner.Result] = []
    try:
        for path in _scripts(options.paths):
            for choices in every:
                result = runner.run_file(path, choices)
                result.version = choices.ip_version if len(every) > 1 else ""
                results.append(result)
                _tell(result, options.quiet)
    except OSError as error:
        complain(f"fuzz script: {error.filename}: {error.strerror}")
        return MISUSED
    if not results:
        complain(f"fuzz script: no {_NAMES} in {', '.join(options.paths)}")
        return MISUSED
    try:
        for path in options.report:
            report.write(path, results)
    except OSError as error:
        complain(f"fuzz script: {error.filename}: {error.strerror}")
        return MISUSED
    say(report.summary(results))
    return FAILED if any(result.outcome == runner.FAILED for result in results) else OK


def _scripts(paths: list[str]) -> Iterator[Path]:
    for name in paths:
        path = Path(name)
        if path.is_dir():
            yield from sorted(path.rglob(_NAMES))
        else:
            yield path


def _tell(result: Result, quiet: bool) -> None:
    """One line for a script, and under a failure what was expected and what came."""
    if result.output and not quiet:
        say(result.output.rstrip())
    if result.outcome == "failed":
        say(f"{result.name}:{result.line}: failed: {result.reason}")
        if result.detail:
            say(result.detail)
    elif not quiet:
        reason = (
            f":{result.line}: {result.outcome}: {result.reason}" if result.reason else ": passed"
        )
        say(f"{result.name}{reason}")
