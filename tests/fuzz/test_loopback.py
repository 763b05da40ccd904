"""Random scenarios, the rules that watch them, and what becomes of a scenario that breaks one.

A rule that cannot be broken shows nothing: each is shown a stack that was sabotaged, and must say
so.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import main
from appliance.fuzz import casebook, invent
from appliance.fuzz.run import Outcome, run
from appliance.fuzz.scenario import (
    Flow,
    Scenario,
    ScenarioError,
    dump,
    from_table,
    load,
)
from appliance.fuzz.shrink import shrink, simpler
from appliance.net import sack
from appliance.net import tcp as trunk
from appliance.net.reassembly import ReassemblyQueue
from appliance.net.sendq import SendQueue
from appliance.net.tcp import Connection
from appliance.net.tcp_table import TcpTable
from appliance.net.vif.pcap import read_pcap

Play = Callable[..., Outcome]

BULK = {"flow": [{"client": {"sends": 60_000}, "server": {"sends": 60_000, "when": "eof"}}]}
LOSSY = {**BULK, "link": {"delay": 0.02, "loss": 0.05}}


def rules(table: dict[str, Any]) -> set[str]:
    return {finding.rule for finding in run(from_table(table)).findings}


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_random_scenarios_break_no_rule(first: int) -> None:
    """The same ones every time; `make fuzz` tries others."""
    for seed in range(first, first + 20):
        findings = run(invent.scenario(seed)).findings
        assert findings == [], f"appliance fuzz loopback --runs 1 --seed {seed}"


def test_all_goes_well_without_sabotage(scenario: Play) -> None:
    assert scenario(**BULK).connections == 1
    outcome = scenario(**LOSSY)
    assert outcome.counters["tcp_retransmitted"] > 0
    assert outcome.errors == {}


# ---------------------------------------------------------------------- each rule can be broken


def sabotage(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, make: Any) -> None:
    """Replace `owner.name` by make(what it was)."""
    if not str(trunk.__file__).endswith(".py"):
        pytest.skip("the packet path is compiled: it cannot be changed from outside")
    monkeypatch.setattr(owner, name, make(getattr(owner, name)))


def test_wrong_octets_from_the_send_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(
        monkeypatch, SendQueue, "slice", lambda f: lambda s, n, k: bytes(f(s, n, k))[:-1] + b"?"
    )
    assert {"content", "stream"} & rules(BULK)


def test_octets_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9293 §1: in order."""
    sabotage(monkeypatch, ReassemblyQueue, "take", lambda f: lambda s, n: f(s, n)[::-1])
    assert "stream" in rules(LOSSY)


def test_more_than_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9293 §3.8.6."""

    def make(output: Any) -> Any:
        def greedy(self: Connection, now: float) -> None:
            self.snd_wnd += 20_000
            output(self, now)

        return greedy

    sabotage(monkeypatch, Connection, "output", make)
    slow = {"when": "eof", "pause_every": 2, "pause": 0.5}
    table = {
        "flow": [{"client": {"sends": 90_000}, "server": slow}],
        "server": {"tcp": {"receive_buffer": 10_000}},
        "link": {"delay": 0.01},
    }
    assert "window" in rules(table)


def test_an_edge_that_moves_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9293 §3.8.6, SHLD-14."""
    sabotage(monkeypatch, Connection, "_window", lambda f: lambda s: f(s) // 2)
    assert "edge" in rules({**BULK, "client": {"tcp": {"window_scaling": False}}})


def test_blocks_that_never_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2018 §3."""

    def make(write: Any) -> Any:
        def lie(*arguments: Any) -> Any:
            return tuple((left, right + 100_000) for left, right in write(*arguments))

        return lie

    sabotage(monkeypatch, sack, "write", make)
    assert "sack" in rules(LOSSY)


def test_a_clock_that_runs_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7323 §4.1."""
    sabotage(monkeypatch, Connection, "_clock", lambda f: lambda s, now: -f(s, now) & 0xFFFFFFFF)
    assert "timestamp" in rules(LOSSY)


def test_segments_larger_than_the_peer_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9293 §3.7.1, MUST-16."""
    sabotage(monkeypatch, Connection, "_set_mss", lambda f: lambda s, size: f(s, size + 100))
    assert "mss" in rules({**BULK, "server": {"tcp": {"max_segment": 500}}})


def test_a_timer_that_is_not_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6298 §5.1."""
    sabotage(monkeypatch, Connection, "_arm_retransmit", lambda _: lambda s, now: None)
    assert {"timer", "progress"} & rules(LOSSY)


def test_a_connection_that_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, TcpTable, "release", lambda _: lambda s, connection: None)
    assert "afterlife" in rules(BULK)


def test_whatever_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(parse: Any) -> Any:
        def fail(*arguments: Any) -> Any:
            if parse(*arguments).sack:
                raise IndexError("a slip")
            return parse(*arguments)

        return fail

    sabotage(monkeypatch, trunk, "parse_options", make)
    assert "exception" in rules(LOSSY)


# ---------------------------------------------------------------------- scenarios as files


