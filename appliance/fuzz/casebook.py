"""What is written down about a scenario that broke a rule: a directory that tells and replays it.

    scenario.toml     the smallest scenario that breaks the rule; `found.toml` is the one met first
    seed              the number of the scenario met first
    client.pcap       what the client's interface saw, for Wireshark; `server.pcap` likewise
    trace.txt         the same for people, both hosts in one column of time
    findings.txt      the rules that were broken, and the command that shows it again

Imports `run`, `scenario`, `shrink` and `trace`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.fuzz.run import Outcome, Run, run
from appliance.fuzz.scenario import Scenario, dump
from appliance.fuzz.shrink import MAX_TRIES, shrink
from appliance.fuzz.trace import Seen, Teller, write_pcap

MAX_FRAMES: Final = 50_000
"""Frames of a trace: the last ones, since what went wrong stands at the end."""


def command(directory: Path) -> str:
    """The command that runs the scenario of a directory again."""
    return f"appliance fuzz loopback --scenario {directory / 'scenario.toml'}"


def smallest(outcome: Outcome, tries: int = MAX_TRIES) -> Scenario:
    """Shrink the scenario of an outcome to one that breaks the same rule first."""
    rule = outcome.findings[0].rule
    smaller, _ = shrink(
        outcome.scenario,
        lambda scenario: any(f.rule == rule for f in run(scenario).findings[:1]),
        tries=tries,
    )
    return smaller


def write(outcome: Outcome, into: Path, *, tries: int = MAX_TRIES) -> Path:
    """Shrink, run again with everything recorded, and write the directory; returns where."""
    found = outcome.scenario
    rule = outcome.findings[0].rule
    directory = fresh(into / f"{re.sub('[^a-z0-9]+', '-', rule)}-{found.seed}")
    smaller = smallest(outcome, tries)
    again, seen = recorded(smaller)
    (directory / "scenario.toml").write_text(dump(smaller))
    (directory / "found.toml").write_text(dump(found))
    (directory / "seed").write_text(f"{found.seed}\n")
    for name, frames in seen.items():
        write_pcap(directory / f"{name}.pcap", frames)
    (directory / "trace.txt").write_text("\n".join(tell(seen)) + "\n")
    lines = [f"{finding.rule}: {finding.text}" for finding in again.findings]
    (directory / "findings.txt").write_text("\n".join([*lines, "", command(directory), ""]))
    return directory


def recorded(scenario: Scenario) -> tuple[Outcome, dict[str, list[Seen]]]:
    """Run a scenario and keep every frame that its hosts saw, by host."""
    one = Run(scenario)
    seen: dict[str, list[Seen]] = {}
    for station in one.world.stations:
        frames = seen[station.name] = []
        station.port.watchers.append(_keeper(frames))
    return one.go(), seen


def _keeper(frames: list[Seen]) -> Callable[[float, bool, bytes], None]:
    def keep(now: float, sent: bool, frame: bytes) -> None:
        frames.append(Seen(now, sent, frame))
        if len(frames) > 2 * MAX_FRAMES:
            del frames[:MAX_FRAMES]

    return keep


def tell(seen: dict[str, list[Seen]]) -> list[str]:
    """Every frame as a line, in the order of time."""
    entries = [(one.time, name, one) for name, frames in seen.items() for one in frames]
    entries.sort(key=lambda entry: entry[0])
    teller = Teller(entries[0][0] if entries else 0.0)
    return [teller.line(name, one) for _, name, one in entries]


def fresh(path: Path) -> Path:
    """Make a directory of this name, or of the first free one like it."""
    for number in range(1, 10_000):
        name = path if number == 1 else path.with_name(f"{path.name}.{number}")
        try:
            name.mkdir(parents=True)
        except FileExistsError:
            continue
        return name
    raise FileExistsError(path)
