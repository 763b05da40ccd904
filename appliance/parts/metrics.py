"""Metrics: a listener of its own for Prometheus, for health checks and for the dashboard.

    /            the dashboard, one page without outside resources
    /status.json what it shows
    /metrics     Prometheus
    /healthz     200 while requests are taken on, 503 while the appliance drains

Whoever reaches the port from a network that is not ours gets 403, unless [metrics] allow says so.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from appliance.http import HttpServer, Limits, Site, web_protocol
from appliance.http.message import NOSNIFF, SERVER, Answer, plain
from appliance.http.representation import build
from appliance.links import PAIR
from appliance.parts.base import Part
from appliance.parts.holder import BACKLOG, Holder
from appliance.parts.observer import Observer
from appliance.parts.taster import Taster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from appliance.http.message import Request
    from appliance.net.transport import Stack
    from appliance.parts.authority import Authority
    from appliance.parts.observer import Counts
    from appliance.parts.web import Web
    from appliance.settings import Settings

PAGE: Final = Path(__file__).with_name("dashboard.html")
NAME: Final = "metrics"
POLICY: Final = (
    b"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
    b"script-src 'unsafe-inline'; connect-src 'self'; img-src data:\r\n"
)


class Metrics(Part):
    """The listener, and the observer behind it."""

    def __init__(self, settings: Settings, web: Web, authority: Authority) -> None:
        super().__init__()
        self._port = settings.metrics.port
        self._wanted = settings.gateway.metrics
        self._pair = settings.net.link == PAIR
        self._allowed = [ipaddress.ip_network(cidr) for cidr in settings.metrics.allow]
        self._address = settings.net.first
        self._stack: Stack | None = None
        self._web = web
        self._dns: Any = authority.server.counters
        self._taster = Taster(authority.catalog)
        authority.catalog = self._taster  # type: ignore[assignment]
        self._observer: Observer | None = None
        self.others: Callable[[], Iterable[Counts]] = lambda: ()
        """What other workers have counted; set before it begins."""
        self._http: HttpServer | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self, stack: Stack) -> None:
        """Listen, and begin to take samples."""
        self._stack = stack
        self._observer = Observer(stack, self._web.http, self._dns, self._taster)
        self._observer.certificates = lambda: self._web.certificates
        self._observer.others = self.others
        lost = build(b"there is no such page here\n", "text/plain; charset=utf-8")
        self._http = server = HttpServer(
            Holder(Site({}, lost)),
            limits=Limits(connections=200, connections_each=100),
            hooks={
                b"/": self._answer, b"/metrics": self._answer, b"/healthz": self._answer,
                b"/status.json": self._answer,
            },
        )  # fmt: skip
        self.servers.append(
            await stack.create_server(
                lambda: web_protocol(server), None, self._port, backlog=BACKLOG
            )
        )
        self._tick()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._observer is not None
        self._observer.tick(time.monotonic())
        self._timer = loop.call_later(1.0, self._tick)

    def is_allowed(self, address: str) -> bool:
        """Say whether a peer may look: from networks of the settings, or else from our own."""
        allowed = self._allowed
        if not allowed and self._stack is not None:
            allowed = [ipaddress.ip_interface(cidr).network for cidr in self._stack.addresses()]
        try:
            peer = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(peer in network for network in allowed)

    def _answer(self, request: Request, _body: bytes, address: str) -> Answer | None:
        observer = self._observer
        assert observer is not None
        if not self.is_allowed(address):
            return plain(403, "not from here")
        path = request.target.partition(b"?")[0]
        if request.method not in (b"GET", b"HEAD") or (path != b"/" and path.endswith(b"/")):
            return None
        if path == b"/healthz":
            state = b"draining\n" if observer.draining else b"ok\n"
            return _answer(503 if observer.draining else 200, "text/plain", state, request)
        if path == b"/metrics":
            text, kind = observer.exposition()
            return _answer(200, kind, text, request)
        if path == b"/status.json":
            status = observer.status(time.monotonic())
            return _answer(200, "application/json", status, request)
        if path == b"/":
            return _answer(200, "text/html; charset=utf-8", PAGE.read_bytes(), request, POLICY)
        return None

    def offers(self) -> list[tuple[str, int, int]]:
        """The port, for a pair's gateway."""
        return [(NAME, self._wanted, self._port)]

    def is_local(self, name: str) -> bool:
        """Behind the gateway all clients have its address: nobody could be told apart."""
        return not self._allowed

    def offered(self, name: str, address: str, port: int) -> None:
        """Where this host finds the dashboard."""
        self._address, self._port = address, port

    def notes(self) -> list[str]:
        """Where the dashboard is."""
        address = self._address
        if not address and self._stack is not None:
            found = (cidr.partition("/")[0] for cidr in self._stack.addresses())
            # One of the link needs a zone, which no browser takes.
            address = next((one for one in found if not one.startswith("fe80:")), "this-host")
        host = f"[{address}]" if ":" in address else address
        return [f"http://{host}:{self._port}/  (dashboard; /metrics, /healthz)"]

    def drain(self) -> None:
        """Tell health checks, and close."""
        if self._observer is not None:
            self._observer.draining = True
        super().drain()
        if self._http is not None:
            self._http.drain()

    async def end(self) -> None:
        """Take no more samples."""
        if self._timer is not None:
            self._timer.cancel()


def _answer(status: int, kind: str, body: bytes, request: Request, extra: bytes = b"") -> Answer:
    block = b"%sContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-store\r\n%s%s" % (
        SERVER, kind.encode(), len(body), extra, NOSNIFF,
    )  # fmt: skip
    return Answer(status, block, () if request.method == b"HEAD" else (body,))
