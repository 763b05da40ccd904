"""A sender of DNS queries over UDP, each from another port: python -m bench.strangers.

Resolvers take a port at random for each question (RFC 5452 §9.2), so this, and not a few flows with
many questions each, is what a name server of the internet sees. A socket for each question would
cost more than the question; here a great many are opened beforehand and take turns, and each one's
turn comes again only when more have asked than a server would remember.

It prints what `load` reads: queries sent and completed, and queries per second. A query takes three
system calls here and more processor than the server's answer: look at the processor time of the
servers rather than at queries per second. It imports nothing of the appliance.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
import time

from bench.barrage import ANSWER_OCTETS, GREETING, GREETINGS, is_answer, main

PORTS = 16_000  # below the 20,000 descriptors that many systems allow
UNDER_WAY = 400  # fewer than a tap's queue holds (500)
LEAST = 32  # queries sent at once, but for the last ones
PATIENCE = 2.0  # seconds until queries without an answer are lost


class Strangers:
    """Keeps `UNDER_WAY` queries under way, each from a port of its own."""

    def __init__(
        self, address: str, queries: list[bytes], port: int = 53, ports: int = PORTS
    ) -> None:
        self._queries = queries
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._epoll = select.epoll()
        self._sockets: list[socket.socket] = []
        for _ in range(ports):
            each = socket.socket(family, socket.SOCK_DGRAM)
            self._sockets.append(each)
            each.connect((address, port))  # which gives it a port
            each.setblocking(False)
            self._epoll.register(each, select.EPOLLIN)
        self._next = 0  # of all queries; which socket sends it, and what, goes by the remainder
        self._asking: set[int] = set()  # descriptors with a query under way
        self.sent = self.completed = 0

    def run(self, seconds: float) -> float:
        """Ask for so long; return how long it took. SystemExit for an answer that is none."""
        self._greet()
        began = time.monotonic()
        end = began + seconds
        while time.monotonic() < end:
            room = UNDER_WAY - len(self._asking)
            if room >= LEAST:
                self._ask(room)
            self._take()
        took = time.monotonic() - began
        while self._asking:
            self._take()
        return took

    def _greet(self) -> None:
        """Have one query answered: whoever is asked first may have to ask for our address first."""
        first = self._sockets[0]
        for _ in range(GREETINGS):
            first.send(self._queries[0])
            if self._epoll.poll(GREETING, 1):
                first.recv(ANSWER_OCTETS)
                return

    def _ask(self, count: int) -> None:
        sockets, queries, asking = self._sockets, self._queries, self._asking
        for number in range(self._next, self._next + count):
            descriptor = sockets[number % len(sockets)].fileno()
            if descriptor not in asking:
                os.write(descriptor, queries[number % len(queries)])
                asking.add(descriptor)
                self.sent += 1
        self._next += count

    def _take(self) -> None:
        """Take the answers that are there, or wait for some; those that never come are given up."""
        ready = self._epoll.poll(PATIENCE, UNDER_WAY)
        if not ready:
            self._asking.clear()
        message = b""
        for descriptor, _ in ready:
            message = os.read(descriptor, ANSWER_OCTETS)
            if descriptor in self._asking:
                self._asking.discard(descriptor)
                self.completed += 1
        if ready and not is_answer(message, self._queries):
            raise SystemExit(f"no answer to any of the queries: {message[:64]!r}")

    def close(self) -> None:
        """Close the sockets."""
        self._epoll.close()
        for each in self._sockets:
            each.close()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.exit(main("python -m bench.strangers", __doc__, Strangers))
