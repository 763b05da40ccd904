"""Connections that we open: TLS over our own TCP, and a small HTTP/1.1 client on it (RFC 9112).

One request, one connection: what asks is a certificate order, whose requests are seconds apart.
Imports the stack's face, h11, the TLS room and asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import h11
from OpenSSL import SSL

from appliance.net.transport import Stack
from appliance.resolver import Resolver
from appliance.tls.client import client_connection
from appliance.tls.errors import TlsError
from appliance.tls.protocol import ClientStream

DEADLINE: Final = 30.0
"""Seconds for a whole request, from looking the name up to the last octet."""
ATTEMPT: Final = 8.0
"""Seconds for one address, if there are others: one that does not answer at all must not keep them
from being tried (RFC 8305 §5), and TCP itself would try for minutes."""
MAX_BODY: Final = 1024 * 1024
"""Octets of a response: directories, orders and chains have a few thousand."""
STREAM_LIMIT: Final = 64 * 1024

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Reply(NamedTuple):
    """A response: status, fields with lower-case names, content."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes


class DialError(OSError):
    """A request that got no response; the text says where it went and what happened."""


async def create_tls_connection(
    stack: Stack,
    factory: Callable[[], P],
    host: str,
    port: int,
    *,
    name: str,
    context: SSL.Context,
) -> tuple[ClientStream, P]:
    """Asyncio's `create_connection` with TLS: `host` is an address, `name` whom it has to be.

    Raises TlsError when the handshake fails, OSError when there is no connection.
    """
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream = ClientStream(client_connection(context, name), factory, waiter)
    await stack.create_connection(lambda: stream, host, port)
    try:
        await waiter
    except BaseException:
        stream.abort()
        raise
    return stream, stream.get_protocol()  # type: ignore[return-value]


async def open_tls_connection(
    stack: Stack, host: str, port: int, *, name: str, context: SSL.Context
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """`create_tls_connection` with a reader and a writer on it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=STREAM_LIMIT, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    stream, _ = await create_tls_connection(
        stack, lambda: protocol, host, port, name=name, context=context
    )
    writer = asyncio.StreamWriter(cast(asyncio.Transport, stream), protocol, reader, loop)
    return reader, writer


class Dialer:
    """Fetches by URL; `context` is the client context that says whom to believe."""

    def __init__(self, stack: Stack, resolver: Resolver, context: SSL.Context) -> None:
        self._stack = stack
        self._resolver = resolver
        self._context = context

    async def fetch(
        self, method: str, url: str, fields: Mapping[str, str], body: bytes = b""
    ) -> Reply:
        """One request; raises DialError, ResolverError or TlsError."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        try:
            async with asyncio.timeout(DEADLINE):
                reader, writer = await self._connect(
                    parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80)
                )
                try:
                    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                    return await _exchange(
                        reader, writer, method, target, {"Host": parts.netloc, **fields}, body
                    )
                finally:
                    writer.close()
        except TimeoutError as exc:
            raise DialError(f"{url}: no answer within {DEADLINE:.0f} s") from exc
        except (h11.RemoteProtocolError, ConnectionError) as exc:
            raise DialError(f"{url}: {exc}") from exc

    async def _connect(
        self, scheme: str, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Try the host's addresses in turn."""
        trouble: OSError | None = None
        addresses = await self._resolver.addresses(host)
        for address in addresses:
            try:
                async with asyncio.timeout(ATTEMPT if address != addresses[-1] else None):
                    if scheme == "https":
                        return await open_tls_connection(
                            self._stack, address, port, name=host, context=self._context
                        )
                    return await self._stack.open_connection(address, port)
            except TlsError:
                raise
            except OSError as exc:
                trouble = exc
        raise DialError(f"{host} port {port}: {trouble}") from trouble


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    target: str,
    fields: Mapping[str, str],
    body: bytes,
) -> Reply:
    """RFC 9112: a request, and the response to it."""
    connection = h11.Connection(our_role=h11.CLIENT)
    headers = [*fields.items(), ("Connection", "close")]
    if body or method == "POST":
        headers.append(("Content-Length", str(len(body))))
    sent = connection.send(h11.Request(method=method, target=target, headers=headers)) or b""
    if body:
        sent += connection.send(h11.Data(data=body)) or b""
    sent += connection.send(h11.EndOfMessage()) or b""
    writer.write(sent)
    response: h11.Response | None = None
    content = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(STREAM_LIMIT))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > MAX_BODY:
                raise h11.RemoteProtocolError(f"a response of more than {MAX_BODY} octets")
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    if response is None:
        raise h11.RemoteProtocolError("closed without a response")
    return Reply(
        response.status_code,
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers],
        bytes(content),
    )
