"""A sender of DNS queries over UDP that keeps a server's turns full: python -m bench.barrage.

dnsperf takes more than 4 us of processor for a query, and so more than the server that it asks on
the other processor: such a row measures dnsperf. This one takes some 1.7 us over either protocol,
as the server does: queries of equal length leave as one datagram that the kernel cuts (UDP_SEGMENT,
udp(7)), what the server sent as one datagram arrives as one (UDP_GRO), several of them at once
(recvmmsg(2)), and only the first of those is looked at: whether it is a good answer to a question
under way. The server gets its queries one by one, as from any sender; that the kernel
does not cut its answers saves it some 0.5 us for each, and the same to whoever stands beside it.

It prints what `load` reads: queries sent and completed, and queries per second. It imports nothing
of the appliance.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

SOCKETS = 16  # flows, so that every worker has some
BURST = 10  # queries sent at once, but for the last ones of a length
EACH = 30  # queries under way on one socket; 480 in all, fewer than a tap's queue holds (500)
TAKEN = 8  # datagrams, of one answer or of several, taken at once at most
ANSWER_OCTETS = 2048
SEVERAL_OCTETS = 65_535  # of answers that arrive as one
GREETING, GREETINGS = 0.2, 10  # seconds, and how often, that a first answer is waited for
PATIENCE_MS = 2000  # until queries without an answer are lost
_SEED = 7
# linux/udp.h
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
_TYPES = {"A": 1, "AAAA": 28}
_OK = (0, 3)  # RFC 1035 §4.1.1: no error, no such name


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vectors_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


class _Cut(ctypes.Structure):
    """A control message, cmsg(3): the size that a datagram is cut to; or was, 0: it is whole."""

    _fields_ = (
        ("length", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("type", ctypes.c_int),
        ("size", ctypes.c_int),
        ("padding", ctypes.c_int),
    )


_CUT_LENGTH = 18  # of a header and two octets, which UDP_SEGMENT wants


class Messages:
    """Buffers in a row, as sendmmsg and recvmmsg want them: of `sizes` octets, cut to `cuts`."""

    def __init__(self, sizes: Sequence[int], octets: bytes = b"", cuts: Sequence[int] = ()) -> None:
        self.count = len(sizes)
        self._memory = ctypes.create_string_buffer(octets, sum(sizes))
        self._vectors = (_Iovec * self.count)()
        self._headers = (_Mmsghdr * self.count)()
        self._cuts = (_Cut * self.count)()
        at = ctypes.addressof(self._memory)
        for index, size in enumerate(sizes):
            vector, message = self._vectors[index], self._headers[index].header
            vector.base, vector.length = at, size
            message.vectors, message.vectors_length = ctypes.addressof(vector), 1
            message.control = ctypes.addressof(self._cuts[index])
            message.control_length = ctypes.sizeof(_Cut)
            at += size
        for cut, size in zip(self._cuts, cuts, strict=False):
            cut.length, cut.level, cut.type, cut.size = _CUT_LENGTH, SOL_UDP, UDP_SEGMENT, size
        self._fresh = bytes(self._headers), bytes(self._cuts)

    def at(self, index: int) -> int:
        """Return the address of a message's header."""
        return ctypes.addressof(self._headers) + index * ctypes.sizeof(_Mmsghdr)

    def first(self) -> bytes:
        """Return the octets of the first message, as it was received; of several the first."""
        size = self._cuts[0].size or self._headers[0].length
        return ctypes.string_at(self._memory, min(size, self._headers[0].length))

    def datagrams(self, count: int) -> int:
        """How many datagrams arrived in so many messages."""
        total = 0
        for index in range(count):
            size = self._cuts[index].size
            total += -(-self._headers[index].length // size) if size else 1
        return total

    def renew(self, count: int) -> None:
        """Have room again for as many as were received."""
        headers, cuts = self._fresh
        ctypes.memmove(self._headers, headers, count * ctypes.sizeof(_Mmsghdr))
        ctypes.memmove(self._cuts, cuts, count * ctypes.sizeof(_Cut))


class Burst(NamedTuple):
    """Queries of equal length, which leave at once."""

    octets: bytes
    size: int
    queries: int


def bursts(queries: list[bytes]) -> list[Burst]:
    """Return all queries in bursts, in no order."""
    by_size: dict[int, list[bytes]] = {}
    for each in queries:
        by_size.setdefault(len(each), []).append(each)
    made = [
        Burst(b"".join(those), size, len(those))
        for size, alike in by_size.items()
        for those in (alike[at : at + BURST] for at in range(0, len(alike), BURST))
    ]
    random.Random(_SEED).shuffle(made)
    return made


def query(number: int, name: str, rrtype: str) -> bytes:
    """Return a query with the identity `number`, as dnsperf asks it: recursion desired, no EDNS."""
    labels = (label.encode() for label in name.rstrip(".").split("."))
    question = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    head = number.to_bytes(2) + b"\1\0" + b"\0\1" + bytes(6)
    return head + question + _TYPES[rrtype].to_bytes(2) + b"\0\1"


def is_answer(message: bytes, queries: list[bytes]) -> bool:
    """Tell whether a message answers one of the queries, whose identities are their places."""
    number = int.from_bytes(message[:2])
    if len(message) < 12 or number >= len(queries):
        return False
    asked = queries[number]
    answers = message[2] & 0x80 and message[3] & 15 in _OK
    return bool(answers) and message[12 : len(asked)] == asked[12:]


class Barrage:
    """Keeps up to `EACH` queries under way on each socket."""

    def __init__(self, address: str, queries: list[bytes], port: int = 53) -> None:
        self._queries = queries
        self._bursts = bursts(queries)
        self._out = Messages(
            [len(each.octets) for each in self._bursts],
            b"".join(each.octets for each in self._bursts),
            [each.size for each in self._bursts],
        )
        self._in = Messages([SEVERAL_OCTETS] * TAKEN)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
        self._poll = select.poll()
        for each in self._sockets:
            each.connect((address, port))
            each.setsockopt(SOL_UDP, UDP_GRO, 1)
            self._poll.register(each, select.POLLIN)
        self._under_way = [0] * SOCKETS
        self._next = [len(self._bursts) * number // SOCKETS for number in range(SOCKETS)]
        library = ctypes.CDLL(None)
        self._send, self._receive = library.sendmmsg, library.recvmmsg
        self._send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        self._receive.argtypes = (*self._send.argtypes, ctypes.c_void_p)
        self.sent = self.completed = 0

    def run(self, seconds: float) -> float:
        """Ask for so long; return how long it took. SystemExit for an answer that is none."""
        for each in self._sockets:
            self._greet(each)
        began = time.monotonic()
        end = began + seconds
        while time.monotonic() < end:
            if not self._round():
                self._wait()
        took = time.monotonic() - began
        while any(self._under_way):
            if not any(self._take(number) for number in range(SOCKETS)):
                self._wait()
        return took

    def _greet(self, each: socket.socket) -> None:
        """Have one query answered: whoever is asked first may have to ask for our address first."""
        each.settimeout(GREETING)
        for _ in range(GREETINGS):
            each.send(self._queries[0])
            try:
                each.recv(ANSWER_OCTETS)
            except TimeoutError:
                continue
            break
        each.setblocking(False)

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets:
            each.close()

    def _round(self) -> bool:
        """Take and ask what there is on each socket; False if there was nothing."""
        busy = False
        for number in range(SOCKETS):
            busy |= bool(self._take(number))
            while self._under_way[number] + BURST <= EACH and self._ask(number):
                busy = True
        return busy

    def _take(self, number: int) -> int:
        count: int = self._receive(self._sockets[number].fileno(), self._in.at(0), TAKEN, 0, None)
        if count <= 0:
            return 0
        if not is_answer(message := self._in.first(), self._queries):
            raise SystemExit(f"no answer to any of the queries: {message[:64]!r}")
        taken = self._in.datagrams(count)
        self._in.renew(count)
        self._under_way[number] = max(self._under_way[number] - taken, 0)
        self.completed += taken
        return taken

    def _ask(self, number: int) -> bool:
        """Send one burst; False if there is no room for it."""
        index = self._next[number]
        if self._send(self._sockets[number].fileno(), self._out.at(index), 1, 0) <= 0:
            return False
        self._next[number] = (index + 1) % len(self._bursts)
        self._under_way[number] += self._bursts[index].queries
        self.sent += self._bursts[index].queries
        return True

    def _wait(self) -> None:
        """Wait for answers; those that do not come are given up."""
        if not self._poll.poll(PATIENCE_MS):
            self._under_way = [0] * SOCKETS


class Sender(Protocol):
    """Who asks."""

    sent: int
    completed: int

    def run(self, seconds: float) -> float:
        """Ask for so long; how long it took."""

    def close(self) -> None:
        """Close the sockets."""


def main(program: str, about: str | None, make: Callable[[str, list[bytes]], Sender]) -> int:
    """Ask by the sender that `make` makes of address and queries; print what came of it."""
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("address")
    parser.add_argument("queries", type=Path, help="a name and a type in each line")
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    lines = arguments.queries.read_text().splitlines()
    queries = [query(number, *line.split()) for number, line in enumerate(lines)]
    sender = make(arguments.address, queries)
    took = sender.run(arguments.seconds)
    sender.close()
    print(f"Queries sent: {sender.sent}")
    print(f"Queries completed: {sender.completed}")
    print(f"Queries per second: {sender.completed / took:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main("python -m bench.barrage", __doc__, Barrage))
