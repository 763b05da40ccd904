"""A sender of DNS queries over UDP that keeps a server's turns full: python -m bench.barrage.

dnsperf takes some 4.1 us of processor for a query over IPv4 and 5.7 over IPv6, more than the server
that it asks on the other processor: such a row measures dnsperf. This one takes some 2.8 us over
either, what it spends looking for answers that are not there yet included: it hands the kernel many
queries at once (sendmmsg(2)), takes many answers at once (recvmmsg(2)), and looks only at one of
them: whether it is a good answer to a question under way. What the queries cost the kernel on their
way, and the answers as the server sends them, is as with any other sender.

It prints what `load` reads: queries sent and completed, and queries per second. It imports nothing
of the appliance.
"""

from __future__ import annotations

import argparse
import ctypes
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

SOCKETS = 16  # flows, so that every worker has some
EACH = 25  # queries under way on one of them; 400 in all, fewer than a tap's queue holds (500)
LEAST = 16  # queries sent at once, but for the last ones
ANSWERS = 64  # taken at once, at most
ANSWER_OCTETS = 2048
GREETING, GREETINGS = 0.2, 10  # seconds, and how often, that a first answer is waited for
PATIENCE_MS = 2000  # until queries without an answer are lost
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


class Messages:
    """Buffers in a row, as sendmmsg and recvmmsg want them; each of `sizes` octets."""

    def __init__(self, sizes: list[int], octets: bytes = b"") -> None:
        self.memory = ctypes.create_string_buffer(octets, sum(sizes))
        self._vectors = (_Iovec * len(sizes))()
        self._headers = (_Mmsghdr * len(sizes))()
        at = ctypes.addressof(self.memory)
        for vector, header, size in zip(self._vectors, self._headers, sizes, strict=True):
            vector.base, vector.length = at, size
            header.header.vectors, header.header.vectors_length = ctypes.addressof(vector), 1
            at += size
        self.count = len(sizes)

    def at(self, index: int) -> int:
        """Return the address of a message's header."""
        return ctypes.addressof(self._headers) + index * ctypes.sizeof(_Mmsghdr)

    def first(self) -> bytes:
        """Return the octets of the first message, as it was received."""
        return self.memory.raw[: self._headers[0].length]


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
    """Keeps `EACH` queries under way on each socket."""

    def __init__(self, address: str, queries: list[bytes], port: int = 53) -> None:
        self._queries = queries
        self._out = Messages([len(each) for each in queries], b"".join(queries))
        self._in = Messages([ANSWER_OCTETS] * ANSWERS)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
        self._poll = select.poll()
        for each in self._sockets:
            each.connect((address, port))
            self._poll.register(each, select.POLLIN)
        self._under_way = [0] * SOCKETS
        self._next = [len(queries) * number // SOCKETS for number in range(SOCKETS)]
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
            taken = self._take(number)
            room = EACH - self._under_way[number]
            busy |= bool(taken)
            if room >= LEAST or room == EACH:
                busy |= bool(self._ask(number, room))
        return busy

    def _take(self, number: int) -> int:
        count: int = self._receive(self._sockets[number].fileno(), self._in.at(0), ANSWERS, 0, None)
        if count <= 0:
            return 0
        if not is_answer(message := self._in.first(), self._queries):
            raise SystemExit(f"no answer to any of the queries: {message[:64]!r}")
        self._under_way[number] = max(self._under_way[number] - count, 0)
        self.completed += count
        return count

    def _ask(self, number: int, room: int) -> int:
        first = self._next[number]
        most = min(room, self._out.count - first)
        count: int = self._send(self._sockets[number].fileno(), self._out.at(first), most, 0)
        if count <= 0:
            return 0
        self._next[number] = (first + count) % self._out.count
        self._under_way[number] += count
        self.sent += count
        return count

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
