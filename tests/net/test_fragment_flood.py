"""A flood of random fragments over both protocols: memory is bounded, honest datagrams get through.

20,000 in the tests; FRAGMENTS=1000000 for the figure of the release notes, which is printed:

    FRAGMENTS=1000000 pytest tests/net/test_fragment_flood.py
"""

from __future__ import annotations

import gc
import os
import random
import sys
import time
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from appliance.net.fragments import MAX_DATAGRAMS, SOURCE_OCTETS, TOTAL_OCTETS
from appliance.net.wire import ethernet, ipv4
from appliance.net.wire.virtio import PLAIN
from tests.net.test_network6 import PEER_MAC, Inbox, Wire, six

FRAGMENTS = int(os.environ.get("FRAGMENTS", "20000"))
BATCH = 64
EVERY = 20
"""Batches between two honest datagrams."""
SPREAD = 3
"""Batches over which the fragments of one honest datagram arrive, with the flood between them."""
TURN = 0.001
"""Seconds of virtual time for a batch: 64,000 fragments a second."""
SLACK = 16 << 20
"""Octets of resident memory besides what is charged: the allocator's own, and scapy's."""
ANSWER = b"y" * 3000


class Flood:
    """Fragments that look right as far as each header goes; half of them from few sources.

    `patient`: no overlaps, no ends, so that each is kept for as long as there is room.
    """

    def __init__(self, mac: bytes, *, patient: bool) -> None:
        self._rng = random.Random(8)
        self._patient = patient
        self._number = 0
        self._six = bytes(
            Ether(src=PEER_MAC, dst=ethernet.mac_text(mac))
            / six(IPv6ExtHdrFragment(m=1, nh=17), Raw(bytes(8)))
        )[:-8]
        self._four = bytes(Ether(src=PEER_MAC, dst=ethernet.mac_text(mac), type=0x0800))

    def frame(self) -> bytes:
        rng = self._rng
        payload = rng.randbytes(8 * rng.randrange(1, 100))
        few, more = rng.random() < 0.5, rng.random() < 0.9
        host = rng.randrange(16) if few else rng.getrandbits(16)
        offset, ident = 8 * rng.randrange(8000), rng.randrange(400)
        if self._patient:
            payload, more = rng.randbytes(1200), True
            ident, piece = divmod(self._number, 8)
            self._number += 1
            offset, host, ident = piece * 1200, ident >> 3 & 0xFFFF, ident & 0xFFFF
        if rng.random() < 0.5:
            frame = bytearray(self._six) + payload
            frame[18:20] = (len(frame) - 54).to_bytes(2)
            frame[36:38] = (0x100 + host).to_bytes(3)[1:]
            frame[56:58] = (offset | more).to_bytes(2)
            frame[58:62] = ident.to_bytes(4)
            return PLAIN + bytes(frame)
        head = ipv4.header(
            b"\xc6\x33" + host.to_bytes(2), b"\n\0\0\1", 17, len(payload),
            ident=ident, flags=ipv4.FLAG_MF if more else 0, fragment_offset=offset,
        )  # fmt: skip
        return PLAIN + self._four + head + payload


def honest(number: int) -> list[Packet]:
    """The fragments of one datagram, of either protocol in turn."""
    if number & 1:
        packet = IP(src="10.0.0.2", dst="10.0.0.1", id=number & 0xFFFF)
        return list(fragment(packet / UDP(sport=9, dport=53) / Raw(ANSWER), 1200))
    whole = six(IPv6ExtHdrFragment(id=number), UDP(sport=9, dport=53), Raw(ANSWER))
    return list(fragment6(whole, 1280))


def resident() -> int:
    """Octets of this process in memory; proc(5)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("patient", [False, True], ids=["random", "patient"])
def test_fragments_stay_under_the_cap(patient: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """RFC 8200 §4.5, RFC 815, RFC 5722: every fragment is taken in, few are kept, none for long."""
    wire = Wire()
    inbox = Inbox()
    wire.host.udp_bind("", 53, inbox)
    wire.know_peer()
    flood = Flood(wire.vif.mac, patient=patient)
    table = wire.host.network.fragments
    coming: list[list[Packet]] = [[] for _ in range(SPREAD)]
    sent = most = many = spent = 0.0
    for batch in range(FRAGMENTS // BATCH):
        if batch % EVERY == 0 and batch < FRAGMENTS // BATCH - SPREAD:
            for at, piece in enumerate(honest(batch // EVERY + 1)):
                coming[at % SPREAD].append(piece)
            sent += 1
        frames = [flood.frame() for _ in range(BATCH)]
        began = time.perf_counter()
        wire.host.receive(frames, wire.now)
        spent += time.perf_counter() - began
        wire.put(*coming[0])
        coming = [*coming[1:], []]
        most = max(most, table.octets)
        many = max(many, len(table))
        assert table.octets <= TOTAL_OCTETS
        wire.run(TURN)
        wire.far.receive(1024)
        if batch == 200:
            gc.collect()
            settled = resident()
    assert max(table._by_source.values(), default=0) <= SOURCE_OCTETS
    assert len(inbox.got) == sent
    assert all(data == ANSWER for data, _ in inbox.got)
    # One of the bounds was met, or this says nothing.
    assert most > TOTAL_OCTETS * 0.99 if patient else many == MAX_DATAGRAMS
    grown = resident() - settled
    assert grown < SLACK
    # What is left goes in its time, and leaves nothing behind.
    wire.run(61.0)
    assert (len(table), table.octets, len(table._by_source)) == (0, 0, 0)
    if "FRAGMENTS" in os.environ:
        with capsys.disabled():
            sys.stdout.write(
                f"\n{FRAGMENTS:,} fragments: {most / 2**20:.2f} MiB charged at the most (cap "
                f"{TOTAL_OCTETS / 2**20:.0f}), {many:.0f} datagrams at once, resident memory "
                f"{grown / 2**20:+.1f} MiB after the first 12,800, {len(inbox.got)} of {sent:.0f} "
                f"honest datagrams whole, {spent / FRAGMENTS * 1e6:.1f} us a fragment\n"
            )
