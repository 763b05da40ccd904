"""Replaying one side of a capture: what it reads, what it plays, what it tells."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import pytest

from appliance.cli import main
from appliance.fuzz.replay import Conversation, Replay, ReplayError, conversations
from appliance.fuzz.script.parser import parse
from appliance.fuzz.script.player import Player
from appliance.net.vif.pcap import LINKTYPE_ETHERNET, MAGIC_NANO
from appliance.net.wire import ethernet

SERVED = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 8) = 0
   +0 < S 7:7(0) win 32768 <mss 1012,sackOK,TS val 100 ecr 0,nop,wscale 7>
   +0 > S. 0:0(0) ack 8 <mss 1460,sackOK,TS val 1 ecr 100,nop,wscale 7>
 +.02 < . 1:1(0) ack 1 win 1024 <nop,nop,TS val 120 ecr 1>
   +0 accept(3, ..., ...) = 4
   +0 < P. 1:101(100) ack 1 win 1024 <nop,nop,TS val 120 ecr 1>
   +0 > . 1:1(0) ack 101 <nop,nop,TS val 21 ecr 120>
   +0 read(4, ..., 100) = 100
 +.01 write(4, ..., 5000) = 5000
   +0 > P. 1:5001(5000) ack 101 <nop,nop,TS val 31 ecr 120>
 +.02 < . 101:101(0) ack 5001 win 1024 <nop,nop,TS val 150 ecr 31>
   +0 {end}
 +.02 < F. 101:101(0) ack 5002 win 1024 <nop,nop,TS val 170 ecr 51>
   +0 > . 5002:5002(0) ack 102 <nop,nop,TS val 71 ecr 170>
"""
CLOSED = "close(4) = 0\n +0 > F. 5001:5001(0) ack 101 <nop,nop,TS val 51 ecr 150>"


def capture(path: Path, words: str, *, other_seed: int = 5) -> None:
    """Play a script and write what passed on its link, both ways."""
    player = Player(parse(words), seed=other_seed)
    passed: list[tuple[int, bytes]] = []
    inject = player.stage.inject

    def noting(packet: bytes, segment: int = 0) -> None:
        passed.append((player.stage.now, packet))
        take()
        inject(packet, segment)

    seen = 0

    def take() -> None:
        nonlocal seen
        new = player.stage.sent[seen:]
        seen += len(new)
        at = len(passed) - 1 if passed and new and new[0].at < passed[-1][0] else len(passed)
        passed[at:at] = [(sent.at, sent.packet) for sent in new]

    player.stage.inject = noting  # type: ignore[method-assign]
    player.play()
    take()
    head = ethernet.header(bytes(6), bytes(6), ethernet.ETHERTYPE_IPV4)
    data = pack("<IHHiIII", MAGIC_NANO, 2, 4, 0, 0, 1 << 18, LINKTYPE_ETHERNET)
    for at, packet in passed:
        frame = head + packet
        data += pack("<IIII", 1000 + at // 1_000_000, at % 1_000_000 * 1000, len(frame), len(frame))
        data += frame
    path.write_bytes(data)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "served.pcap"
    capture(path, SERVED.replace("{end}", CLOSED))
    return path


def only(path: Path) -> Conversation:
    found = conversations(path)
    assert len(found) == 1
    return found[0]


def test_a_conversation_is_found(recording: Path) -> None:
    conversation = only(recording)
    assert str(conversation) == "192.0.2.1:40001 > 192.168.0.1:8080, 14 segments"


def test_what_we_recorded_we_do_again(recording: Path) -> None:
    """Our own side, chosen numbers and clocks apart, is the same packet for packet."""
    outcome = Replay(only(recording), server=True).play()
    assert outcome.same_stream
    assert (outcome.differences(), outcome.clamped) == (0, 0)
    ours = [line for line in outcome.lines if line.mark == "="]
    assert [line.ours.split()[2] for line in ours] == [
        "0:0(0)", "1:1(0)", "1:5001(5000)", "5001:5001(0)", "5002:5002(0)",
    ]  # fmt: skip
    pairs = [(line.recorded.split(" win ")[0], line.ours.split(" win ")[0]) for line in ours]
    assert all(one == other for one, other in pairs)


def test_the_other_side_can_be_ours(recording: Path) -> None:
    """Then the application asks 100 octets and ends when it did."""
    outcome = Replay(only(recording), server=False).play()
    assert outcome.same_stream
    assert outcome.verdict == "recorded side: 100 octets, FIN; ours: 100 octets, FIN"


def test_another_way_to_end_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recorded server resets because octets were unread; one that reads does not."""
    path = tmp_path / "reset.pcap"
    words = SERVED.partition("   +0 read")[0] + " +.01 close(4) = 0\n +0 > R. 1:1(0) ack 101 <...>"
    capture(path, words)
    assert main(["fuzz", "replay", str(path)]) == 0  # aborted at the same time: a reset as well
    data = path.read_bytes()
    recorded = Replay(only(path), server=True)
    recorded.given.ends.clear()
    assert not recorded.play().same_stream
    assert data == path.read_bytes()
    capsys.readouterr()


def test_an_acknowledgment_ahead_of_us_is_cut_down(recording: Path) -> None:
    """A peer that acknowledges what we have not written yet must not be an attacker to us."""
    replay = Replay(only(recording), server=True)
    replay.given.writes = [(at + 30_000, size) for at, size in replay.given.writes]
    outcome = replay.play()
    assert outcome.clamped > 0
    assert outcome.differences() > 0


def test_the_command(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "replay", str(recording)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any("  =  > P. 1:5001(5000) ack 101" in line for line in said)
    assert said[-1].startswith("0 differences, 0 acknowledgments")
    assert main(["fuzz", "replay", str(recording), "--list"]) == 0
    assert capsys.readouterr().out.startswith("1: 192.0.2.1:40001 > 192.168.0.1:8080")


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (b"", "not a classic capture"),
        (b"nonsense" * 10, "not a classic capture"),
        (pack("<IHHiIII", MAGIC_NANO, 2, 4, 0, 0, 9, 101), "not a classic capture"),
        (pack("<IHHiIII", MAGIC_NANO, 2, 4, 0, 0, 9, LINKTYPE_ETHERNET), "no TCP connection"),
    ],
)
def test_other_files(
    tmp_path: Path, octets: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(octets)
    assert main(["fuzz", "replay", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_misuse(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "replay", str(recording) + "x"]) == 2
    assert main(["fuzz", "replay", str(recording), "--conversation", "2"]) == 2
    assert "it has 1 conversations, not 2" in capsys.readouterr().err


def test_a_side_that_never_spoke(recording: Path) -> None:
    conversation = only(recording)
    del conversation.segments[1:]
    with pytest.raises(ReplayError, match="never sent a SYN"):
        Replay(conversation, server=True)
