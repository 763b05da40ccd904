"""Hostile octets: mutators that reach deep, targets whose rules can be broken, attackers."""

from __future__ import annotations

import random
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import main
from appliance.fuzz import assault, attack, mutate, mutate_tls, target_tls
from appliance.fuzz.attack import OffPath, in_between, off_path
from appliance.fuzz.targets import TARGETS, BrokenRuleError, Dns, Frames, Tls
from appliance.net.tcp import Connection
from appliance.tls.hello import MAX_HELLO
from tests.fuzz.test_loopback import sabotage

TOO_LONG = mutate_tls.records(b"\x01" + (MAX_HELLO + 1).to_bytes(3) + bytes(20_000))
INPUTS = {"frames": 2_000, "dns": 2_000, "http": 2_000, "tls": 500}


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_breaks_nothing(name: str) -> None:
    target = TARGETS[name]()
    source = random.Random(1)
    seeds = target.seeds()
    for data in seeds:
        target.try_one(data)
    for _ in range(INPUTS[name]):
        data = source.choice(seeds)
        for _ in range(source.choice((1, 1, 2, 4))):
            data = target.mutate(data, source)
        target.try_one(data)


@pytest.mark.parametrize("name", TARGETS)
def test_octets_without_any_sense_break_nothing(name: str) -> None:
    target = TARGETS[name]()
    source = random.Random(2)
    for size in (0, 1, 2, 11, 12, 13, 14, 15, 34, 53, 54, 55, 200, 1500):
        for _ in range(10):
            target.try_one(source.randbytes(size))


def test_mutators_give_something_for_anything() -> None:
    source = random.Random(3)
    for make in (mutate.frame, mutate.dns, mutate.http, mutate.octets, mutate_tls.tls):
        for size in (0, 1, 13, 14, 20, 33, 34, 54, 60):
            for _ in range(100):
                assert isinstance(make(source.randbytes(size), source), bytes)


def test_most_mutated_frames_get_past_the_sums() -> None:
    """What dies at a checksum tries nothing else."""
    target = Frames()
    source = random.Random(4)
    seeds = target.seeds()
    host = target._host.host
    for _ in range(120):
        target.try_one(target.mutate(source.choice(seeds), source))
        assert target._host.host is host
    counts = host.counters
    died = counts.tcp_checksum + counts.ip_checksum + counts.udp_checksum + counts.icmp_checksum
    assert counts.frames_in > 120
    assert died < 25
    assert counts.tcp_in > 15
    moved = [name for name, value in counts.as_dict().items() if value]
    assert len(moved) > 20


# ---------------------------------------------------------------------- rules can be broken


