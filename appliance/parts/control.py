"""The control socket: an engineer asks the running appliance what it knows, and sends a ping.

A Unix socket that only its owner may open. A client sends one line of JSON and gets lines of JSON
until the answer is complete; when it goes away, what it asked for ends. Nothing can be changed
through it. A socket that cannot be made is a line in the log and no reason not to serve.

Requests: {"do": "arp"}, {"do": "route"}, {"do": "ping", "to": ..., "count", "interval", "size"},
{"do": "capture", "count": n, "link": name} (default: all of them). May import the stack's face and
asyncio.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

from appliance.net.neighbor import (
    DELAY,
    IDLE,
    INCOMPLETE,
    PROBING,
    REACHABLE,
    STALE,
    WANTED,
    Neighbor,
)
from appliance.net.wire.address import to_text
from appliance.net.wire.ethernet import mac_text
from appliance.parts.base import Part

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from appliance.net.transport import Stack
    from appliance.settings import Settings

logger = logging.getLogger("appliance")

LINE: Final = 4096
"""Octets of a request at most."""
CLIENTS: Final = 16
"""Engineers at the same time."""
CAPTURED: Final = 4096
"""Frames that wait for a slow client; beyond, they are counted and left out."""
ANSWER_SECONDS: Final = 4.0
"""How long a ping waits for the last answer: that a neighbour is not there shows after three."""
MAX_PING: Final = 65_000
_STATES: Final = {
    IDLE: "idle", WANTED: "wanted", INCOMPLETE: "incomplete", REACHABLE: "reachable",
    PROBING: "probe", STALE: "stale", DELAY: "delay",
}  # fmt: skip

Answer = dict[str, Any]


class Control(Part):
    """The listener, and the answers."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._path: Path = settings.control.socket
        self._server: asyncio.AbstractServer | None = None
        self._made: tuple[int, int] | None = None  # our socket, once it is there
        self._stack: Stack | None = None
        self._pings = 0
        self._clients: set[asyncio.Task[Any]] = set()

    async def begin(self, stack: Stack) -> None:
        """Listen, unless another appliance does so there."""
        self._stack = stack
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _answers(self._path):
                logger.warning("%s: another appliance listens there already", self._path)
                return
            self._path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(
                    self._serve, str(self._path), limit=LINE
                )
                self._made = _identity(self._path)
            finally:
                os.umask(before)
        except OSError as error:
            logger.warning("no control socket %s: %s", self._path, error.strerror or error)

    def drain(self) -> None:
        """Take on nothing new; a capture ends."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()

    async def end(self) -> None:
        """Take the socket away."""
        if self._server is not None:
            self.drain()
            self._server = None
            with suppress(OSError):
                # While we drained another appliance may have begun to listen there.
                if _identity(self._path) == self._made:
                    self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        gone: asyncio.Future[None] | None = None
        try:
            if len(self._clients) > CLIENTS:
                raise ValueError("too many at the same time")
            line = await reader.readline()
            gone = asyncio.ensure_future(_gone(reader, task))
            # Closed here and now, however it ends: a capture that nobody reads is no use.
            async with aclosing(self._answers(json.loads(line))) as answers:
                async for answer in answers:
                    writer.write(json.dumps(answer).encode() + b"\n")
                    await writer.drain()
        except (ValueError, TypeError, KeyError, OSError, RuntimeError, OverflowError) as error:
            text = getattr(error, "strerror", None) or str(error)
            # uvloop raises RuntimeError for what is written to a client that has gone.
            with suppress(OSError, RuntimeError):
                writer.write(json.dumps({"error": text}).encode() + b"\n")
        except asyncio.CancelledError:
            pass  # the client has gone, or the appliance ends
        finally:
            if gone is not None:
                gone.cancel()
            self._clients.discard(task)
            writer.close()

    def _answers(self, request: Any) -> AsyncGenerator[Answer, None]:
        wanted = request.get("do") if isinstance(request, dict) else None
        if wanted == "arp":
            return _each(self._neighbors())
        if wanted == "route":
            return _each(self._routes())
        if wanted == "ping":
            return self._ping(request)
        if wanted == "capture":
            return self._capture(int(request.get("count", 0)), str(request.get("link", "")))
        raise ValueError("unknown request")

    # Tables.

    def _neighbors(self) -> list[Answer]:
        assert self._stack is not None
        now = self._stack.host.network.now
        return [
            {
                "address": to_text(neighbor.address),
                "mac": _mac(neighbor),
                "state": _STATES[neighbor.state],
                "confirmed": round(max(now - neighbor.confirmed_at, 0.0), 1)
                if neighbor.confirmed_at > 0
                else None,
                "router": neighbor.router,
                "link": link.name,
            }
            for link in self._stack.host.links
            for cache in (link.arp, link.nd)
            for neighbor in cache.entries()
        ]

    def _routes(self) -> list[Answer]:
        assert self._stack is not None
        host = self._stack.host
        answers: list[Answer] = [
            {
                "kind": "address",
                "address": f"{to_text(own.address)}/{own.prefix_len}",
                "link": own.link.name,
                "origin": own.origin,
                "deprecated": own.deprecated,
            }
            for own in host.addresses.local.values()
        ]
        answers += [
            {
                "kind": "route",
                "to": f"{to_text(route.network)}/{route.prefix_len}",
                "via": None if route.gateway is None else to_text(route.gateway),
                "link": route.link.name,
                "origin": route.origin,
                "alive": not route.demoted,
            }
            for route in host.network.routes
        ]
        answers += [
            {"kind": "resolver", "address": to_text(address), "link": link.name}
            for link in host.links
            for address in link.resolvers()
        ]
        return answers

    # Ping.

    async def _ping(self, request: Answer) -> AsyncGenerator[Answer, None]:
        assert self._stack is not None
        to, count = str(request["to"]), int(request.get("count", 4))
        interval, size = float(request.get("interval", 1.0)), int(request.get("size", 56))
        if not (0 < count <= 10_000 and 0.01 <= interval <= 60 and 0 <= size <= MAX_PING):
            raise ValueError(f"1 to 10,000 pings of 0 to {MAX_PING} octets, 0.01 to 60 s apart")
        self._pings = (self._pings + 1) & 0xFFFF
        ident = self._pings
        sent: dict[int, float] = {}
        answers: asyncio.Queue[Answer] = asyncio.Queue()

        def answered(address: str, sequence: int, why: str) -> None:
            began = sent.pop(sequence, None)
            if began is None:
                return
            if why:
                answers.put_nowait({"from": address, "sequence": sequence, "unreachable": why})
            else:
                took = (time.monotonic() - began) * 1000.0
                answers.put_nowait(
                    {"from": address, "sequence": sequence, "ms": round(took, 3), "size": size}
                )

        stack = self._stack
        received = 0
        try:
            for sequence in range(1, count + 1):
                sent[sequence] = time.monotonic()
                stack.ping(to, ident, sequence, size, answered)
                until = sent.get(sequence, time.monotonic()) + (
                    interval if sequence < count else ANSWER_SECONDS
                )
                while (left := until - time.monotonic()) > 0 and (sequence < count or sent):
                    try:
                        answer = await asyncio.wait_for(answers.get(), left)
                    except TimeoutError:
                        break
                    received += "ms" in answer
                    yield answer
            while not answers.empty():
                answer = answers.get_nowait()
                received += "ms" in answer
                yield answer
            yield {"sent": count, "received": received}
        finally:
            stack.forget_ping(ident)

    # Capture.

    async def _capture(self, count: int, link: str) -> AsyncGenerator[Answer, None]:
        assert self._stack is not None
        if count < 0:
            raise ValueError(f"{count} frames cannot be shown; 0 has no end")
        waiting: asyncio.Queue[tuple[float, bytes, str]] = asyncio.Queue(CAPTURED)
        missed = 0

        def seen(frame: bytes, name: str) -> None:
            nonlocal missed
            try:
                waiting.put_nowait((time.time(), frame, name))
            except asyncio.QueueFull:
                missed += 1

        stop: Callable[[], None] = self._stack.watch(seen, link)
        try:
            number = 0
            while not count or number < count:
                at, frame, name = await waiting.get()
                number += 1
                octets = base64.b64encode(frame).decode()
                yield {"at": at, "link": name, "frame": octets, "missed": missed}
        finally:
            stop()


async def _each(answers: list[Answer]) -> AsyncGenerator[Answer, None]:
    for answer in answers:
        yield answer


async def _gone(reader: asyncio.StreamReader, task: asyncio.Task[Any]) -> None:
    """Cancel the task when the client closes its end."""
    while await reader.read(LINE):
        pass
    task.cancel()


def _mac(neighbor: Neighbor) -> str | None:
    mac = neighbor.mac or neighbor.last_mac
    return mac_text(mac) if mac else None


def _identity(path: Path) -> tuple[int, int]:
    """What tells a socket from another that took its path; numbers are used again. OSError."""
    found = path.stat()
    return found.st_ino, found.st_ctime_ns


def _answers(path: Path) -> bool:
    """Tell whether somebody listens on the socket `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
