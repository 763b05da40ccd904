"""What a snapshot says of a connection, in the units and conventions of Linux's struct tcp_info."""

from __future__ import annotations

from appliance.net import tcp_info
from tests.net.tcp.harness import FULL, App, Scene, passive


def info(scene: Scene, app: App) -> tcp_info.TcpInfo:
    return tcp_info.snapshot(app.connection, scene.now)


def test_a_threshold_that_no_loss_has_set_is_infinite() -> None:
    """RFC 5681 §3.1: ssthresh starts arbitrarily high; scripts know one number for that."""
    scene, _, app = passive(rtt=0.1)
    assert info(scene, app).tcpi_snd_ssthresh == tcp_info.INFINITE_SSTHRESH


def test_what_was_lost_stays_lost_until_it_arrives() -> None:
    """Linux's lost_out: sent again or not (RFC 6675 §4 would not count what is out again)."""
    scene, peer, app = passive(rtt=0.1)
    app.send(bytes(5 * FULL))
    peer.drain()
    scene.advance(0.1)
    peer.sends(".", ack=1, sack=[(1 + FULL, 1 + 5 * FULL)])
    assert [s.seq for s in peer.drain()] == [1]
    seen = info(scene, app)
    assert (seen.tcpi_lost, seen.tcpi_retrans, seen.tcpi_sacked) == (1, 1, 4)
    assert seen.tcpi_ca_state == tcp_info.CA_RECOVERY
    peer.sends(".", ack=1 + 5 * FULL)
    seen = info(scene, app)
    assert (seen.tcpi_lost, seen.tcpi_retrans, seen.tcpi_sacked, seen.tcpi_unacked) == (0, 0, 0, 0)


def test_when_octets_came_last() -> None:
    """In milliseconds; before any, since the handshake was complete. A bare ACK brings none."""
    scene, peer, app = passive(rtt=0.1)
    scene.advance(0.5)
    assert info(scene, app).tcpi_last_data_recv == 500
    peer.sends("P.", data=b"x")
    scene.advance(0.2)
    peer.sends(".")
    assert info(scene, app).tcpi_last_data_recv == 200
    assert info(scene, app).tcpi_last_ack_recv == 0