def test_a_frame_that_no_counter_tells_of(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Frames()
    frame = next(data for data in target.seeds() if data[13:15] == b"\x08\x06")
    target.try_one(frame)
    sabotage(
        monkeypatch, type(target._host.host.neighbors), "arp_arrives", lambda _: lambda *a: None
    )
    with pytest.raises(BrokenRuleError, match="accounting"):
        target.try_one(frame)


def test_an_off_path_reset_that_is_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RFC 5961 §3.2: only the exact number resets; RFC 793 would have taken any in the window."""
    with monkeypatch.context() as patch:

        def make(whole: Any) -> Any:
            def gullible(self: Connection, now: float, seq: int) -> None:
                whole(self, now, self.rcv_nxt)

            return gullible

        sabotage(patch, Connection, "_reset_arrives", make)
        seed = next(seed for seed in range(9) if off_path(seed).findings)
        finding = off_path(seed).findings[0]
        assert finding.rule == "error"
        assert "ConnectionResetError" in finding.text
        numbers = attack.fewest(seed, "error")
        assert len(numbers) == 1
        again = OffPath(seed, numbers)
        again.go()
        assert [kind for *_, kind in again.forged] == ["reset in the window"]

        words = ["--target", "off-path", "--runs", "9", "--seed", "0", "--into", str(tmp_path)]
        assert main(["fuzz", "wire", *words]) == 1
        (directory,) = tmp_path.iterdir()
        case = str(directory / "case.toml")
        assert assault.command(directory) in (directory / "findings.txt").read_text()
        assert main(["fuzz", "wire", "--case", case]) == 1
        assert "reset" in capsys.readouterr().out
    assert main(["fuzz", "wire", "--case", case]) == 0


def test_failing_inputs_are_few_and_found_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    with monkeypatch.context() as patch:

        def make(whole: Any) -> Any:
            def stumble(self: Dns, data: bytes) -> None:
                if data[4:6] == b"\xff\xff":
                    raise KeyError("a slip")
                whole(self, data)

            return stumble

        sabotage(patch, Dns, "try_one", make)
        made = assault.Assault(5, ["dns"], tmp_path, 1, told.append)
        damage = made.go(runs=3_000, seconds=None)
        assert damage.broken
        (directory,) = damage.failures
        case = tomllib.loads((directory / "case.toml").read_text())
        assert case["target"] == "dns"
        assert len(case["inputs"]) == 1
        assert "KeyError" in assault.again(directory / "case.toml")[0]
    assert assault.again(directory / "case.toml") == []


# ---------------------------------------------------------------------- TLS


def hostile(how: int, octets: bytes) -> Tls:
    target = Tls()
    target.try_one(bytes((how,)) + octets)
    return target


@pytest.mark.parametrize(
    ("how", "octets", "reason"),
    [
        (0x00, TOO_LONG, "ClientHello of more than"),
        (0x00, mutate_tls.records(mutate_tls.hello())[:-1], "handshake took too long"),
        (0x10, mutate_tls.records(mutate_tls.hello())[:-1], "ended during the handshake"),
        (0x01, b"garbage" * 3, "bad record type"),
        (0x02, b"garbage" * 3, "bad record type"),
        (0x02, mutate_tls.record(23, bytes(40), b"\x03\x03"), "bad record mac"),
    ],
)
def test_what_becomes_of_hostile_tls(how: int, octets: bytes, reason: str) -> None:
    """RFC 8446 §6.2: an alert, a reason that is counted; and the good client is answered."""
    failures = hostile(how, octets).counters.failures
    assert [name for name in failures if reason in name], failures


def test_a_hello_in_pieces_is_one_hello() -> None:
    """RFC 8446 §5.1: fragments of a message, octets of a segment: neither has a meaning."""
    counters = hostile(0x08, mutate_tls.records(mutate_tls.hello(tls13=False), 1)).counters
    assert counters.accepted == 2
    assert list(counters.failures) == ["handshake took too long"]  # it never went on


def test_plain_http_has_its_sentence() -> None:
    assert hostile(0x04, b"GET / HTTP/1.1\r\n\r\n").counters.http == 1


@pytest.mark.parametrize(
    ("owner", "name", "rule", "put"),
    [
        ("protocol.ServerStream", "_read_hello", "exception", lambda _: lambda s, d: 1 // 0),
        ("counters.TlsCounters", "failed", "accounting", lambda _: lambda s, reason: None),
        ("protocol.ServerStream", "_over", "deadline|afterlife", lambda _: lambda s: None),
        ("protocol.ServerStream", "_refuse", "answer",
         lambda _: lambda s, *_: (s._refused("x"), s._lower_write(b"no!"), s._give_up())),
    ],
)  # fmt: skip
def test_rules_of_tls_can_be_broken(
    monkeypatch: pytest.MonkeyPatch, owner: str, name: str, rule: str, put: Any
) -> None:
    module, _, kind = owner.partition(".")
    target = Tls()
    sabotage(monkeypatch, getattr(import_module(f"appliance.tls.{module}"), kind), name, put)
    with pytest.raises(BrokenRuleError, match=rule):
        target.try_one(b"\0" + TOO_LONG)


def test_a_good_client_that_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, target_tls._Echo, "data_received", lambda _: lambda s, data: None)
    target = Tls()
    with pytest.raises(BrokenRuleError, match="neighbour"):
        target.try_one(b"\0garbage")


# ---------------------------------------------------------------------- attackers


def test_off_path_attackers_hurt_nobody() -> None:
    """RFC 5961, RFC 5927: forged segments and errors that miss leave every octet in place."""
    kinds = set()
    challenged = 0
    for seed in range(25):
        run = OffPath(seed)
        outcome = run.go()
        assert outcome.findings == [], f"seed {seed}"
        kinds |= {kind for *_, kind in run.forged}
        challenged += outcome.counters["tcp_challenge_acks"]
    assert len(kinds) == 11
    assert challenged > 25


def test_liars_in_between_hurt_no_host() -> None:
    for seed in range(40):
        assert in_between(seed).findings == [], f"seed {seed}"


# ---------------------------------------------------------------------- the command


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["fuzz", "wire", "--runs", "30", "--seed", "1", "--into", str(tmp_path)]
    assert main([*words, "--target", "dns", "--target", "http"]) == 0
    assert "tried dns 30" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--target", "nothing"],
        ["--guided"],
        ["--guided", "--target", "off-path"],
        ["--case", "/nowhere.toml"],
        ["--seed", "-1"],
    ],
)
def test_misuse(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "wire", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["target = ", 'target = "none"', 'target = "dns"\ninputs = ["zz"]', ""]
)
def test_cases_that_cannot_be_used(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "case.toml"
    path.write_text(text)
    assert main(["fuzz", "wire", "--case", str(path)]) == 2
    assert "case.toml" in capsys.readouterr().err
