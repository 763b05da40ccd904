"""The web: the sites over HTTP, on the stack's own port, and the log of what was answered.

Others build on it: `hosting` is what is served now, `server()` makes the shared half of another
listener for it (as for https) with the same limits and log, and `hooks`, filled before `begin`,
are asked before the site.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from appliance.http import HttpServer, Limits, web_protocol
from appliance.links import PAIR
from appliance.parts.base import Part
from appliance.parts.holder import BACKLOG, Holder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.content import Content
    from appliance.http.accesslog import AccessLog
    from appliance.http.server import Hook
    from appliance.net.transport import Stack
    from appliance.parts.certificates import Certificates
    from appliance.settings import Settings


class Web(Part):
    """Listeners for HTTP, and the sites that they serve."""

    def __init__(self, settings: Settings, content: Content) -> None:
        super().__init__()
        self._settings = settings.http
        wanted = settings.http
        # Behind the gateway all clients have its address, so one may have all connections.
        each = wanted.connections if settings.net.link == PAIR else wanted.connections_each
        self.limits = Limits(
            head_seconds=wanted.head_seconds,
            idle_seconds=wanted.idle_seconds,
            min_rate=wanted.min_rate,
            connections=wanted.connections,
            connections_each=each,
            http2=wanted.http2,
        )
        self.hosting: Holder[Any] = Holder(_hosting(content))
        self.hooks: dict[bytes, Hook] = {}
        self.certificates: Certificates | None = None  # of its secure listener, if there is one
        self.redirect: Holder[Any] | None = None  # where plain HTTP leads, if not to the sites
        self.http: list[HttpServer] = []  # one for each kind of listener, the plain one first
        self._log: AccessLog | None = None

    def server(
        self,
        hosting: Holder[Any] | None = None,
        *,
        scheme: str = "http",
        hsts: str = "",
        hooks: Mapping[bytes, Hook] | None = None,
    ) -> HttpServer:
        """Make the shared half of a listener; once the part has begun, as the log has.

        `hooks` are this listener's own, beside those of all.
        """
        server = HttpServer(
            hosting or self.hosting,
            limits=self.limits,
            on_request=self._log,
            scheme=scheme,
            hsts=hsts,
            hooks={**self.hooks, **(hooks or {})},
        )
        self.http.append(server)
        return server

    async def begin(self, stack: Stack) -> None:
        """Listen for HTTP."""
        self._open_log()
        server = self.server(self.redirect)
        self.servers.append(
            await stack.create_server(
                lambda: web_protocol(server), None, self._settings.port, backlog=BACKLOG
            )
        )

    def _open_log(self) -> None:
        form = self._settings.access_log
        if form == "auto":
            # A person at a terminal wants to see what happens; a program did not ask.
            form = "human" if sys.stdout.isatty() and not self._settings.access_file else "off"
            if self._settings.access_file is not None:
                form = "combined"
        if form == "off":
            return
        from appliance.http.accesslog import AccessLog, LogFile

        file = LogFile(self._settings.access_file)
        self._log = AccessLog(file, form, truncate=self._settings.truncate_addresses)

    def reload(self, content: Content) -> None:
        """Serve other sites."""
        self.hosting.current = _hosting(content)

    def reopen(self) -> None:
        """Go on with a new access log."""
        if self._log is not None:
            self._log.file.reopen()

    def drain(self) -> None:
        """Close idle connections, and the others after the answer they wait for."""
        super().drain()
        for server in self.http:
            server.drain()

    async def end(self) -> None:
        """Write what the log has."""
        if self._log is not None:
            log, self._log = self._log, None
            await asyncio.get_running_loop().run_in_executor(None, log.file.close)

    def notes(self) -> list[str]:
        """Where the log is."""
        if self._log is None or self._log.file.path is None:
            return []
        return [f"access log: {self._log.file.path} (SIGUSR1 opens it again)"]


def _hosting(content: Content) -> Any:
    return content.hosting if content.hosting is not None else content.site
