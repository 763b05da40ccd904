"""One scenario after the other, for so long or so many, with a bar, rates and a summary.

A campaign counts what it has reached: transitions of RFC 9293's diagram, counters of the stack that
have moved, errors that applications heard. What it never reached is as telling as what it found.
Imports `invent`, `run`, `casebook`, and tqdm.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from appliance.fuzz import casebook, invent
from appliance.fuzz.run import Outcome, run
from appliance.net.tcp_state import LISTEN, NAMES, TRANSITIONS


@dataclass
class Tally:
    """What a campaign came to."""

    runs: int = 0
    packets: int = 0
    connections: int = 0
    slow: int = 0
    virtual: float = 0.0
    """Seconds of virtual time."""
    real: float = 0.0
    failures: list[Path] = field(default_factory=list)
    rules: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    transitions: set[tuple[int, int]] = field(default_factory=set)
    counters: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome in."""
        self.runs += 1
        self.packets += outcome.packets
        self.connections += outcome.connections
        self.slow += outcome.slow
        self.virtual += outcome.seconds
        self.errors += outcome.errors
        self.transitions |= outcome.transitions
        self.counters.update(outcome.counters)
        if outcome.findings:
            self.rules[outcome.findings[0].rule] += 1

    def summary(self) -> Iterator[str]:
        """The lines that end a campaign."""
        real = max(self.real, 1e-9)
        yield (
            f"{self.runs} scenarios, {self.connections} connections, {self.packets} segments in "
            f"{self.real:.1f} s: {self.packets / real:.0f} segments/s, "
            f"{self.virtual / real:.0f} times real time"
        )
        # Passive opens live in the SYN queue, not in LISTEN; nothing ever shows that state.
        wanted = {(t.source, t.target) for t in TRANSITIONS if LISTEN not in (t.source, t.target)}
        reached = wanted & self.transitions
        missing = sorted(f"{NAMES[a]} to {NAMES[b]}" for a, b in wanted - reached)
        yield f"transitions reached: {len(reached)} of {len(wanted)}" + (
            f"; not {', '.join(missing)}" if missing else ""
        )
        names = [name for name in self.counters if name.startswith("tcp_")]
        still = sorted(name for name in names if not self.counters[name])
        yield f"TCP counters moved: {len(names) - len(still)} of {len(names)}" + (
            f"; not {', '.join(still)}" if still else ""
        )
        if self.errors:
            yield "errors heard: " + ", ".join(f"{k} {v}" for k, v in self.errors.most_common())
        if self.slow:
            yield f"{self.slow} connections were still under way when their time ran out"
        for rule, number in self.rules.most_common():
            yield f"broken: {rule}, {number} times"
        for path in self.failures:
            yield f"written: {path}/; again: {casebook.command(path)}"
        if not self.rules:
            yield "no rule was broken"


def run_many(
    *,
    seed: int,
    runs: int | None,
    seconds: float | None,
    into: Path,
    keep: int,
    say: Callable[[str], None],
) -> Tally:
    """Run the scenarios from `seed` on, until `runs` or real `seconds` are over or it is stopped.

    The first `keep` kinds of failure are shrunk and written below `into`; the rest is counted.
    """
    tally = Tally()
    kinds: set[str] = set()
    start = time.monotonic()
    bar = tqdm(
        total=runs if runs is not None else round(seconds or 0),
        unit="run" if runs is not None else "s",
        disable=not sys.stderr.isatty(),
        leave=False,
    )
    try:
        while (runs is None or tally.runs < runs) and (
            seconds is None or time.monotonic() - start < seconds
        ):
            outcome = run(invent.scenario(seed + tally.runs))
            tally.add(outcome)
            tally.real = time.monotonic() - start
            bar.n = tally.runs if runs is not None else min(round(tally.real), round(seconds or 0))
            bar.set_postfix_str(
                f"{tally.packets / tally.real:.0f} segments/s, {sum(tally.rules.values())} found"
            )
            bar.refresh()
            if outcome.findings:
                finding = outcome.findings[0]
                # What differs in numbers alone is most likely the same again.
                kind = re.sub("[0-9.]+", "#", f"{finding.rule} {finding.text}")
                if kind in kinds:
                    continue
                kinds.add(kind)
                bar.clear()
                say(f"seed {outcome.scenario.seed}: {finding.rule}: {finding.text}")
                if len(tally.failures) < keep:
                    path = casebook.write(outcome, into)
                    tally.failures.append(path)
                    say(f"  smallest scenario, captures and trace in {path}/")
    except KeyboardInterrupt:
        say("stopped")
    finally:
        bar.close()
    tally.real = time.monotonic() - start
    return tally