def test_a_scenario_is_written_and_read_back() -> None:
    for seed in range(300):
        made = invent.scenario(seed)
        assert from_table(tomllib.loads(dump(made))) == made


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'sed = 1\n[link]\nloss = 2.0\n[client.tcp]\nsak = true\n[[flow]]\nopens = "nobody"\n'
        '[[flow]]\nclient = { when = "eof" }\n'
    )
    with pytest.raises(ScenarioError) as told:
        load(path)
    lines = str(told.value).splitlines()
    assert [line for line in lines if "sed: no such key; did you mean seed?" in line]
    assert [line for line in lines if "client.tcp.sak" in line and "sack" in line]
    assert [line for line in lines if "link.loss" in line and "2.0" in line]
    assert [line for line in lines if "flow.0.opens" in line]
    path.write_text('[[flow]]\nclient = { when = "eof" }\n')
    with pytest.raises(ScenarioError, match="each end waits"):
        load(path)
    path.write_text("[link\n")
    with pytest.raises(ScenarioError, match=r"s\.toml"):
        load(path)


def test_what_is_expected_can_fail() -> None:
    table = {**BULK, "link": {"delay": 0.1, "rate": 1e6}, "expect": {"within": 0.5}}
    assert rules(table) == {"expect"}
    assert rules({**table, "expect": {"within": 5.0, "errors": "none"}}) == set()
    assert rules({**LOSSY, "expect": {"retransmissions": 0}}) == {"expect"}


def test_errors_need_a_reason() -> None:
    dark = {"link": {"delay": 0.01, "blackouts": [[0.0, 1e5]]}}
    assert rules({**BULK, **dark}) == set()
    assert rules({**BULK, **dark, "expect": {"errors": "none"}}) == {"error"}


# ---------------------------------------------------------------------- shrinking


def test_shrinking_keeps_what_matters_alone() -> None:
    """A failure that needs loss and 1,000 octets ends as that, and as nothing else."""
    start = invent.scenario(7)
    big = Scenario(
        seed=7,
        client=start.client,
        server=start.server,
        link=start.link.__class__(delay=0.1, loss=0.2, duplicate=0.1, reorder=0.3),
        flow=(Flow(), *start.flow, Flow(client=Flow().client.__class__(sends=60_000))),
    )

    def fails(scenario: Scenario) -> bool:
        return scenario.link.loss > 0 and any(f.client.sends >= 1_000 for f in scenario.flow)

    small, tried = shrink(big, fails, tries=2_000)
    assert fails(small)
    assert len(small.flow) == 1
    assert small.link == start.link.__class__(loss=small.link.loss)
    assert small.flow[0].client.sends < 1_150
    assert tried < 2_000
    assert not [less for less in simpler(small) if fails(less) and less.flow != small.flow][1:]


def test_simpler_is_never_the_same() -> None:
    for seed in range(50):
        whole = invent.scenario(seed)
        for less in simpler(whole):
            assert less != whole


def test_a_failure_is_written_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scenario, seed, captures of both ends, trace, and a command that shows it again."""
    with monkeypatch.context() as patch:
        sabotage(patch, ReassemblyQueue, "take", lambda f: lambda s, n: f(s, n)[::-1])
        found = next(o for o in map(run, map(invent.scenario, range(99))) if o.findings)
        directory = casebook.write(found, tmp_path, tries=60)
        names = {path.name for path in directory.iterdir()}
        assert names == {
            "scenario.toml", "found.toml", "seed", "client.pcap", "server.pcap", "trace.txt",
            "findings.txt",
        }  # fmt: skip
        told = (directory / "findings.txt").read_text()
        assert casebook.command(directory) in told
        again = main(["fuzz", "loopback", "--scenario", str(directory / "scenario.toml")])
        assert again == 1
        assert "stream" in capsys.readouterr().out
    assert main(["fuzz", "loopback", "--scenario", str(directory / "scenario.toml")]) == 0
    assert len(read_pcap(directory / "client.pcap")) > 3
    assert len(read_pcap(directory / "server.pcap")) > 3
    lines = (directory / "trace.txt").read_text().splitlines()
    assert any("[S]" in line and "mss" in line for line in lines)
    assert len(dump(load(directory / "scenario.toml"))) <= len(
        (directory / "found.toml").read_text()
    )


# ---------------------------------------------------------------------- the command


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["fuzz", "loopback", "--runs", "5", "--seed", "11", "--into", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "5 scenarios" in told
    assert "transitions reached" in told
    assert list(tmp_path.iterdir()) == []
    assert main(["fuzz", "loopback", "--seconds", "0.2"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["loopback", "--show"],
        ["loopback", "--scenario", "/nowhere.toml"],
        ["loopback", "--seed", "-1"],
    ],
)
def test_misuse(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_applications_write_what_they_are_to_write() -> None:
    """The streams are what everybody computes: a stream is not its neighbour, nor itself later."""
    from appliance.fuzz.application import Stream

    stream = Stream(3)
    whole = stream.take(0, 300_000)
    source = random.Random(1)
    for _ in range(100):
        at, length = source.randrange(200_000), source.randrange(1, 100_000)
        assert stream.take(at, length) == whole[at : at + length]
        assert stream.matches(at, whole[at : at + length])
    assert not stream.matches(1, whole[:50])
    assert not Stream(4).matches(0, whole[:50])
