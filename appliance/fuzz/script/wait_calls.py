"""Calls that wait for several descriptors: poll and epoll.

Imports the process.
"""

from __future__ import annotations

import errno
from typing import Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script.faults import InapplicableError, MismatchError
from appliance.fuzz.script.process import Epoll, Process, Watch
from appliance.fuzz.script.sockets import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    ErrnoError,
    Socket,
    Waiting,
)
from appliance.fuzz.script.stage import MICRO
from appliance.fuzz.script.symbols import member, number, number_of

EPOLLET: Final = 1 << 31
EPOLLONESHOT: Final = 1 << 30
EPOLLEXCLUSIVE: Final = 1 << 28


class WaitCalls(Process):
    """Who is ready, and when."""

    def sys_poll(self, call: e.Call) -> Waiting:
        """poll([{fd=, events=, revents=}], count, milliseconds)."""
        entries = call.arguments[0]
        if not isinstance(entries, e.Array):
            raise MismatchError("poll() wants an array")
        timeout = self._int(call, 2)
        until = self.stage.now + timeout * MICRO // 1000
        always = POLLERR | POLLHUP
        while True:
            ready: list[tuple[e.Value, int]] = []
            for entry in entries.members:
                thing = self.table.get(number(member(entry, "fd") or 0))
                wanted = number(member(entry, "events") or 0)
                found = thing.events() & (wanted | always) if isinstance(thing, Socket) else 0
                ready.append((entry, found))
            count = sum(found != 0 for _, found in ready)
            if count or timeout == 0 or (timeout > 0 and self.stage.now >= until):
                break
            yield
        for entry, found in ready:
            self._equal("revents", member(entry, "revents") or 0, found)
        return count

    def sys_epoll_create(self, call: e.Call) -> int:
        """epoll_create(size)."""
        return self._new(call, Epoll())

    sys_epoll_create1 = sys_epoll_create

    def sys_epoll_ctl(self, call: e.Call) -> int:
        """epoll_ctl(epfd, EPOLL_CTL_ADD | MOD | DEL, fd, {events=, fd=})."""
        thing = self.table.get(number(call.arguments[0]))
        operation, fd = self._int(call, 1), self._int(call, 2)
        if not isinstance(thing, Epoll) or fd not in self.table:
            raise ErrnoError(errno.EBADF)
        if operation == number_of("EPOLL_CTL_DEL"):
            thing.watches.pop(fd, None)
            return 0
        wanted = number(member(call.arguments[3], "events") or 0)
        if wanted & (EPOLLONESHOT | EPOLLEXCLUSIVE):
            raise InapplicableError("EPOLLONESHOT and EPOLLEXCLUSIVE are Linux's own")
        thing.watches[fd] = Watch(wanted, fd)
        return 0

    def sys_epoll_wait(self, call: e.Call) -> Waiting:
        """epoll_wait(epfd, {events=, fd=}, most, milliseconds)."""
        thing = self.table.get(number(call.arguments[0]))
        if not isinstance(thing, Epoll):
            raise ErrnoError(errno.EBADF)
        timeout = self._int(call, 3)
        until = self.stage.now + timeout * MICRO // 1000
        while True:
            ready = [
                (watch, found) for watch in thing.watches.values() if (found := self._look(watch))
            ]
            if ready or timeout == 0 or (timeout > 0 and self.stage.now >= until):
                break
            yield
        wanted = member(call.arguments[1], "events")
        if wanted is not None:
            self._equal("events", wanted, ready[0][1] if ready else 0)
        return min(len(ready), self._int(call, 2))

    def _look(self, watch: Watch) -> int:
        """What a watched descriptor has to tell; for an edge, only when something came."""
        thing = self.table.get(watch.data)
        if not isinstance(thing, Socket):
            return 0
        found = thing.events() & (watch.wanted | POLLERR | POLLHUP)
        if not watch.wanted & EPOLLET:
            return found
        stream = thing.stream
        edges = stream.edges if stream else len(thing.waiting)
        arrived = 0
        if stream is not None and stream.connection is not None:
            arrived = stream.connection.rcv_nxt
        fresh = edges != watch.edges or arrived > watch.available or found & ~watch.last
        watch.edges, watch.available, watch.last = edges, arrived, found
        return found if fresh and found & (POLLIN | POLLOUT | POLLERR | POLLHUP) else 0
