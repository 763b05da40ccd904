"""The trace says what happened: numbers from each SYN, scaled windows, what was sent again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.fuzz import Link, World
from appliance.net import trace
from appliance.net.trace import Flow, Trace, Traced, segment_of
from appliance.net.vif.pair import pair
from appliance.net.wire import ethernet, ipv4, tcp
from appliance.net.wire.address import from_text
from tests.trace.scene import Pupil, follow, transfer

HERE, THERE = from_text("10.0.0.1"), from_text("10.0.0.2")


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def frame(
    seq: int, ack: int, flags: int, *, options: bytes = b"", data: bytes = b"", window: int = 100
) -> bytes:
    """A frame without virtio's header, from HERE to THERE."""
    segment = b"".join(
        (
            (5000).to_bytes(2), (80).to_bytes(2), seq.to_bytes(4), ack.to_bytes(4),
            bytes(((5 + len(options) // 4) << 4, flags)), window.to_bytes(2), bytes(4), options,
            data,
        )
    )  # fmt: skip
    head = bytes((0x45, 0)) + (20 + len(segment)).to_bytes(2) + bytes((0, 1, 0, 0, 64, 6, 0, 0))
    ether = bytes(12) + ethernet.ETHERTYPE_IPV4.to_bytes(2)
    return ether + head + HERE + THERE + segment


def test_a_transfer_is_told_from_its_syn_to_its_end() -> None:
    text, (connection,) = transfer(100_000)
    lines = events(text)
    assert lines[0] == {"e": "trace", "version": trace.VERSION}
    assert lines[1]["e"] == "open"
    assert lines[1]["remote"] == "10.0.0.2:80"
    assert lines[2]["flags"] == "S"
    assert (lines[2]["seq"], lines[2]["len"]) == (0, 0)
    assert lines[-1]["e"] == "end"
    times = [line["t"] for line in lines[1:]]
    assert times == sorted(times)
    sent = [line for line in lines if line["e"] == "out" and line["len"]]
    assert sent[0]["seq"] == 1
    once = sum(line["len"] for line in sent if not line.get("again"))
    assert once == 100_000
    again = sum(1 for line in sent if line.get("again"))
    assert again == connection.retransmitted > 0
    # RFC 9293 §3.4: what is acknowledged at the end is the octets, the SYN and the FIN.
    assert max(line["ack"] for line in lines if line["e"] == "in") == 100_000 + 2
    assert any(line.get("sack") for line in lines if line["e"] == "in")


def test_states_hold_the_invariants_of_a_sender() -> None:
    """RFC 9293 §3.3.1: SND.UNA =< SND.NXT; RFC 6675: the pipe is what is neither held nor lost."""
    text, _ = transfer(150_000)
    states = [line for line in events(text) if line["e"] == "state"]
    assert {"SYN-SENT", "ESTABLISHED", "FIN-WAIT-1"} <= {state["state"] for state in states}
    assert "recovery" in {state["ca"] for state in states}
    for state in states:
        assert 0 <= state["snd_una"] <= state["snd_nxt"] <= 150_002
        out = state["snd_nxt"] - state["snd_una"]
        assert state["in_flight"] == out - state["sacked"] - state["lost"] >= 0
        assert state["ssthresh"] is None or state["ssthresh"] > 0
    assert states[-1]["snd_una"] == 150_002 or states[-1]["snd_nxt"] == 150_002


def test_each_connection_has_its_number() -> None:
    text, _ = transfer(20_000, connections=3)
    lines = events(text)
    assert [line["c"] for line in lines if line["e"] == "open"] == [1, 2, 3]
    for number in (1, 2, 3):
        mine = [line for line in lines if line.get("c") == number and line["e"] == "out"]
        assert sum(line["len"] for line in mine if not line.get("again")) == 20_000


def test_the_accepting_side_is_told_from_the_syn_on() -> None:
    """A half-open flow is no connection yet; its SYN and SYN,ACK are told once it is one."""
    world = World(5)
    client, server = world.host("client"), world.host("server")
    world.link(client, server, Link(delay=0.01))
    world.run(seconds=0.0)
    lines = follow(server)
    pupil = Pupil()

    def accept(connection: object) -> Pupil:
        pupil.connection = connection
        return pupil

    server.host.tcp_listen("", 80, accept)
    visitor = Pupil(5_000)
    visitor.connection = client.host.tcp_connect(server.address, 80, visitor)
    world.run(seconds=0.015)
    assert len(events("".join(lines))) == 1  # the SYN is here, and nobody knows yet
    world.run(lambda: visitor.closed, seconds=30.0)
    found = events("".join(lines))
    assert [line["flags"] for line in found if line["e"] in ("in", "out")][:3] == ["S", "SA", "A"]
    assert found[1]["t"] < found[3]["t"] + 1e-9


def test_scans_and_floods_are_not_told() -> None:
    world = World(6)
    client, server = world.host("client"), world.host("server")
    world.link(client, server, Link(delay=0.01))
    world.run(seconds=0.0)
    lines = follow(server)
    for port in range(1, 30):
        visitor = Pupil()
        visitor.connection = client.host.tcp_connect(server.address, port, visitor)
    world.run(seconds=5.0)
    assert server.host.counters.tcp_resets_out == 29
    assert len(events("".join(lines))) == 1


def test_no_more_flows_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MAX_FLOWS", 2)
    text, _ = transfer(10_000, connections=5)
    # The first two are followed; as they end, others may come to be, but no SYN of theirs is left.
    assert {line["c"] for line in events(text) if line["e"] == "state"} <= {1, 2, 3, 4}
    opened = [line for line in events(text) if line["e"] == "open"]
    assert 2 <= len(opened) < 5


def test_a_host_without_a_trace_asks_once_a_turn() -> None:
    world = World(1)
    assert world.host("alone").host.on_turn is None


def test_traced_interface_notes_what_was_taken_and_closes_both() -> None:
    ours, theirs = pair(1500, False, 1)
    closed: list[bool] = []
    whole = Trace(lambda _: None)
    traced = Traced(ours, whole, lambda: closed.append(True))
    head = bytes(10) + frame(1, 0, 2)
    assert traced.send(head)
    assert not traced.send(head)  # the cable holds one
    assert len(whole._noted) == 1
    theirs.receive(1)
    theirs.send(head)
    assert traced.receive(4) == [head]
    assert [sent for sent, _ in whole._noted] == [True, False]
    assert (traced.mac, traced.mtu, traced.fileno()) == (ours.mac, 1500, ours.fileno())
    traced.close()
    assert closed == [True]


# ---- one segment


def fields(flow: Flow, sent: bool, octets: bytes) -> dict[str, Any]:
    segment = segment_of(octets, ethernet.HEADER_LEN)
    assert segment is not None
    return flow.fields(sent, segment, octets)


def test_numbers_count_from_the_syn_and_pass_the_end_of_the_space() -> None:
    """RFC 9293 §3.4: arithmetic modulo 2**32."""
    flow = Flow(1)
    isn = 2**32 - 10
    assert fields(flow, True, frame(isn, 0, tcp.SYN))["seq"] == 0
    told = fields(flow, True, frame((isn + 1) % 2**32, 0, tcp.ACK, data=bytes(100)))
    assert (told["seq"], told["len"]) == (1, 100)
    assert fields(flow, True, frame(91, 0, tcp.ACK, data=b"x"))["seq"] == 101
    assert fields(flow, True, frame(91, 0, tcp.ACK, data=b"x"))["again"] is True
    assert fields(flow, False, frame(7, 91, tcp.ACK))["ack"] == 101


def test_windows_are_scaled_when_both_syns_agree() -> None:
    """RFC 7323 §2.2: and never in a SYN."""
    scaled = tcp.build_syn_options(1460, 7)
    flow = Flow(1)
    assert fields(flow, True, frame(1, 0, tcp.SYN, options=scaled))["wnd"] == 100
    fields(flow, False, frame(1, 2, tcp.SYN | tcp.ACK, options=scaled))
    assert fields(flow, True, frame(2, 2, tcp.ACK))["wnd"] == 100 << 7
    alone = Flow(1)
    fields(alone, True, frame(1, 0, tcp.SYN, options=scaled))
    fields(alone, False, frame(1, 2, tcp.SYN | tcp.ACK, options=tcp.build_syn_options(1460)))
    assert fields(alone, True, frame(2, 2, tcp.ACK))["wnd"] == 100


@pytest.mark.parametrize("cut", range(54))
def test_a_frame_that_ends_early_is_no_segment(cut: int) -> None:
    assert segment_of(frame(1, 0, tcp.SYN)[:cut], ethernet.HEADER_LEN) is None


def test_other_frames_are_no_segments() -> None:
    whole = bytearray(frame(1, 0, tcp.SYN))
    assert segment_of(bytes(whole), ethernet.HEADER_LEN) is not None
    for at, value in ((23, ipv4.PROTO_UDP), (20, 0x20), (12, 0x08 + 1), (46, 0x40)):
        other = bytearray(whole)
        other[at] = value
        assert segment_of(bytes(other), ethernet.HEADER_LEN) is None, at


def test_segments_over_ipv6() -> None:
    """RFC 8200 §3."""
    inner = frame(9, 0, tcp.SYN, data=b"abc")[34:]
    head = bytes((0x60, 0, 0, 0)) + len(inner).to_bytes(2) + bytes((6, 64))
    whole = bytes(12) + b"\x86\xdd" + head + bytes(15) + b"\1" + bytes(15) + b"\2" + inner
    segment = segment_of(whole, ethernet.HEADER_LEN)
    assert segment is not None
    assert (segment.length, segment.seq, segment.source) == (3, 9, bytes(15) + b"\1")
