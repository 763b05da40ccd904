"""The secure listeners: HTTPS, DNS over TLS (RFC 7858) and DNS over HTTPS (RFC 8484).

They put TLS under the protocols that the web and the authority have anyway.
"""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from appliance.dns.protocol import DnsStreamProtocol
from appliance.http import web_protocol
from appliance.http.hosts import Elsewhere
from appliance.links import PAIR
from appliance.parts.base import Part
from appliance.parts.certificates import fingerprints
from appliance.parts.doh import Doh
from appliance.parts.holder import BACKLOG, Holder
from appliance.tls.protocol import TlsServer

if TYPE_CHECKING:
    from appliance.content import Content
    from appliance.http import HttpServer
    from appliance.net.transport import Stack
    from appliance.parts.authority import Authority
    from appliance.parts.certificates import Certificates
    from appliance.parts.web import Web
    from appliance.settings import Settings
    from appliance.tls.credential import Credential

WEB_PROTOCOLS: Final = (b"h2", b"http/1.1")
"""ALPN: RFC 9113 §3.1, RFC 7301 §6."""
DOT_PROTOCOLS: Final = (b"dot",)
"""ALPN: registered for RFC 7858, which does not ask for it; RFC 9103 §7.1 does, for transfers."""
HTTPS: Final = "HTTPS"
DOT: Final = "DNS over TLS"


