"""Recordings that others can read, that stay within bounds, and never stop the traffic."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import pytest
from scapy.layers.inet import TCP
from scapy.utils import PcapReader

from appliance.net.errors import LinkError, WireError
from appliance.net.vif import pcap
from appliance.net.vif.pair import pair
from appliance.net.vif.pcap import Recorder, read_pcap
from appliance.net.wire.virtio import PLAIN
from tests.net.vif.frames import V4, sums_hold, super_segment

START = 1_700_000_000_123_456_789


def recorder(path: Path, **options: int) -> tuple[Recorder, object, list[str]]:
    near, far = pair()
    clock = count(START, 1_000)
    warnings: list[str] = []
    made = Recorder(near, path, clock=lambda: next(clock), warn=warnings.append, **options)
    return made, far, warnings


def test_both_directions_are_read_by_scapy(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    vif, far, warnings = recorder(path)
    payload = bytes(range(256)) * 20
    vif.send(*super_segment(V4, payload, 1448))
    far.send(PLAIN + bytes(60))
    vif.receive(64)
    vif.send(PLAIN + b"\xff" * 14, memoryview(b"tail"))
    vif.close()
    with PcapReader(str(path)) as reader:
        assert reader.nano
        assert reader.linktype == 1
        packets = list(reader)
    assert [int(packet.time * 10**9) for packet in packets] == [START + n * 1000 for n in range(3)]
    assert bytes(packets[0][TCP].payload) == payload
    assert sums_hold(packets[0])
    assert bytes(packets[1]) == bytes(60)
    assert bytes(packets[2]) == b"\xff" * 14 + b"tail"
    assert warnings == []
    records = read_pcap(path)
    assert [record.octets for record in records] == [bytes(packet) for packet in packets]
    assert records[0].time_ns == START


def test_traffic_is_not_changed(tmp_path: Path) -> None:
    vif, far, _ = recorder(tmp_path / "trace.pcap")
    head, payload = super_segment(V4, bytes(5000), 1448)
    vif.send(head, payload)
    assert far.receive(9) == [head + payload]
    far.send(head, payload)
    assert vif.receive(9) == [head + payload]


def test_frames_that_the_link_refused_are_not_recorded(tmp_path: Path) -> None:
    near, _far = pair(capacity=1)
    path = tmp_path / "trace.pcap"
    vif = Recorder(near, path, clock=lambda: START, warn=pytest.fail)
    assert vif.send(PLAIN + b"first")
    assert not vif.send(PLAIN + b"second")
    vif.close()
    assert [record.octets for record in read_pcap(path)] == [b"first"]


def test_callbacks_pass_through(tmp_path: Path) -> None:
    vif, far, _ = recorder(tmp_path / "trace.pcap")
    calls: list[str] = []
    vif.on_readable = lambda: calls.append("readable")
    vif.on_writable = lambda: calls.append("writable")
    assert vif.inner.on_writable is vif.on_writable
    far.send(PLAIN)
    assert calls == ["readable"]


def test_snaplen_cuts_the_record_not_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    vif, _far, _ = recorder(path, snaplen=60)
    head, payload = super_segment(V4, bytes(5000), 1448)
    vif.send(head, payload)
    vif.close()
    (record,) = read_pcap(path)
    assert record.octets == (head + payload)[10:70]
    assert record.length == len(head + payload) - 10


def test_files_rotate_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    vif, _, warnings = recorder(path, max_bytes=24 + 3 * (16 + 100), keep=3)
    for number in range(11):
        vif.send(PLAIN + bytes((number,)) * 100)
    vif.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "trace.1.pcap",
        "trace.2.pcap",
        "trace.pcap",
    ]
    kept = [
        [record.octets[0] for record in read_pcap(tmp_path / name)]
        for name in ("trace.2.pcap", "trace.1.pcap", "trace.pcap")
    ]
    assert kept == [[3, 4, 5], [6, 7, 8], [9, 10]]
    assert warnings == []


def test_one_record_larger_than_a_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    vif, _, _ = recorder(path, max_bytes=50, keep=2)
    vif.send(PLAIN + bytes(100))
    vif.send(PLAIN + bytes(200))
    vif.close()
    assert [record.length for record in read_pcap(path)] == [200]
    assert [record.length for record in read_pcap(tmp_path / "trace.1.pcap")] == [100]


def test_gathering_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    vif, far, _ = recorder(path)
    for _ in range(8):
        vif.send(PLAIN + bytes(65000))
        far.receive(1)
    assert path.stat().st_size > 65000
    vif.close()


def test_full_disk_stops_the_recording_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.pcap"
    vif, far, warnings = recorder(path)
    room = 150
    real_write = os.write

    def write(fd: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        taken = real_write(fd, bytes(data[:room]))
        room -= taken
        return taken

    monkeypatch.setattr(pcap.os, "write", write)
    for number in range(3):
        assert vif.send(PLAIN + bytes((number,)) * 100)
    vif.receive(64)
    assert vif.stopped == 1
    assert vif.recorded == 1
    assert warnings == [f"recording to {path} has stopped: No space left on device"]
    assert [record.octets for record in read_pcap(path)] == [bytes(100)]
    assert path.stat().st_size == 24 + 16 + 100
    # The traffic goes on, and nothing is said twice.
    assert vif.send(PLAIN + b"more")
    assert len(far.receive(64)) == 4
    far.send(PLAIN + b"answer")
    assert vif.receive(64) == [PLAIN + b"answer"]
    vif.close()
    assert len(warnings) == 1


def test_real_full_device() -> None:
    """/dev/full takes nothing: the file header is refused at once."""
    near, _ = pair()
    with pytest.raises(LinkError, match="cannot record to /dev/full: No space left"):
        Recorder(near, "/dev/full", clock=lambda: START, warn=pytest.fail)


def test_rotation_that_fails_stops_the_recording(tmp_path: Path) -> None:
    directory = tmp_path / "captures"
    directory.mkdir()
    vif, far, warnings = recorder(directory / "trace.pcap", max_bytes=150)
    vif.send(PLAIN + bytes(100))
    (directory / "trace.pcap").unlink()
    directory.rmdir()
    assert vif.send(PLAIN + bytes(100))
    assert len(far.receive(9)) == 2
    assert vif.stopped == 1
    assert len(warnings) == 1


def test_unwritable_path_is_said_at_once(tmp_path: Path) -> None:
    near, _ = pair()
    with pytest.raises(LinkError, match=r"cannot record to .*No such file"):
        Recorder(near, tmp_path / "no" / "x.pcap", clock=lambda: 0, warn=pytest.fail)


def test_captures_are_private(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    vif, _, _ = recorder(path)
    vif.close()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(("magic", "fraction"), [(0xA1B23C4D, 5000), (0xA1B2C3D4, 5)])
def test_reading_other_peoples_files(tmp_path: Path, order: str, magic: int, fraction: int) -> None:
    """draft-ietf-opsawg-pcap §4: both byte orders, micro- and nanoseconds."""

    def word(value: int) -> bytes:
        return value.to_bytes(4, order)

    header = word(magic) + bytes(12) + word(65535) + word(1)
    record = word(3) + word(fraction) + word(4) + word(9) + b"octe"
    path = tmp_path / "theirs.pcap"
    path.write_bytes(header + record + record[:-1])
    assert read_pcap(path) == [(3_000_005_000, b"octe", 9)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a capture, but long enough to be one",
        bytes.fromhex("4d3cb2a1") + bytes(16) + (101).to_bytes(4, "little"),
        bytes.fromhex("4d3cb2a1") + bytes(16) + (1).to_bytes(4, "little") + b"\xff" * 16,
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "theirs.pcap"
    path.write_bytes(content)
    with pytest.raises(WireError):
        read_pcap(path)
