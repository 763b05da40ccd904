"""pytest fixtures of the simulated network; name this module in `pytest_plugins` to have them.

    world      makes worlds, with a seed of the test's own unless one is given; when the test ends,
               each is left to settle and searched for what lives on
    scenario   runs a scenario, given as keywords, as TOML text or as a file, under every rule, and
               fails the test with what was broken

Imports pytest, `world`, `run`, `scenario` and `invariants`.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.fuzz import invariants
from appliance.fuzz import run as running
from appliance.fuzz import scenario as scenarios
from appliance.fuzz.run import SETTLE, Outcome
from appliance.fuzz.world import World


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[Callable[..., World]]:
    """Make a world: `world()`, `world(seed=7)`."""
    made: list[World] = []
    own = int.from_bytes(hashlib.sha256(request.node.nodeid.encode()).digest()[:4])

    def make(seed: int = own, **options: Any) -> World:
        made.append(World(seed, **options))
        return made[-1]

    yield make
    # A test that failed has said enough.
    if getattr(request.node, "failed_in_call", False):
        return
    for one in made:
        one.settle(SETTLE)
        left = [
            f"{station.name}: {rule}: {text}"
            for station in one.stations
            for rule, text in invariants.of_idle_host(station.host)
        ]
        assert not left, "\n".join(left)


@pytest.fixture
def scenario() -> Callable[..., Outcome]:
    """Run a scenario: `scenario(link={"loss": 0.1})`, `scenario("[link]\\nloss = 0.1")`, a Path."""

    def play(what: str | Path | None = None, **table: Any) -> Outcome:
        if isinstance(what, Path):
            chosen = scenarios.load(what)
        else:
            chosen = scenarios.from_table(tomllib.loads(what) if what else table)
        outcome = running.run(chosen)
        if outcome.findings:
            told = "\n".join(f"{finding.rule}: {finding.text}" for finding in outcome.findings)
            pytest.fail(told, pytrace=False)
        return outcome

    return play


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Note on a test that its body has failed."""
    result = yield
    report = result.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        item.failed_in_call = True  # type: ignore[attr-defined]
