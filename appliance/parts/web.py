"""The web: the site over HTTP, on the stack's own port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.http import HttpProtocol, HttpServer
from appliance.parts.base import Part
from appliance.parts.holder import BACKLOG, Holder

if TYPE_CHECKING:
    from appliance.content import Content
    from appliance.net.transport import Stack
    from appliance.settings import Settings


class Web(Part):
    """Listeners for HTTP, and the site that they serve."""

    def __init__(self, settings: Settings, content: Content) -> None:
        super().__init__()
        self._port = settings.http.port
        self._site = Holder(content.site)
        self._http = HttpServer(self._site)

    async def begin(self, stack: Stack) -> None:
        """Listen for HTTP."""
        http = self._http
        self.servers.append(
            await stack.create_server(lambda: HttpProtocol(http), None, self._port, backlog=BACKLOG)
        )

    def reload(self, content: Content) -> None:
        """Serve another site."""
        self._site.current = content.site

    def drain(self) -> None:
        """Close idle connections, and the others after the answer they wait for."""
        super().drain()
        self._http.drain()
