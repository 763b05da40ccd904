"""A snapshot of one connection, with the names that Linux's `struct tcp_info` made common.

Times are in microseconds (those called `last_…` in milliseconds), windows and counts in segments
or octets as in linux/tcp.h, so that scripts and dashboards written for it read ours.  What this
stack does not keep is left out rather than invented.

It reads a connection and changes nothing.  It imports `tcp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from appliance.net.congestion import INFINITE
from appliance.net.rack import DUP_THRESH
from appliance.net.repair import LOSS, OPEN
from appliance.net.tcp import Connection
from appliance.net.tcp_state import (
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    LISTEN,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
)

# linux/tcp.h (include/net/tcp_states.h): the numbers of tcpi_state.
_LINUX_STATE: Final = {
    ESTABLISHED: 1,
    SYN_SENT: 2,
    SYN_RECEIVED: 3,
    FIN_WAIT_1: 4,
    FIN_WAIT_2: 5,
    TIME_WAIT: 6,
    CLOSED: 7,
    CLOSE_WAIT: 8,
    LAST_ACK: 9,
    LISTEN: 10,
    CLOSING: 11,
}
# enum tcp_ca_state: Open, Disorder, CWR, Recovery, Loss.
CA_OPEN: Final = 0
CA_DISORDER: Final = 1
CA_RECOVERY: Final = 3
CA_LOSS: Final = 4
# TCPI_OPT_*
OPT_TIMESTAMPS: Final = 1
OPT_SACK: Final = 2
OPT_WSCALE: Final = 4
OPT_ECN: Final = 8
OPT_SYN_DATA: Final = 32  # the SYN carried data, and they were taken

_MICRO: Final = 1_000_000
INFINITE_SSTHRESH: Final = 0x7FFF_FFFF  # TCP_INFINITE_SSTHRESH: no loss has set it yet


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """`struct tcp_info`, as far as this stack has its fields."""

    tcpi_state: int
    tcpi_ca_state: int
    tcpi_retransmits: int
    tcpi_probes: int
    tcpi_backoff: int
    tcpi_options: int
    tcpi_snd_wscale: int
    tcpi_rcv_wscale: int
    tcpi_rto: int
    tcpi_ato: int
    tcpi_snd_mss: int
    tcpi_rcv_mss: int
    tcpi_unacked: int
    tcpi_sacked: int
    tcpi_lost: int
    tcpi_retrans: int
    tcpi_last_data_sent: int
    tcpi_last_data_recv: int
    tcpi_last_ack_recv: int
    tcpi_pmtu: int
    tcpi_rcv_ssthresh: int
    tcpi_rtt: int
    tcpi_rttvar: int
    tcpi_snd_ssthresh: int
    tcpi_snd_cwnd: int
    tcpi_advmss: int
    tcpi_reordering: int
    tcpi_rcv_space: int
    tcpi_total_retrans: int
    tcpi_notsent_bytes: int
    tcpi_min_rtt: int
    tcpi_bytes_acked: int
    tcpi_bytes_received: int
    tcpi_snd_wnd: int
    tcpi_rcv_wnd: int
    tcpi_delivered: int


def snapshot(connection: Connection, now: float) -> TcpInfo:
    """Take a snapshot at `now`, the time of the connection's host (monotonic seconds)."""
    c, repair = connection, connection.repair
    rtt, flight, mss = repair.rtt, repair.flight, c.mss

    def segments(octets: int) -> int:
        return -(-octets // mss)

    if repair.state == OPEN:
        ca_state = CA_DISORDER if flight.sacked or flight.reno_sacked else CA_OPEN
    else:
        ca_state = CA_LOSS if repair.state == LOSS else CA_RECOVERY
    limit = c.path.mtu - c.path.overhead - 20
    again = sum(r.end - r.start for r in flight.in_flight() if r.retransmitted)
    options = OPT_TIMESTAMPS if c.ts_on else 0
    options |= OPT_SACK if c.sack_on else 0
    options |= OPT_WSCALE if c.snd_wscale or c.rcv_wscale else 0
    options |= OPT_ECN if c.ecn_on else 0
    options |= OPT_SYN_DATA if c.fast is not None and c.fast.taken else 0
    # As Linux counts: a SYN and the data that went with it are one.
    with_syn = c.fast.octets if c.fast is not None and c.fast.taken and not c.passive else 0
    arrived = c.snd_una - c.iss - 1 - with_syn + flight.sacked + flight.reno_sacked
    return TcpInfo(
        tcpi_state=_LINUX_STATE[c.state],
        tcpi_ca_state=ca_state,
        tcpi_retransmits=rtt.backoffs,
        tcpi_probes=c.probes,
        tcpi_backoff=rtt.backoffs,
        tcpi_options=options,
        tcpi_snd_wscale=c.snd_wscale,
        tcpi_rcv_wscale=c.rcv_wscale,
        tcpi_rto=int(rtt.rto * _MICRO),
        tcpi_ato=40_000,
        tcpi_snd_mss=mss,
        tcpi_rcv_mss=c.rcv_mss,
        tcpi_unacked=segments(c.snd_nxt - c.snd_una),
        tcpi_sacked=segments(flight.sacked + flight.reno_sacked),
        # As Linux counts: a lost segment is lost until it arrives, sent again or not.
        tcpi_lost=segments(flight.lost + (again if repair.state != OPEN else 0)),
        tcpi_retrans=segments(again),
        tcpi_last_data_sent=int((now - c.last_sent_at) * 1000),
        tcpi_last_data_recv=int((now - c.last_data_at) * 1000),
        tcpi_last_ack_recv=int((now - c.last_heard) * 1000),
        tcpi_pmtu=c.path.mtu,
        tcpi_rcv_ssthresh=c.rcv_buffer,
        tcpi_rtt=int(rtt.srtt * _MICRO),
        tcpi_rttvar=int(rtt.rttvar * _MICRO),
        tcpi_snd_ssthresh=(
            INFINITE_SSTHRESH if repair.cc.ssthresh >= INFINITE else repair.cc.ssthresh // mss
        ),
        tcpi_snd_cwnd=repair.cc.cwnd // mss,
        tcpi_advmss=min(c._settings.max_segment or limit, limit),
        tcpi_reordering=max(DUP_THRESH, segments(repair.rack.displaced)),
        tcpi_rcv_space=c.rcv_buffer,
        tcpi_total_retrans=c.retransmitted,
        tcpi_notsent_bytes=c.unsent,
        tcpi_min_rtt=int(rtt.minimum * _MICRO),
        tcpi_bytes_acked=max(c.snd_una - c.iss - 1, 0),
        tcpi_bytes_received=max(c.rcv_nxt - c.irs - 1, 0),
        tcpi_snd_wnd=c.snd_wnd,
        tcpi_rcv_wnd=max(c.rcv_adv - c.rcv_nxt, 0),
        tcpi_delivered=1 + segments(arrived) if c.snd_una > c.iss else 0,
    )
