"""Options: MSS, window scale, timestamps, and what lies about itself."""

from __future__ import annotations

import pytest

from appliance.net.tcb import MIN_MSS, TcpSettings
from appliance.net.wire import tcp
from tests.net.tcp.harness import Peer, Scene, active, passive, pattern

NO_TS = TcpSettings(timestamps=False)

# ---------------------------------------------------------------------- maximum segment size


def segments_of(mss: int | None, *, mtu: int = 1500, ts: bool = False) -> int:
    """Octets of a full segment sent to a peer that announced `mss`."""
    _, peer, app = passive(mss=mss, ts=ts, scene=Scene(mtu=mtu))
    app.send(bytes(40_000))
    return len(peer.expects(".").data)


def test_mss_of_the_peer_bounds_ours() -> None:
    """RFC 9293 §3.7.1 MUST-16: the effective send MSS."""
    assert segments_of(1000) == 1000


def test_mss_absent_means_536() -> None:
    """RFC 9293 §3.7.1 MUST-15."""
    assert segments_of(None) == 536


def test_mss_beyond_the_link_is_cut_to_it() -> None:
    """RFC 9293 §3.7.1 MUST-16, MUST-67: never more than the link carries."""
    assert segments_of(9000) == 1460
    assert segments_of(65535, mtu=9000) == 8960


def test_options_are_deducted_by_the_sender() -> None:
    """RFC 9293 §3.7.1, RFC 6691 §3.1: the MSS counts none of them."""
    assert segments_of(1000, ts=True) == 988


@pytest.mark.parametrize("mss", [0, 1, 20, 87])
def test_tiny_mss_is_raised(mss: int) -> None:
    """RFC 9293 §3.7.1 leaves the floor to us: a peer cannot make us send crumbs."""
    assert segments_of(mss) == MIN_MSS
    assert segments_of(mss, ts=True) == MIN_MSS - 12


def test_our_mss_is_what_the_link_carries() -> None:
    """RFC 9293 §3.7.1 MUST-14, SHLD-5, RFC 6691 §2: MTU less the fixed headers, on both SYNs."""
    for mtu in (576, 1500, 9000):
        scene = Scene(mtu=mtu)
        scene.listen(80)
        peer = Peer(scene)
        peer.sends("S")
        assert peer.expects("S.").options.mss == mtu - 40
        other = Peer(scene, 80, 4001)
        scene.connect(80, local_port=4001)
        assert other.expects("S").options.mss == mtu - 40


def test_our_mss_as_set() -> None:
    """RFC 9293 §3.7.1 MUST-67: less than the link carries, never more."""
    scene = Scene()
    for local_port, chosen, said in ((4001, 500, 500), (4002, 5000, 1460)):
        peer = Peer(scene, 80, local_port)
        scene.connect(80, local_port=local_port, settings=TcpSettings(max_segment=chosen))
        assert peer.expects("S").options.mss == said


# ---------------------------------------------------------------------- lengths that lie


@pytest.mark.parametrize(
    "options",
    [
        b"\x02\x00\x05\xb4",  # length nought
        b"\x02\x01\x05\xb4",  # shorter than kind and length
        b"\x02\x28\x05\xb4",  # past the end of the header
        b"\x01\x01\x01\x02",  # no room for a length
        b"\xfd\x00\x00\x00",  # unknown kind, length nought
        b"\x08\x0a\x00\x00",  # a timestamp cut short
    ],
)
def test_lying_option_ends_the_list_and_spares_the_segment(options: bytes) -> None:
    """RFC 9293 §3.1 MUST-7, MUST-64, MUST-65: an illegal length must be survived."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene, ts=False, sack=False, wscale=None)
    peer.sends("S", options=options)
    peer.expects("S.", seq=0, ack=1)
    assert scene.counter("tcp_syn_dropped") == 0
    peer.sends("P.", data=b"x", options=options)
    assert scene.app().data == b"x"
    assert scene.counter("tcp_options_malformed") > 0
    assert scene.app().connection.mss == 536


@pytest.mark.parametrize(
    "options",
    [
        b"\x63\x04zz\x02\x04\x03\xe8",  # unknown kinds carry their length
        b"\x01\x01\x01\x01\x02\x04\x03\xe8",  # NOP
        b"\x02\x04\x03\xe8\x00\x02\x04\x01",  # what follows END does not count
        b"\x02\x03\x01\x02\x04\x03\xe8\x00",  # a known kind of wrong length is skipped
    ],
)
def test_options_around_are_skipped(options: bytes) -> None:
    """RFC 9293 §3.1 MUST-4 to MUST-6, MUST-68."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene, ts=False, sack=False, wscale=None)
    peer.sends("S", options=options)
    peer.expects("S.")
    peer.sends(".", options=b"\x63\x04zz")
    scene.app().send(bytes(2000))
    peer.expects(".", len=1000)


