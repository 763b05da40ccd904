"""Make a scenario that breaks a rule as small as it gets, and still break the rule.

Greedy: try one simplification after the other (leave a flow out, one connection instead of many,
half the octets, a setting's default), keep what still fails in the same way, and begin again until
nothing helps. It is written against dataclasses in general, so new settings need nothing here.
Imports `scenario`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from appliance.fuzz.scenario import (
    Scenario,
    ScenarioError,
    default_of,
    dump,
    from_table,
    to_table,
)

MAX_TRIES: Final = 400
"""Runs at the most: a minute or two for a scenario of ordinary size."""


def shrink(
    scenario: Scenario, fails: Callable[[Scenario], bool], *, tries: int = MAX_TRIES
) -> tuple[Scenario, int]:
    """The smallest scenario found that `fails` as `scenario` does, and how many were tried."""
    done = place = idle = 0
    candidates = list(simpler(scenario))
    seen = {dump(scenario)}
    # Round and round, from where the last step helped: what did not help before seldom does now.
    while idle < len(candidates) and done < tries:
        candidate = candidates[place % len(candidates)]
        text = dump(candidate)
        if text not in seen and _usable(candidate):
            seen.add(text)
            done += 1
            if fails(candidate):
                scenario = candidate
                candidates = list(simpler(scenario))
                idle = 0
                continue
        place += 1
        idle += 1
    return scenario, done


def simpler(value: Any) -> Iterator[Any]:
    """Values of the same dataclass with one thing simplified, the boldest first."""
    fields = [item for item in dataclasses.fields(value) if item.name != "seed"]
    # Whole parts first: one step that forgets a link's every fault saves twenty.
    for item in fields:
        entry = getattr(value, item.name)
        default = default_of(item)
        if entry != default and not isinstance(entry, tuple):
            yield dataclasses.replace(value, **{item.name: default})
    for item in fields:
        entry = getattr(value, item.name)
        if isinstance(entry, tuple):
            for n in range(len(entry)):
                if len(entry) > 1 or not dataclasses.is_dataclass(entry[n]):
                    yield dataclasses.replace(value, **{item.name: entry[:n] + entry[n + 1 :]})
            for n, part in enumerate(entry):
                if dataclasses.is_dataclass(part):
                    for less in simpler(part):
                        changed = (*entry[:n], less, *entry[n + 1 :])
                        yield dataclasses.replace(value, **{item.name: changed})
        elif dataclasses.is_dataclass(entry):
            for less in simpler(entry):
                yield dataclasses.replace(value, **{item.name: less})
        elif entry != default_of(item):
            for less in _nearer(entry, default_of(item)):
                yield dataclasses.replace(value, **{item.name: less})


def _nearer(entry: Any, default: Any) -> Iterator[Any]:
    """Values between an entry and its default, by halves; for sizes, round ones."""
    if isinstance(entry, bool) or not isinstance(entry, int | float) or default is None:
        return
    if not math.isfinite(entry) or not math.isfinite(default):
        return
    middle = (entry + default) / 2
    if isinstance(entry, int):
        whole = int(middle)
        if whole not in (entry, default):
            yield whole
        step = (entry - default) // 8
        if step > 0 and entry - step not in (whole, default):
            yield entry - step
    elif abs(entry - default) > 1e-3:
        yield round(middle, 3)


def _usable(scenario: Scenario) -> bool:
    """Whether a candidate is one that a person could have written."""
    try:
        from_table(to_table(scenario))
    except ScenarioError:
        return False
    return True
