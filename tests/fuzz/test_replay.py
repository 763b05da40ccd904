"""Replaying one side of a capture: what it reads, what it plays, what it tells."""

from __future__ import annotations

import sys
from pathlib import Path
from struct import pack

import pytest

from appliance.cli import main
from appliance.fuzz.recorded import Conversation, ReplayError, conversations
from appliance.fuzz.replay import Replay
from appliance.fuzz.script.parser import parse
from appliance.fuzz.script.player import Player
from appliance.net.vif.pcap import LINKTYPE_ETHERNET, MAGIC_NANO, read_pcap
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


def capture(
    path: Path, words: str, *, other_seed: int = 5, ip_version: str = "ipv4", tag: bytes = b""
) -> None:
    """Play a script and write what passed on its link, both ways; `tag` is that of a VLAN."""
    player = Player(parse(words), seed=other_seed, ip_version=ip_version)
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
    six = ip_version == "ipv6"
    kind = ethernet.ETHERTYPE_IPV6 if six else ethernet.ETHERTYPE_IPV4
    head = bytes(12) + tag + kind.to_bytes(2)
    data = pack("<IHHiIII", MAGIC_NANO, 2, 4, 0, 0, 1 << 18, LINKTYPE_ETHERNET)
    for at, packet in passed:
        frame = head + packet
        data += pack("<IIII", 1000 + at // 1_000_000, at % 1_000_000 * 1000, len(frame), len(frame))
        data += frame
    path.write_bytes(data)


def as_pcapng(path: Path, *, ticks: int = 10**9) -> Path:
    """The same records, as Wireshark writes them: a clock of `ticks` a second, two interfaces."""
    made = path.with_suffix(".pcapng")
    order = "<"

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = len(body) + 12
        return pack(order + "II", kind, size) + body + pack(order + "I", size)

    resolution = {10**9: 9, 10**6: 6, 1 << 20: 0x80 | 20}[ticks]
    option = pack(order + "HHB3x", 9, 1, resolution) + bytes(4)
    data = block(0x0A0D0D0A, pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += block(1, pack(order + "HHI", 101, 0, 0))  # raw IP, never used
    data += block(1, pack(order + "HHI", LINKTYPE_ETHERNET, 0, 0) + option)
    data += block(5, bytes(12))  # statistics, skipped
    for record in read_pcap(path):
        time = record.time_ns * ticks // 10**9
        words = (1, time >> 32, time & 0xFFFFFFFF, len(record.octets), record.length)
        data += block(6, pack(order + "5I", *words) + record.octets)
    made.write_bytes(data)
    return made


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


def test_a_conversation_over_ipv6_in_a_vlan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """IEEE 802.1Q §9.6: one tag is stepped over; RFC 9293 is the same over IPv6."""
    path = tmp_path / "six.pcap"
    words = SERVED.replace("{end}", CLOSED)
    capture(path, words, ip_version="ipv6", tag=b"\x81\0\0\x07")
    conversation = only(path)
    assert str(conversation) == "[fd3d:fa7b:d17d::1]:40001 > [fd3d:a0b:17d6::1]:8080, 14 segments"
    for server in (True, False):
        assert Replay(conversation, server=server).play().same_stream
    assert main(["fuzz", "replay", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 differences")
    capture(path, words, ip_version="ipv6", tag=b"\x81\0\0\x07" * 2)
    assert conversations(path) == []


def test_what_is_no_whole_segment_is_passed_over(recording: Path, tmp_path: Path) -> None:
    """Fragments, and frames that end before their headers do."""
    records = read_pcap(recording)
    for change in (lambda f: f[:20] + b"\x20\0" + f[22:], lambda f: f[:17], lambda f: f[:40]):
        path = tmp_path / "less.pcap"
        data = pack("<IHHiIII", MAGIC_NANO, 2, 4, 0, 0, 1 << 18, LINKTYPE_ETHERNET)
        for record in records:
            octets = change(record.octets)
            data += pack("<IIII", 1000, 0, len(octets), len(octets)) + octets
        path.write_bytes(data)
        assert conversations(path) == []


@pytest.mark.parametrize("ticks", [10**9, 10**6, 1 << 20])
def test_pcapng_says_the_same(recording: Path, ticks: int) -> None:
    """draft-ietf-opsawg-pcapng §4.2: each interface has a link type and a clock of its own."""
    classic, ng = only(recording), only(as_pcapng(recording, ticks=ticks))
    assert [s.packet for s in ng.segments] == [s.packet for s in classic.segments]
    for one, other in zip(ng.segments, classic.segments, strict=True):
        assert abs(one.at - other.at) <= 1


def test_pcapng_that_cannot_be_read(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_pcapng(recording)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(pack("<HHI", 1, 0, 0), pack("<HHI", 105, 0, 0)))
    with pytest.raises(ReplayError, match="link type 105"):
        conversations(path)
    path.write_bytes(whole[:20])
    with pytest.raises(ReplayError, match="not a sound pcapng file"):
        conversations(path)
    monkeypatch.setitem(sys.modules, "scapy.utils", None)
    with pytest.raises(ReplayError, match="pip install"):
        conversations(path)


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
        (b"", "not a capture of Ethernet"),
        (b"nonsense" * 10, "not a capture of Ethernet"),
        (pack("<IHHiIII", MAGIC_NANO, 2, 4, 0, 0, 9, 101), "not a capture of Ethernet"),
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