def test_options_on_any_segment() -> None:
    """RFC 9293 §3.1 MUST-5: an MSS that comes later changes nothing and harms nothing."""
    _, peer, app = passive(ts=False)
    peer.sends("P.", data=b"x", options=b"\x02\x04\x00\x64")
    peer.expects(".", ack=2)
    app.send(bytes(3000))
    peer.expects(".", len=1460)


def test_data_offset_past_the_segment_is_dropped() -> None:
    """RFC 9293 §3.1: the header cannot be longer than the segment."""
    scene, peer, _ = passive()
    frame = bytearray(peer.frame("P.", data=b""))
    frame[44 + 12] = 0xF0
    frame[0] = 2  # the checksum has been looked at
    scene.receive(bytes(frame))
    assert scene.counter("tcp_data_offset") == 1
    frame[44 + 12] = 0x40
    scene.receive(bytes(frame))
    assert scene.counter("tcp_data_offset") == 2
    peer.expects_nothing()


# ---------------------------------------------------------------------- window scale


def test_window_of_a_syn_is_never_scaled() -> None:
    """RFC 7323 §2.2: neither theirs nor ours."""
    scene, peer, app = active(settings=TcpSettings(receive_start=1 << 20), window=30_000)
    peer.sends(".", ack=1, window=40_000)
    assert app.connection.max_snd_wnd == 40_000
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80, settings=TcpSettings(receive_start=1 << 20))
    assert peer.expects("S").window == 65535
    peer.sends("S.", window=300)
    assert app.connection.snd_wnd == 300


def test_both_must_offer_scaling() -> None:
    """RFC 7323 §2.2: without the peer's option neither direction scales."""
    _, peer, app = passive(wscale=None, window=40_000)
    peer.sends("P.", data=b"x")
    assert peer.expects(".").window <= 65535
    assert app.connection.snd_wnd == 40_000
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene, wscale=None)
    peer.sends("S")
    assert peer.expects("S.").options.window_scale is None


def test_scaling_may_be_refused() -> None:
    """RFC 7323 §2.2: an option."""
    scene = Scene()
    scene.listen(80, settings=TcpSettings(window_scaling=False))
    peer = Peer(scene)
    peer.sends("S")
    assert peer.expects("S.").options.window_scale is None
    peer.wscale = None
    peer.sends(".", window=5000)
    assert scene.app().connection.snd_wnd == 5000


def test_shift_above_fourteen_counts_as_fourteen() -> None:
    """RFC 7323 §2.3 MUST."""
    _, peer, app = passive(wscale=20)
    peer.wscale = 14
    peer.sends(".", window=5 << 14)
    assert app.connection.snd_wnd == 5 << 14


@pytest.mark.parametrize("buffer", [65_535, 1 << 16, 1 << 20, 6 << 20, 1 << 29])
def test_our_shift_expresses_the_whole_buffer(buffer: int) -> None:
    """RFC 7323 §2.2, §2.3: as small as will do, fourteen at most."""
    shift = TcpSettings(receive_buffer=buffer).window_shift
    assert 0xFFFF << shift >= buffer
    assert shift == 0 or 0xFFFF << (shift - 1) < buffer
    assert TcpSettings(receive_buffer=1 << 40).window_shift == 14


