"""The links of the settings: opened, joined to a stack, and waited for until they have addresses.

    settings -> interfaces -> links with what was given -> what is lent, advertised, probed for

What is asked of others (a lease, a prefix, whether anybody has an address of ours) takes seconds;
`settle` waits for that, so that what is said to be served is. Imports the stack's face, the
interfaces when they are wanted, and no settings library: a machine that boots has none.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from appliance.links import PAIR
from appliance.net.dhcp import CHECKING, REQUESTING
from appliance.net.link import Ipv6Settings
from appliance.net.slaac import TENTATIVE
from appliance.net.transport import Stack
from appliance.net.vif.base import Vif
from appliance.net.wire.address import to_text

if TYPE_CHECKING:
    from appliance.net.link import Link
    from appliance.settings import Cable, Net

SECOND_FAMILY: Final = 5.0
"""Seconds that the second family has to show itself: servers ping for one to three before they
offer an address (RFC 2131 §2.2), routers answer within one (RFC 4861 §6.2.6)."""
UNDERWAY: Final = 8.0
"""Seconds that it has once it did: a lease is probed for (RFC 5227) for up to seven."""
PROBING: Final = 8.0
"""Seconds that a probe for our own addresses has: at most seven (RFC 5227 §1.1)."""
MAX_RIVALS: Final = 16
"""Hosts that claim our addresses and are told of, once each: MACs are easily made up."""

Say = Callable[[str], None]


def open_cable(cable: Cable, pcap: Path | None, warn: Say) -> tuple[Vif, Vif | None]:
    """The interface of a link, and the other end of a pair; raises LinkError."""
    kind, _, name = cable.link.partition(":")
    other: Vif | None = None
    vif: Vif
    if cable.link == PAIR:
        from appliance.net.vif.pair import pair

        vif, other = pair()
    elif kind == "tap":
        from appliance.net.vif.tap import configure_host_side, open_tap

        vif = tap = open_tap(name)
        tap.on_lost = warn
        if cable.host_address is not None:
            configure_host_side(name, cable.host_address)
    else:
        from appliance.net.vif.packet import open_packet

        vif = open_packet(name)
    if pcap is not None:
        from appliance.net.vif.pcap import Recorder

        vif = Recorder(vif, pcap, clock=time.time_ns, warn=warn)
    return vif, other


def open_more(net: Net, warn: Say) -> list[Vif]:
    """The interfaces of the further links; each is recorded in a file of its own. LinkError."""
    vifs: list[Vif] = []
    try:
        for cable in net.more:
            name = cable.link.partition(":")[2]
            pcap = net.pcap and net.pcap.with_stem(f"{net.pcap.stem}.{name}")
            vifs.append(open_cable(cable, pcap, warn)[0])
    except BaseException:
        for vif in vifs:
            vif.close()
        raise
    return vifs


def configuration(cable: Cable) -> dict[str, Any]:
    """How a stack finds addresses on a link: not at all on a pair."""
    if cable.link == PAIR:
        return {}
    lent = cable.dhcp and not any("." in cidr for cidr in cable.address)
    found: dict[str, Any] = {"dhcp": lent}
    if cable.ipv6 != "off":
        found["ipv6"] = Ipv6Settings(stable_secret(), autonomous=cable.ipv6 == "auto")
    return found


def probes(cable: Cable) -> bool:
    """Whether the IPv4 addresses of a link are asked for before they are used (RFC 5227 §2.1).

    Not on a pair, nor where we give the host's side its address: nobody else is there.
    """
    if cable.link == PAIR or cable.probe is not None:
        return bool(cable.probe) and cable.link != PAIR
    return cable.host_address is None


class Cabling:
    """The links of a running stack, in the order of the settings; `say` is for the operator."""

    def __init__(self, net: Net, stack: Stack, say: Say) -> None:
        self._net = net
        self._stack = stack
        self._say = say
        self._links: list[tuple[Cable, Link]] = []
        self.contested: set[str] = set()
        """Addresses of the settings that somebody else has, without prefix lengths."""
        self._rivals: set[tuple[str, str]] = set()
        stack.host.network.on_conflict.append(self._conflict)

    def join(self) -> None:
        """Give each link what the settings say; ValueError for what cannot be."""
        stack, net = self._stack, self._net
        for cable, link in zip((net, *net.more), stack.host.links, strict=True):
            self._attach(cable, link)
        stack.host.wake()

    def _attach(self, cable: Cable, link: Link) -> None:
        self._links.append((cable, link))
        network = self._stack.host.network
        for cidr in cable.address:
            network.add_address(cidr, link, probes(cable))
        for gateway in cable.gateway:
            network.add_gateway(gateway, link)

    def _conflict(self, address: str, mac: str, kept: bool) -> None:
        if kept:
            # RFC 5227 §2.4 (c): the operator hears of it; defended it is at most every ten seconds.
            if (address, mac) not in self._rivals and len(self._rivals) < MAX_RIVALS:
                self._rivals.add((address, mac))
                self._say(f"{mac} uses {address} too, which is ours and stays so")
            return
        given = {cidr.partition("/")[0] for cable, _ in self._links for cidr in cable.address}
        if address not in given:
            return  # one that was lent or made: another is found
        self.contested.add(address)
        whose = f"is in use by {mac}" if mac else "is somebody else's"
        again = "" if ":" in address else ", and asked for again every minute"
        self._say(f"{address} {whose}: it is not used here{again}")

    # ------------------------------------------------------------------ waiting

    async def settle(self) -> None:
        """Wait for what is lent and advertised, and for probes, so that the banner can tell."""
        if self._net.link == PAIR:
            return
        self._tell_waiting()
        if any(_looks(cable) for cable, _ in self._links):
            await self._stack.configured(self._net.wait, lambda _: self._found())
            if self._found() and any(_both(cable) for cable, _ in self._links):
                # The other family is seldom far behind the first.
                await self._stack.configured(SECOND_FAMILY, lambda _: self._found_both())
                if self._underway():
                    await self._stack.configured(UNDERWAY, lambda _: self._found_both())
        if self._probed():
            await self._stack.configured(PROBING, lambda _: not self._missing())

    def _tell_waiting(self) -> None:
        looking = [cable.link for cable, _ in self._links if _looks(cable)]
        if looking:
            self._say(f"looking for an address on {', '.join(looking)} ...")
        if probed := self._probed():
            self._say(f"asking whether anybody else has {', '.join(sorted(probed))} ...")

    def _found(self) -> bool:
        return all(self._on(link) for cable, link in self._links if _looks(cable))

    def _found_both(self) -> bool:
        return all(
            len({":" in address for address in self._on(link)}) == 2
            for cable, link in self._links
            if _both(cable)
        )

    def _underway(self) -> bool:
        """Whether a server has offered something, or an address is checked for duplicates."""
        for _, link in self._links:
            if link.dhcp is not None and link.dhcp.state in (REQUESTING, CHECKING):
                return True
            if link.slaac is not None and any(
                own.state == TENTATIVE for own in link.slaac.addresses.values()
            ):
                return True
        return False

    def _on(self, link: Link) -> list[str]:
        """The addresses of a link that others reach us by."""
        own = self._stack.host.addresses.of(link)
        return worth_telling([to_text(local.address) for local in own])

    def _probed(self) -> set[str]:
        return {
            cidr.partition("/")[0]
            for cable, _ in self._links
            if probes(cable)
            for cidr in cable.address
            if ":" not in cidr
        }

    def _missing(self) -> set[str]:
        ours = {cidr.partition("/")[0] for cidr in self._stack.addresses()}
        return self._probed() - ours - self.contested


def _looks(cable: Cable) -> bool:
    """Whether a link has nothing but what it finds."""
    return not cable.address and (cable.dhcp or cable.ipv6 == "auto")


def _both(cable: Cable) -> bool:
    return _looks(cable) and cable.dhcp and cable.ipv6 == "auto"


def worth_telling(addresses: Sequence[str]) -> list[str]:
    """Addresses that others reach us by, without prefix lengths: link-local ones need a zone."""
    plain = [cidr.partition("/")[0] for cidr in addresses]
    return [text for text in plain if not ipaddress.ip_address(text).is_link_local]


def stable_secret(file: Path = Path("/etc/machine-id")) -> bytes:
    """Sixteen octets that are this machine's and no other's, for addresses that stay (RFC 7217 §5).

    The machine's identity is not told: it is hashed (machine-id(5)). Random if there is none.
    """
    try:
        identity = file.read_bytes().strip()
    except OSError:
        identity = b""
    if not identity:
        return os.urandom(16)
    return blake2b(b"appliance RFC 7217", key=identity[:64], digest_size=16).digest()
