"""A stub resolver over our own UDP and TCP (RFC 1034 §5.3.1): names in, records out.

It asks recursive servers, one after the other, each twice; a truncated answer is asked for again
over TCP. Who is asked stands in the settings; or else routers advertise it (RFC 8106) or a DHCP
server names it (RFC 2132 §3.8) by the time that something is asked; or else the system has it.
There is no cache: what asks is a certificate order or a transfer now and then. Questions
carry random identifiers from random ports, and an answer has to come from where the question went
(RFC 5452 §9).

Imports the stack's face, dnspython and asyncio.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from appliance.net.transport import Stack

PATIENCE: Final = 2.0
"""Seconds for one answer; RFC 1035 §4.2.1 suggests 2 to 5."""
TRIES: Final = 2
"""Times that each server is asked."""
DNS_PORT: Final = 53
MAX_ANSWER: Final = 65535
"""Octets of an answer over TCP: RFC 1035 §4.2.2."""
MAX_ASKED: Final = 3
"""Servers that are asked of all that are offered; resolv.conf(5): MAXNS."""
RESOLV_CONF: Final = Path("/etc/resolv.conf")


class ResolverError(OSError):
    """A name that could not be looked up; the text says what was asked, whom, and what came."""


class NoSuchNameError(ResolverError):
    """NXDOMAIN: the name does not exist."""


class Resolver:
    """Looks names up; `servers` are addresses of recursive resolvers, in order of preference.

    Without any, those are asked that the network of the stack offers, or else the system's.
    """

    def __init__(
        self,
        stack: Stack,
        servers: Sequence[str] = (),
        *,
        port: int = DNS_PORT,
        system: Path = RESOLV_CONF,
    ) -> None:
        self._stack = stack
        self._servers = list(servers)
        self._port = port
        self._system = system

    def servers(self) -> list[str]:
        """Who would be asked now, in this order."""
        offered = self._stack.host.network.resolvers
        return self._servers or (offered() or system_resolvers(self._system))[:MAX_ASKED]

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host in the families that we have ourselves, the better first.

        A literal address is its own. Raises ResolverError.
        """
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        asked = [self.query(host, kind) for kind in _kinds(self._stack.addresses())]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        records = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not records:
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        found = [str(rdata) for answer in records for rdata in answer]
        if not found:
            raise ResolverError(f"{host} has no address")
        return found

    async def query(self, name: str, kind: str) -> list[Any]:
        """The records of a name and type as dnspython's rdatas, at the end of any aliases.

        An empty list says that there are none; NoSuchNameError that the name does not exist.
        Raises ResolverError when nobody answered.
        """
        reply = await self._ask(name, kind)
        if reply.rcode() == dns.rcode.NXDOMAIN:
            raise NoSuchNameError(f"{name} does not exist")
        try:
            answer = reply.resolve_chaining().answer
        except (dns.exception.DNSException, ValueError) as exc:
            raise ResolverError(f"{name} {kind}: aliases in a circle") from exc
        return list(answer) if answer is not None else []

    async def _ask(self, name: str, kind: str) -> Any:
        servers = self.servers()
        if not servers:
            raise ResolverError(f"{name} {kind}: there is no resolver to ask")
        trouble = ""
        for server in servers * TRIES:
            query = dns.message.make_query(
                name, kind, id=secrets.randbits(16), use_edns=0, payload=1232
            )
            try:
                reply = await self._datagram(query, server)
                if reply.flags & dns.flags.TC:
                    reply = await self._stream(query, server)
            except (OSError, dns.exception.DNSException, asyncio.IncompleteReadError) as exc:
                trouble = f"{server}: {str(exc) or type(exc).__name__}"
                continue
            if reply.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return reply
            trouble = f"{server} says {dns.rcode.to_text(reply.rcode())}"
        raise ResolverError(f"{name} {kind}: {trouble}")

    async def _datagram(self, query: dns.message.Message, server: str) -> Any:
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        transport, _ = await self._stack.create_datagram_endpoint(
            lambda: _Asking(query, waiter), remote_addr=(server, self._port)
        )
        try:
            transport.sendto(query.to_wire())
            async with asyncio.timeout(PATIENCE):
                return await waiter
        finally:
            transport.close()

    async def _stream(self, query: dns.message.Message, server: str) -> Any:
        async with asyncio.timeout(PATIENCE * 2):
            reader, writer = await self._stack.open_connection(server, self._port)
            try:
                wire = query.to_wire()
                writer.write(len(wire).to_bytes(2, "big") + wire)
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = dns.message.from_wire(await reader.readexactly(length))
            finally:
                writer.close()
        if not query.is_response(reply):
            raise ResolverError("the answer is to another question")
        return reply


class _Asking(asyncio.DatagramProtocol):
    """Waits for the answer to one question; whatever else arrives is not for us."""

    def __init__(self, query: dns.message.Message, waiter: asyncio.Future[Any]) -> None:
        self._query = query
        self._waiter = waiter

    def datagram_received(self, data: bytes, addr: Any) -> None:
        try:
            reply = dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
        except (dns.exception.DNSException, ValueError):
            return
        if self._query.is_response(reply) and not self._waiter.done():
            self._waiter.set_result(reply)

    def error_received(self, exc: Exception) -> None:
        if not self._waiter.done():
            self._waiter.set_exception(exc)


def _kinds(ours: Sequence[str]) -> list[str]:
    """Which types of address are of use from our addresses (RFC 6724 §2.1, §6: precedence).

    An IPv6 address that reaches everywhere comes before IPv4, a unique local one (RFC 4193) after.
    """
    own = [ipaddress.ip_interface(text).ip for text in ours]
    six = [ip for ip in own if ip.version == 6 and not ip.is_link_local]
    kinds = ["A"] if any(ip.version == 4 for ip in own) or not six else []
    if six:
        kinds.insert(0 if any(not _is_unique_local(ip) for ip in six) else len(kinds), "AAAA")
    return kinds


def _is_unique_local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.packed[0] & 0xFE == 0xFC


def system_resolvers(path: Path = RESOLV_CONF) -> list[str]:
    """The resolvers of the system that others can reach too: not those on its loopback.

    Nor those with a zone, such as fe80::1%eth0: its links are not ours.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    found: list[str] = []
    for words in (line.split() for line in lines):
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1])
            except ValueError:
                continue
            if not (address.is_loopback or address.is_link_local or "%" in words[1]):
                found.append(str(address))
    return found