# ---------------------------------------------------------------------- timestamps


def test_timestamps_are_on_when_both_offer_them() -> None:
    """RFC 7323 §3.2: then in every segment, and a RST SHOULD carry it too."""
    _, peer, app = passive()
    app.send(b"x")
    assert peer.expects("P.").options.timestamp is not None
    peer.sends("P.", data=b"y")
    assert peer.expects(".").options.timestamp is not None
    app.abort()
    assert peer.expects("R.").options.timestamp is not None


@pytest.mark.parametrize("ours", [True, False])
def test_timestamps_are_off_when_one_does_not(ours: bool) -> None:
    """RFC 7323 §3.2 MUST NOT."""
    scene = Scene()
    scene.listen(80, settings=TcpSettings(timestamps=ours))
    peer = Peer(scene, ts=not ours)
    peer.sends("S")
    assert peer.expects("S.").options.timestamp is None
    peer.sends(".", ts=None)
    scene.app().send(b"x")
    assert peer.expects("P.").options.timestamp is None


def test_timestamp_where_none_was_agreed_on_is_ignored() -> None:
    """RFC 7323 §3.2: "the TSopt MUST be ignored"."""
    scene = Scene()
    scene.listen(80, settings=NO_TS)
    peer = Peer(scene)
    peer.sends("S")
    peer.expects("S.")
    peer.sends("P.", data=b"abc", ts=(5, 6))
    peer.sends("P.", data=b"def", ts=(1, 6))
    assert scene.app().data == b"abcdef"


def test_segment_without_its_timestamp_is_taken() -> None:
    """Deviates from RFC 7323 §3.2 (SHOULD drop) as Linux does; the echo stays what it was."""
    scene, peer, app = passive()
    echoed = peer.clock
    scene.advance(0.1)
    peer.sends("P.", seq=1, data=b"x", ts=None)
    answer = peer.expects(".", ack=2)
    assert answer.options.timestamp is not None
    assert answer.options.timestamp[1] == echoed
    assert app.data == b"x"
    assert scene.counter("tcp_missing_timestamp") == 1
    peer.sends("R", seq=2)
    assert isinstance(app.error, ConnectionResetError), "a RST needs none"


def test_clock_ticks_in_milliseconds_from_a_secret_start() -> None:
    """RFC 7323 §4.1, §5.4 (1 ms to 1 s), §7.1."""
    scene, peer, app = passive()
    app.send(b"x")
    first = peer.expects("P.").options.timestamp
    peer.sends(".")
    scene.advance(0.25)
    app.send(b"y")
    second = peer.expects("P.").options.timestamp
    assert first is not None
    assert second is not None
    assert (second[0] - first[0]) & 0xFFFFFFFF == 250
    other = Scene(seed=2)
    other.listen(80)
    stranger = Peer(other)
    stranger.sends("S")
    third = stranger.expects("S.").options.timestamp
    assert third is not None
    assert abs(third[0] - first[0]) > 1000


def test_syn_echoes_nothing_and_syn_ack_the_syn() -> None:
    """RFC 7323 §3.2: TSecr is valid when ACK is set, and 0 otherwise."""
    scene = Scene()
    scene.listen(80)
    peer = Peer(scene)
    peer.sends("S", ts=(1234, 99))
    stamp = peer.expects("S.").options.timestamp
    assert stamp is not None
    assert stamp[1] == 1234
    other = Peer(scene, 80, 4001)
    scene.connect(80, local_port=4001)
    stamp = other.expects("S").options.timestamp
    assert stamp is not None
    assert stamp[1] == 0


def echoed(peer: Peer) -> int:
    stamp = peer.expects(".").options.timestamp
    assert stamp is not None
    return stamp[1]


