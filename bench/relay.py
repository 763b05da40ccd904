"""A long, lossy, narrow path in user space, between taps in two namespaces.

    python -m bench.relay '{"near": SPACE, "far": SPACE, "rtt": S, "loss": P, "rate": BIT/S}'

Makes a tap `wan0` in either namespace and carries frames between them: half the round trip each
way, and towards `far` through a queue that leaves at `rate`, holds `QUEUE` octets and loses
frames by a schedule: the n-th TCP segment with data since the last seed is lost or not, whoever
sent it. A line with a number on stdin sets the seed and starts the count again. Prints `ready`,
and `ok` for each seed; leaves when stdin ends.

The kernel cuts super-segments and sums checksums before a frame reaches the taps, since these
promise no offload; so every frame is one packet. It knows nothing of the appliance.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
import os
import random
import select
import struct
import sys
import time
from collections import deque
from pathlib import Path

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_CLONE_NEWNET = 0x40000000
_FRAME = 65_536
_BATCH = 64
_QUEUE = 250_000  # octets that wait for the bottleneck: 20 ms at 100 Mbit/s; beyond, tail drop
_ETHERNET = 14


def _open_tap(space: str, name: str) -> int:
    """Make a tap in a namespace and return its descriptor; this thread stays in the namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(Path("/run/netns") / space, os.O_RDONLY)
    try:
        if libc.setns(namespace, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"{space}: {os.strerror(number)}")
    finally:
        os.close(namespace)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


def has_data(frame: bytes) -> bool:
    """Tell whether an Ethernet frame is a TCP segment over IPv4 that carries octets."""
    if len(frame) < _ETHERNET + 40 or frame[12:14] != b"\x08\x00" or frame[_ETHERNET + 9] != 6:
        return False
    header = (frame[_ETHERNET] & 15) * 4
    total = int.from_bytes(frame[_ETHERNET + 2 : _ETHERNET + 4])
    offset = _ETHERNET + header + 12
    return len(frame) > offset and total - header - (frame[offset] >> 4) * 4 > 0


class Way:
    """One direction: what is on its way, and when it arrives (monotonic seconds)."""

    def __init__(self, delay: float, rate: float, loss: float) -> None:
        """Start with an empty path; `rate` in bit/s (inf: no bottleneck), `loss` from 0 to 1."""
        self._delay = delay
        self._rate = rate
        self._loss = loss
        self._random = random.Random(0)
        self._free_at = 0.0
        self.waiting: deque[tuple[float, bytes]] = deque()

    def seed(self, number: int) -> None:
        """Start the schedule of losses again."""
        self._random = random.Random(number)

    def enter(self, frame: bytes, now: float) -> None:
        """Take in a frame, or lose it."""
        if self._loss and has_data(frame) and self._random.random() < self._loss:
            return
        begin = max(now, self._free_at)
        if (begin - now) * self._rate > _QUEUE * 8:
            return
        if self._rate < math.inf:
            begin += len(frame) * 8 / self._rate
        self._free_at = begin
        self.waiting.append((begin + self._delay, frame))

    def due(self) -> float:
        """Return when the next frame arrives."""
        return self.waiting[0][0] if self.waiting else math.inf


def main() -> None:
    """Carry frames until stdin ends."""
    wanted = json.loads(sys.argv[1])
    near, far = (_open_tap(wanted[side], "wan0") for side in ("near", "far"))
    towards_far = Way(wanted["rtt"] / 2, wanted["rate"], wanted["loss"])
    towards_near = Way(wanted["rtt"] / 2, math.inf, 0.0)
    ways = ((near, far, towards_far), (far, near, towards_near))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    commands = sys.stdin.fileno()
    while True:
        due = min(towards_far.due(), towards_near.due())
        wait = None if due == math.inf else max(due - time.monotonic(), 0.0)
        readable, _, _ = select.select([near, far, commands], [], [], wait)
        if commands in readable:
            line = os.read(commands, 100)
            if not line:
                return
            towards_far.seed(int(line))
            sys.stdout.write("ok\n")
            sys.stdout.flush()
        now = time.monotonic()
        for source, sink, way in ways:
            for _ in range(_BATCH if source in readable else 0):
                try:
                    way.enter(os.read(source, _FRAME), now)
                except (BlockingIOError, OSError):
                    break  # nothing more, or the side is not up yet
            while way.due() <= now:
                try:
                    os.write(sink, way.waiting.popleft()[1])
                except OSError:
                    pass  # lost: the side is not up, or its queue is full


if __name__ == "__main__":
    main()
