"""How a primary is reached over TLS (RFC 9103): whom to believe, and which step failed.

Sessions are resumed: whoever has shown who it is need not sign again within the life of its ticket.

There is no opportunistic mode: a primary shows by its certificate that it is the one whose name or
key the settings have, or it is told no zone's name. Streams are given by the caller, so that this
runs over our own TCP as over the sockets of the host. Imports the TLS room and asyncio.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from OpenSSL import SSL

from appliance.tls.client import Judge, client_connection, client_context, pinned, speaks
from appliance.tls.errors import TlsError
from appliance.tls.limits import Limits
from appliance.tls.protocol import ClientStream

if TYPE_CHECKING:
    from appliance.dns.secondary import Primary, Trust
    from appliance.dns.service import Connect

DOT: Final = b"dot"
"""ALPN: RFC 9103 §7.1."""
LIMITS: Final = Limits(handshake_seconds=5.0, linger_seconds=2.0)
"""Half of what a connection may take altogether, so that an error can name the step."""
AGAIN: Final = 3600.0
"""Seconds after which the system's authorities are read again, which takes 20 ms."""


class _Session(NamedTuple):
    context: SSL.Context  # that it came of: OpenSSL takes it back for no other
    session: SSL.Session
    end: dt.datetime  # of the certificate that was shown, UTC


class SecurePrimaries:
    """Makes streams to primaries; `SecurePrimaries(...)` is what `Service` wants as `secure`."""

    def __init__(self, connect: Connect | None = None) -> None:
        """`connect` is like `loop.create_connection`, which is used without it."""
        self._connect = connect
        # By the authorities' file, of which there are as many as in the settings, or none.
        self._contexts: dict[tuple[Path | None, bool], tuple[float, SSL.Context]] = {}
        self._sessions: dict[Primary, _Session] = {}  # the latest of each primary

    async def __call__(
        self, factory: Callable[[], asyncio.Protocol], primary: Primary
    ) -> tuple[Any, Any]:
        """A stream to a primary that has shown who it is, and the protocol on it.

        Raises OSError, of which TlsError is one; the text names the step.
        """
        trust = primary.tls
        assert trust is not None
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        context = self._context(trust)
        connection = client_connection(context, trust.name)
        kept = self._sessions.pop(primary, None)  # RFC 8446 §C.4: each ticket once
        # A resumed handshake shows no certificate; and whom we believe may have changed since.
        if kept is not None and kept.context is context and kept.end > dt.datetime.now(dt.UTC):
            connection.set_session(kept.session)
        stream = ClientStream(
            connection, factory, waiter, LIMITS, _judges(trust),
            lambda ended: self._keep(primary, context, ended),
        )  # fmt: skip
        connect = self._connect or loop.create_connection
        try:
            await connect(lambda: stream, primary.address, primary.port)
        except OSError as error:
            raise ConnectionError(f"no TCP connection for TLS: {error}") from error
        try:
            await waiter
        except (OSError, TimeoutError) as error:
            whose = f" with {trust.name}" if trust.name else ""
            raise TlsError(f"TLS handshake{whose}: {error}") from error
        except BaseException:
            stream.abort()
            raise
        return stream, stream.get_protocol()

    def _keep(self, primary: Primary, context: SSL.Context, connection: SSL.Connection) -> None:
        """Remember a session; what OpenSSL cannot resume it does not."""
        certificate = connection.get_peer_certificate(as_cryptography=True)
        session = connection.get_session()
        if session is not None and certificate is not None:
            end = certificate.not_valid_after_utc
            self._sessions[primary] = _Session(context, session, end)

    def _context(self, trust: Trust) -> SSL.Context:
        """The context for a trust; made anew when the file of its authorities has changed."""
        file, verify = trust.ca_file, bool(trust.name)
        try:
            now = asyncio.get_running_loop().time()
            state = file.stat().st_mtime if file is not None else now // AGAIN
        except OSError as error:
            raise TlsError(f"{file}: {error.strerror}") from error
        made = self._contexts.get((file, verify))
        if made is None or made[0] != state:
            # RFC 9103 §7.2: TLS 1.3 or later, only.
            context = client_context(file, (DOT,), verify=verify, tls13=True)
            made = self._contexts[file, verify] = state, context
        return made[1]


def _judges(trust: Trust) -> list[Judge]:
    """RFC 9103 §7.1: "dot" MUST be selected. Names were looked at in the handshake.

    Deviates from RFC 9103 §7.5, where an authentication domain name is a MUST: a pinned key may
    stand for it, which leaves nobody but its owner to be spoken to (RFC 7858 §4.2).
    """
    judges = [speaks(DOT)]
    if trust.pins:
        judges.insert(0, pinned(trust.pins))
    return judges