def test_echo_of_a_delayed_ack_is_of_the_first_segment() -> None:
    """RFC 7323 §4.3 (A): the wait for the ACK belongs to the round trip."""
    scene, peer, _ = passive()
    for _ in range(20):  # until quick acknowledgments are used up
        peer.sends("P.", data=b"x")
    peer.drain()
    first = peer.clock
    peer.sends(".", data=b"a")
    scene.advance(0.01)
    peer.sends(".", data=b"b")
    scene.advance(0.1)
    assert echoed(peer) == first


def test_echo_with_a_hole_is_of_the_last_in_order() -> None:
    """RFC 7323 §4.3 (B): what came out of order says nothing about a round trip."""
    scene, peer, _ = passive()
    peer.sends("P.", data=b"a")
    first = peer.clock
    assert echoed(peer) == first
    scene.advance(0.05)
    peer.sends("P.", seq=12, data=b"later")
    assert echoed(peer) == first


def test_echo_when_the_hole_is_filled_is_of_what_filled_it() -> None:
    """RFC 7323 §4.3 (C)."""
    scene, peer, _ = passive()
    peer.sends("P.", seq=11, data=b"later")
    peer.drain()
    scene.advance(0.05)
    filled = peer.clock
    peer.sends(".", seq=1, data=b"0123456789")
    assert echoed(peer) == filled


def test_echo_never_goes_back() -> None:
    """RFC 7323 §4.3 (2): only SEG.TSval >= TS.Recent replaces it."""
    scene, peer, _ = passive()
    scene.advance(0.1)
    now = peer.clock
    peer.sends("P.", data=b"a")
    assert echoed(peer) == now
    peer.sends("P.", data=b"b", ts=(now - 50, peer.echo))
    assert echoed(peer) == now


def test_paws_drops_and_acknowledges() -> None:
    """RFC 7323 §5.3 R1."""
    scene, peer, app = passive()
    peer.sends("P.", data=b"new")
    peer.drain()
    peer.sends("P.", data=b"old", ts=(peer.clock - 1, peer.echo))
    peer.expects(".", seq=1, ack=4, len=0)
    assert app.data == b"new"
    assert scene.counter("tcp_paws_dropped") == 1


def test_paws_spares_resets() -> None:
    """RFC 7323 §5.2: "RST segments MUST NOT be subjected to the PAWS check"."""
    _, peer, app = passive()
    peer.sends("R", ts=(peer.clock - 1000, 0))
    assert isinstance(app.error, ConnectionResetError)


def test_paws_compares_across_the_wrap() -> None:
    """RFC 7323 §5.2: modulo 2**32; the peer's clock wraps within this second."""
    scene, peer, app = passive()
    assert peer.clock >= 0xFFFFFF00
    scene.advance(1.0)
    assert peer.clock < 1000
    peer.sends("P.", data=b"wrapped")
    assert app.data == b"wrapped"


def test_paws_forgets_after_24_days() -> None:
    """RFC 7323 §5.5: an idle connection must not freeze when the clock has gone half round."""
    scene, peer, app = passive()
    scene.advance(25 * 86_400)
    now = peer.clock
    peer.sends("P.", data=b"still here")
    assert app.data == b"still here"
    assert echoed(peer) == now, "and the new one is remembered: PAWS is at work again"
    peer.sends("P.", data=b"old", ts=(now - 1, peer.echo))
    assert app.data == b"still here"


def test_paws_from_the_first_segment_of_a_long_running_host() -> None:
    """RFC 7323 §5.3: what the SYN said counts, however long this host has been up."""
    scene, peer, app = active(scene=Scene(now=40 * 86_400.0))
    peer.sends("P.", data=b"old", ts=(peer.clock - 10, peer.echo))
    assert app.data == b""
    assert scene.counter("tcp_paws_dropped") == 1


