"""Every script of tests/scripts passes: each is a rule of an RFC, named in its first lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.fuzz.script.runner import NOT_APPLICABLE, PASSED, Choices, run_file

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
ALL = sorted(SCRIPTS.glob("*.pkt"))

# What the stack does not do yet, by the name of the script.
KNOWN: dict[str, str] = {}


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_stack_keeps_the_rule(path: Path, version: str, request: pytest.FixtureRequest) -> None:
    """RFC 9293 and those that extend it; the script names its section."""
    only = path.stem.rpartition("-v")[2]
    if path.stem in KNOWN:
        reason = f"BUG {KNOWN[path.stem]}"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    result = run_file(path, Choices(ip_version=version))
    if only in ("4", "6") and only != version[3:]:
        assert (result.outcome, result.reason) == (
            NOT_APPLICABLE,
            f"the script is one of ipv{only}",
        )
        return
    assert result.outcome == PASSED, f"{path}:{result.line}: {result.reason}\n{result.detail}"


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_each_script_says_which_rule_it_is(path: Path) -> None:
    first = path.read_text().lstrip().splitlines()[0]
    number = path.stem.split("-")[0].removeprefix("rfc")
    assert first.startswith("//")
    assert f"RFC {number}" in " ".join(path.read_text().splitlines()[:3])


def test_there_are_scripts() -> None:
    assert len(ALL) > 50


def test_the_same_seed_gives_the_same_packets() -> None:
    """A run is a function of its script and its seed."""
    path = SCRIPTS / "rfc9293-handshake-passive.pkt"
    first, second = run_file(path), run_file(path)
    assert (first.events, first.seconds) == (second.events, second.seconds)
