"""The authority: the zones over DNS, on the stack's own port, UDP and TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.dns.protocol import (
    MAX_STREAMS,
    MAX_STREAMS_EACH,
    DnsDatagramProtocol,
    DnsStreamProtocol,
    Streams,
)
from appliance.links import PAIR
from appliance.parts.base import Part
from appliance.parts.holder import BACKLOG, Holder

if TYPE_CHECKING:
    from appliance.content import Content
    from appliance.net.transport import Stack
    from appliance.settings import Settings


class Authority(Part):
    """Listeners for DNS, and the zones that they answer from."""

    def __init__(self, settings: Settings, content: Content) -> None:
        super().__init__()
        self._port = settings.dns.port
        self.catalog = Holder(content.catalog)
        # Behind the gateway all clients have its address, so one may have all streams.
        each = MAX_STREAMS if settings.net.link == PAIR else MAX_STREAMS_EACH
        self.streams = Streams(each=each)

    async def begin(self, stack: Stack) -> None:
        """Listen for queries."""
        self.servers.append(
            await stack.create_server(
                lambda: DnsStreamProtocol(self.catalog, streams=self.streams),
                None,
                self._port,
                backlog=BACKLOG,
            )
        )
        await stack.create_datagram_endpoint(
            lambda: DnsDatagramProtocol(self.catalog), ("", self._port)
        )

    def reload(self, content: Content) -> None:
        """Answer from other zones."""
        self.catalog.current = content.catalog

    def drain(self) -> None:
        """Close the streams; datagrams are answered until the stack ends."""
        super().drain()
        for server in self.servers:
            server.close_clients()
