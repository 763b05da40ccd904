"""`appliance fuzz loopback`: random scenarios, or one that somebody wrote."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from appliance.commands import FAILED, MISUSED, OK, complain, say


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--seconds", metavar="N", type=positive, help="for so long (default: 10)")
    much.add_argument("--runs", metavar="N", type=whole, help="so many scenarios")
    much.add_argument(
        "--scenario", metavar="FILE", type=Path, help="this one, as TOML (the page on testing)"
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, help="of the first scenario (default: any, and said)"
    )
    parser.add_argument(
        "--into", metavar="DIR", type=Path, default=Path("fuzz-failures"),
        help="where failures are written (default: fuzz-failures)",
    )  # fmt: skip
    parser.add_argument(
        "--keep", metavar="N", type=int, default=5, help="failures to write (default: 5)"
    )
    parser.add_argument("--show", action="store_true", help="print every segment of a --scenario")


def run(options: argparse.Namespace) -> int:
    """Run scenarios; 1 when a rule was broken."""
    if options.scenario is not None:
        return _one(options)
    if options.show:
        complain("fuzz loopback: --show wants a --scenario")
        return MISUSED
    from appliance.fuzz.campaign import run_many

    seed = options.seed if options.seed is not None else secrets.randbelow(1 << 40)
    if seed < 0:
        complain("fuzz loopback: --seed counts from 0")
        return MISUSED
    seconds = options.seconds or (None if options.runs else 10.0)
    say(f"scenarios from --seed {seed} on")
    tally = run_many(
        seed=seed,
        runs=options.runs,
        seconds=seconds,
        into=options.into,
        keep=options.keep,
        say=say,
    )
    for line in tally.summary():
        say(line)
    return FAILED if tally.rules else OK


def _one(options: argparse.Namespace) -> int:
    """Run the scenario of a file and tell what came of it."""
    from appliance.fuzz import casebook
    from appliance.fuzz.scenario import ScenarioError, load

    try:
        scenario = load(options.scenario)
    except ScenarioError as error:
        for line in str(error).splitlines():
            complain(line)
        return MISUSED
    except OSError as error:
        complain(f"{options.scenario}: {error.strerror}")
        return MISUSED
    outcome, seen = casebook.recorded(scenario)
    if options.show:
        for line in casebook.tell(seen):
            say(line)
    for finding in outcome.findings:
        say(f"{finding.rule}: {finding.text}")
    errors = ", ".join(f"{name} {n} times" for name, n in outcome.errors.items()) or "no errors"
    say(
        f"{outcome.connections} connections, {outcome.packets} segments, {outcome.seconds:.3f} s "
        f"of virtual time; {errors}; {len(outcome.findings)} rules broken"
    )
    say(f"packets: {outcome.digest[:16]} (the same on every machine)")
    return FAILED if outcome.findings else OK


def positive(text: str) -> float:
    """Read a number of seconds; raises ArgumentTypeError and ValueError."""
    value = float(text)
    if not 0.0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


def whole(text: str) -> int:
    """Read a number of runs; raises ArgumentTypeError and ValueError."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of scenarios")
    return value
