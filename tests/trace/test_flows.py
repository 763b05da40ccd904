"""What is read is what was written; what cannot be read is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from struct import pack

import pytest

from appliance.fuzz import Link, World
from appliance.trace import flows
from appliance.trace.flows import TraceError, read
from tests.trace.scene import Pupil, transfer

HEAD = '{"e": "trace", "version": 1}\n'


@pytest.fixture
def written(tmp_path: Path) -> Path:
    text, _ = transfer(100_000)
    path = tmp_path / "a.trace"
    path.write_text(text)
    return path


def test_a_trace_is_read_as_it_was_written(written: Path) -> None:
    (connection,) = read(written)
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert len(connection.events) == sum(1 for line in lines if line["e"] in ("in", "out"))
    assert len(connection.states) == sum(1 for line in lines if line["e"] == "state")
    assert connection.begun == 0.0
    assert connection.octets(True) == 100_000
    assert connection.octets(False) == 0
    assert connection.again() == sum(1 for line in lines if line.get("again"))
    assert connection.ended is not None
    assert connection.lasted <= connection.ended + 1e-9


def test_round_trips_are_those_of_what_was_sent_once(written: Path) -> None:
    """RFC 6298 §3, Karn: 40 ms of link, and a delayed acknowledgment at the most."""
    (connection,) = read(written)
    trips = [seconds for _, seconds in connection.round_trips()]
    assert len(trips) > 5
    assert min(trips) == pytest.approx(0.04, abs=0.001)
    assert sorted(trips)[len(trips) // 2] < 0.09


def test_part_of_a_connection(written: Path) -> None:
    (connection,) = read(written)
    part = connection.between(0.05, 0.1)
    assert part.events
    assert all(0.05 <= event.at <= 0.1 for event in [*part.events, *part.states])
    assert len(connection.events) > len(part.events)


# ---- captures


def captured(octets: int, order: str = "<", nano: bool = True) -> bytes:
    """A capture, made in virtual time at the sender's end of a lossy link."""
    world = World(4)
    sender, receiver = world.host("sender"), world.host("receiver")
    world.link(sender, receiver, Link(delay=0.01, loss=0.03))
    world.run(seconds=0.0)
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = [pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262_144, 1)]

    def keep(now: float, _: bool, frame: bytes) -> None:
        whole, part = divmod(round(now * (10**9 if nano else 10**6)), 10**9 if nano else 10**6)
        out.append(pack(order + "IIII", whole, part, len(frame) - 10, len(frame) - 10) + frame[10:])

    sender.port.watchers.append(keep)

    def accept(connection: object) -> Pupil:
        pupil = Pupil()
        pupil.connection = connection
        return pupil

    receiver.host.tcp_listen("", 80, accept)
    pupil = Pupil(octets)
    pupil.connection = sender.host.tcp_connect(receiver.address, 80, pupil)
    world.run(lambda: pupil.closed, seconds=100.0)
    return b"".join(out)


@pytest.mark.parametrize(("order", "nano"), [("<", True), (">", True), ("<", False)])
def test_a_capture_is_read_from_the_side_that_sent_more(
    tmp_path: Path, order: str, nano: bool
) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(captured(200_000, order, nano))
    (connection,) = read(path)
    assert connection.remote == "10.0.0.2:80"
    assert connection.octets(True) == 200_000
    assert connection.again() > 0
    assert any(event.sack for event in connection.events)
    assert not connection.states
    assert min(seconds for _, seconds in connection.round_trips()) == pytest.approx(0.02, abs=0.001)


def test_a_capture_and_a_trace_of_the_same_are_the_same(tmp_path: Path) -> None:
    """One set of numbers, whichever file tells of them."""
    world = World(4)
    sender, receiver = world.host("sender"), world.host("receiver")
    assert sender.address != receiver.address
    path = tmp_path / "a.pcap"
    path.write_bytes(captured(30_000))
    (capture,) = read(path)
    text, _ = transfer(30_000, Link(delay=0.01, loss=0.03), seed=4)
    path.write_text(text)
    (trace,) = read(path)
    # Delays differ on the way back, so times do; what the first flight was does not.
    assert [(e.seq, e.length, e.flags) for e in capture.events[:5]] == [
        (e.seq, e.length, e.flags) for e in trace.events[:5]
    ]


# ---- files that cannot be used


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"hello\n", "neither a trace of the appliance nor a pcap file"),
        (b"[1]\n", "neither a trace"),
        (b'{"e": "state"}\n', "neither a trace"),
        (b'{"e": "trace", "version": 9}\n', "version 9; this program reads 1"),
        (HEAD.encode(), "no TCP connection"),
        (HEAD.encode() + b"nonsense\n", ":2: not a line of JSON"),
        (HEAD.encode() + b'{"t": 1, "c": 1}\n', ":2: not a line of a trace"),
        (HEAD.encode() + b'{"t": 1, "c": 1, "e": "in"}\n', ":2: not a line of a trace"),
        (HEAD.encode() + b"[]\n", ":2: not a line of a trace"),
        (HEAD.encode() + b'{"t": "x", "c": 1, "e": "open"}\n', ":2: not a line of a trace"),
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "pcapng"),
        (b"\xd4\xc3\xb2\xa1" + bytes(10), "not a whole pcap file"),
        (pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1), "no TCP connection"),
        (pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101), "Ethernet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_no_file_a_folder_and_a_giant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read(tmp_path / "absent")
    with pytest.raises(TraceError, match="directory"):
        read(tmp_path)
    monkeypatch.setattr(flows, "MAX_OCTETS", 10)
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(TraceError, match="larger than"):
        read(tmp_path / "large")


def test_a_trace_cut_short_is_read_as_far_as_it_goes(written: Path) -> None:
    content = written.read_bytes()
    written.write_bytes(content[: len(content) // 2 - 3])
    (connection,) = read(written)
    assert connection.events
    assert connection.ended is None


@pytest.mark.parametrize("seed", range(40))
def test_damaged_captures_raise_nothing_else(tmp_path: Path, seed: int) -> None:
    import random

    chance = random.Random(seed)
    content = bytearray(captured(5_000))
    for _ in range(8):
        content[chance.randrange(24, len(content))] = chance.randrange(256)
    path = tmp_path / "a.pcap"
    path.write_bytes(content)
    try:
        for connection in read(path):
            connection.round_trips()
    except TraceError:
        pass