class Secure(Part):
    """Listeners for HTTPS and DNS over TLS; while there is no certificate they answer by alerts."""

    def __init__(
        self, settings: Settings, certificates: Certificates, web: Web, authority: Authority
    ) -> None:
        super().__init__()
        self._stack: Stack | None = None
        self._settings = settings
        self._certificates = certificates
        self._web = web
        web.certificates = certificates
        self._authority = authority
        self.https: HttpServer | None = None
        self.doh = Doh(self._ask)
        self.listeners: dict[str, TlsServer] = {}
        self._places: dict[str, tuple[str, int]] = {}  # on the gateway, by name
        if settings.tls.redirect and settings.tls.port:
            web.redirect = Holder(None)
            self._lead()
            certificates.on_change = self._lead

    def _lead(self) -> None:
        """Send plain HTTP to where it can be answered: here, unless there is no certificate."""
        settings, redirect = self._settings, self._web.redirect
        if redirect is None:
            return
        if not self._certificates.ready:
            redirect.current = self._web.hosting.current
            return
        port = settings.gateway.https if settings.net.link == PAIR else settings.tls.port
        _, port = self._places.get(HTTPS, ("", port))
        name = urlsplit(settings.site.base_url).hostname or "localhost"
        redirect.current = Elsewhere("https", port, name)

    def reload(self, content: Content) -> None:
        """Other sites are served."""
        self._lead()

    async def begin(self, stack: Stack) -> None:
        """Listen; what is offered there may be mended while we run."""
        self._stack = stack
        tls = self._settings.tls
        if tls.port:
            self.https = self._web_server()
            await self._listen(stack, "https", tls.port, WEB_PROTOCOLS, self._web_protocol)
        if tls.dot_port:
            await self._listen(stack, "dot", tls.dot_port, DOT_PROTOCOLS, self._dot_protocol)

    def _found(self) -> str:
        """An address that the stack has found for itself, a global one if there is one."""
        found = self._stack.addresses() if self._stack is not None else []
        plain = [cidr.partition("/")[0] for cidr in found]
        return next((a for a in plain if not a.startswith("fe80")), "") or "this-host"

    def _web_server(self) -> HttpServer:
        tls = self._settings.tls
        return self._web.server(
            scheme="https",
            hsts=f"max-age={tls.hsts}" if tls.hsts else "",
            # RFC 8484 §5: over https only.
            hooks={tls.doh.encode(): self.doh} if tls.doh else {},
        )

    async def _listen(
        self, stack: Stack, service: str, port: int, protocols: tuple[bytes, ...], factory: Any
    ) -> None:
        contexts = self._certificates.contexts(service, protocols)
        listener = TlsServer(contexts, factory, counters=self._certificates.counters)
        self.listeners[service] = listener
        self.servers.append(await stack.create_server(listener, None, port, backlog=BACKLOG))

    def _web_protocol(self, alpn: str | None) -> asyncio.Protocol:
        assert self.https is not None
        if alpn == "acme-tls/1":
            return _Closer()
        return web_protocol(self.https, alpn)

    def _dot_protocol(self, alpn: str | None) -> asyncio.Protocol:
        return DnsStreamProtocol(
            self._authority.holder, streams=self._authority.streams, kind="tls"
        )

    def _ask(self, query: bytes, address: str) -> bytes | None:
        """RFC 8484 §4.2.1: no limit of UDP's applies."""
        return self._authority.answer_http(query, address)

    def offers(self) -> list[tuple[str, int, int]]:
        """HTTPS and DNS over TLS, on the gateway."""
        tls, gateway = self._settings.tls, self._settings.gateway
        wanted = [(HTTPS, gateway.https, tls.port), (DOT, gateway.dot, tls.dot_port)]
        return [offer for offer in wanted if offer[2]]

    def offered(self, name: str, address: str, port: int) -> None:
        """Remember where they are, for the banner; a redirect leads to the port that was got."""
        self._places[name] = (address, port)
        if name == HTTPS:
            self._lead()

    def notes(self) -> list[str]:
        """Where to look, what the certificate is, and how to trust it."""
        tls = self._settings.tls
        ours = self._settings.net.first or self._found()
        lines: list[str] = []
        if not self._certificates.ready:
            return lines
        trust = self._certificates.authority_file
        if tls.port:
            address, port = self._places.get(HTTPS, (ours, tls.port))
            url = f"https://{_host(address)}{'' if port == 443 else f':{port}'}/"
            lines.append(url)
            lines += [f"    {_describe(found)}" for found in self._certificates.credentials()]
            if trust is not None:
                lines.append(f"    curl --cacert {_relative(trust)} {url}")
                lines.append(f"    to trust it on this host (nothing was changed): {_trust(trust)}")
        if tls.dot_port:
            address, port = self._places.get(DOT, (ours, tls.dot_port))
            lines.append(
                f"kdig @{address}{'' if port == 853 else f' -p {port}'} "
                f"{'+tls' if trust is None else f'+tls-ca={_relative(trust)}'} "
                f"+tls-hostname={address} {self._certificates.credentials()[0].names[0]}"
            )
        return lines

    def drain(self) -> None:
        """Finish the answers that are under way, and close the streams of DNS."""
        super().drain()
        if self.https is not None:
            self.https.drain()
        for server in self.servers[1 if self.https is not None else 0 :]:
            server.close_clients()


class _Closer(asyncio.Protocol):
    """RFC 8737 §3: after the handshake of a challenge there is nothing to say."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).close()


def _describe(credential: Credential) -> str:
    """A certificate in a line: for whom, by whom, until when, and what to compare."""
    more = len(credential.names) - 1
    names = credential.names[0] + (f" and {more} more" if more else "")
    [digest] = fingerprints([credential])
    return (
        f"certificate for {names} by {credential.issuer}, until "
        f"{credential.not_after:%Y-%m-%d %H:%M} UTC, SHA-256 {digest}"
    )


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _relative(path: Path) -> str:
    """A path as a person would type it here."""
    try:
        path = path.relative_to(Path.cwd())
    except ValueError:
        pass
    return shlex.quote(str(path))


def _trust(path: Path) -> str:
    """The command of Debian and its kin; printed, never run."""
    return (
        f"sudo cp {_relative(path)} /usr/local/share/ca-certificates/appliance.crt "
        "&& sudo update-ca-certificates"
    )