@pytest.mark.parametrize("seed", range(4))
def test_an_echo_of_nought_is_none(seed: int) -> None:
    """RFC 7323 §3.2, as Linux reads it: a SYN,ACK of a box that does not echo is an answer."""
    scene = Scene(seed=seed)
    peer = Peer(scene, 80, 4000)
    scene.connect(80)
    peer.expects("S")
    peer.sends("S.", ts=(peer.clock, 0))
    peer.expects(".", ack=1)


def test_echo_of_what_was_never_sent_in_syn_sent() -> None:
    """RFC 7323 §3.2, §5.8 spirit: not an answer to our SYN."""
    scene = Scene()
    peer = Peer(scene, 80, 4000)
    app = scene.connect(80)
    peer.expects("S")
    peer.sends("S.", ts=(1, peer.echo + 100_000))
    peer.expects("R", seq=1)
    assert app.state == "SYN-SENT"


# ---------------------------------------------------------------------- SACK permitted


def test_sack_only_when_permitted() -> None:
    """RFC 2018 §2, §3: MUST NOT be sent to a peer that has not permitted it."""
    for permitted in (True, False):
        _, peer, _ = passive(sack=permitted)
        peer.sends("P.", seq=101, data=b"ahead")
        blocks = peer.expects(".", ack=1).options.sack
        assert bool(blocks) == permitted


def test_sack_may_be_refused() -> None:
    """RFC 2018 §2."""
    scene = Scene()
    scene.listen(80, settings=TcpSettings(sack=False))
    peer = Peer(scene)
    peer.sends("S")
    assert not peer.expects("S.").options.sack_permitted


# ---------------------------------------------------------------------- checksum, reserved bits


def test_wrong_checksum_is_dropped_and_counted() -> None:
    """RFC 9293 §3.1 MUST-3."""
    scene, peer, app = passive()
    for seq in (peer.nxt, 5000):
        frame = bytearray(peer.frame("P.", seq=seq, data=b"damaged"))
        frame[-1] ^= 1
        scene.receive(bytes(frame))
    assert app.data == b""
    assert scene.counter("tcp_checksum") == 2
    peer.expects_nothing()


def test_checksum_verified_by_the_link_is_believed() -> None:
    """VIRTIO 1.2 §5.1.6.4: DATA_VALID, and NEEDS_CSUM from this very machine."""
    for flag in (1, 2):
        scene, peer, app = passive()
        frame = bytearray(peer.frame("P.", data=b"whole"))
        frame[44 + 16] ^= 0xFF
        frame[0] = flag
        scene.receive(bytes(frame))
        assert app.data == b"whole"


def test_reserved_bits_are_ignored() -> None:
    """RFC 9293 §3.1: "Must be zero in generated segments and must be ignored in received"."""
    scene, peer, app = passive()
    frame = bytearray(peer.frame("P.", data=b"x"))
    frame[44 + 12] |= 0x0E
    frame[0] = 2
    scene.receive(bytes(frame))
    assert app.data == b"x"
    peer.expects(".", ack=2)


def test_large_transfer_both_ways_with_the_plainest_options() -> None:
    """RFC 9293 alone: no scaling, no timestamps, no SACK, no MSS."""
    _, peer, app = passive(mss=None, wscale=None, sack=False, ts=False, window=65535)
    sent = pattern(20_000)
    app.send(sent)
    app.shutdown()
    got = b""
    while not got.endswith(sent[-4:]):
        for segment in peer.drain():
            got += segment.data
        peer.sends(".")
    assert got == sent
    for at in range(0, len(sent), 536):
        peer.sends(".", data=sent[at : at + 536])
    assert app.data == sent
    assert peer.expects(".").options == tcp.NO_OPTIONS


def test_a_bound_of_segments_holds_for_what_we_send() -> None:
    """TCP_MAXSEG: announced to the peer, and heeded by ourselves (RFC 9293 §3.7.1)."""
    _, peer, app = passive(settings=TcpSettings(max_segment=1000, timestamps=False))
    app.send(bytes(3000))
    assert [len(s.data) for s in peer.drain()] == [1000, 1000, 1000]
