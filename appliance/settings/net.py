"""[net], [[net.more]], [gateway] and [tcp]: the cables, and who we are on them.

Imports pydantic and `fields`.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from appliance.links import PAIR, opposite
from appliance.settings.fields import (
    AN_INTERFACE,
    AnyPath,
    Host,
    Interface,
    Link,
    OtherLink,
    Port,
    Seconds,
    ServerAddress,
    Table,
    is_edge,
)


class Cable(Table):
    """One link: the cable, and who we are on it."""

    link: Link = Field(
        default=PAIR,
        description='"pair", "tap:NAME" or "packet:IFACE" with a name of 1 to 15 characters',
    )
    address: tuple[Interface, ...] = Field(
        default=(), max_length=16, description=f"a list, each {AN_INTERFACE}"
    )
    gateway: tuple[Host, ...] = Field(
        default=(), max_length=4, description='a list of IP addresses, like ["10.0.0.1"]'
    )
    dhcp: bool = Field(default=True, strict=True, description="true or false")
    ipv6: Literal["auto", "static", "off"] = Field(
        default="auto", description='"auto", "static" or "off"'
    )
    probe: bool | None = Field(default=None, strict=True, description="true or false")
    host_address: Interface | None = Field(default=None, description=AN_INTERFACE)

    @property
    def first(self) -> str:
        """The first address of the settings, without its prefix length; "" when it is found."""
        return self.address[0].partition("/")[0] if self.address else ""

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.link == PAIR and not any("." in cidr for cidr in self.address):
            raise ValueError("address|[]|a list with an IPv4 address, since the link is a pair")
        if self.link == PAIR and opposite(self.address, self.gateway) is None:
            first = next(cidr for cidr in self.address if "." in cidr)
            raise ValueError(f"address|{first}|on a network with room for the pair's gateway")
        if self.ipv6 == "off":
            for name in ("address", "gateway"):
                for text in getattr(self, name):
                    if ":" in text:
                        raise ValueError(f"{name}|{text}|an IPv4 address, since ipv6 is off")
        if self.host_address is not None and not self.link.startswith("tap:"):
            raise ValueError(f"host_address|{self.host_address}|absent unless the link is a tap")
        return self

    @model_validator(mode="after")
    def _ours_and_theirs(self) -> Self:
        own = [cidr.partition("/")[0] for cidr in self.address]
        for at, cidr in enumerate(self.address):
            if own[at] in own[:at]:
                raise ValueError(f"address|{cidr}|a list of different addresses")
        networks = [ipaddress.ip_interface(cidr).network for cidr in self.address]
        for gateway in self.gateway:
            router = ipaddress.ip_address(gateway)
            if router.version == 6 and router.is_link_local:
                continue
            if not any(router in network for network in networks):
                names = ", ".join(map(str, networks)) or "there is none"
                raise ValueError(f"gateway|{gateway}|an address of a network of ours: {names}")
            if any(is_edge(router, network) for network in networks):
                raise ValueError(f"gateway|{gateway}|a host's, not the network's or everybody's")
            if gateway in own:
                raise ValueError(f"gateway|{gateway}|an address that is not our own")
        if self.host_address is not None and self.host_address.partition("/")[0] in own:
            raise ValueError(f"host_address|{self.host_address}|an address that is not our own")
        return self


class MoreLink(Cable):
    """[[net.more]]: a further link of the same host."""

    link: OtherLink = Field(
        description='"tap:NAME" or "packet:IFACE" with a name of 1 to 15 characters'
    )


class Net(Cable):
    """[net]: the cable, and who we are on it."""

    wait: Seconds = 15
    pcap: AnyPath | None = Field(default=None, description="a path, as text")
    trace: AnyPath | None = Field(default=None, description="a path, as text")
    # A tap has 256 queues (MAX_TAP_QUEUES, linux/if_tun.h), more than anybody has processors for.
    workers: int = Field(
        default=1, strict=True, ge=1, le=256, description="an integer from 1 to 256"
    )
    more: tuple[MoreLink, ...] = Field(
        default=(), max_length=15, description="tables, each begun by [[net.more]]"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_pair(cls, data: Any) -> Any:
        """Between us and our own gateway any addresses do; on a cable they are found."""
        if isinstance(data, dict) and "address" not in data and data.get("link", PAIR) == PAIR:
            data = {"address": ["10.0.0.2/24"], "gateway": ["10.0.0.1"]} | data
        return data

    @model_validator(mode="after")
    def _of_workers(self) -> Self:
        """Several processes share interfaces that have a queue for each."""
        if self.workers > 1 and self.link == PAIR:
            raise ValueError(
                f"workers|{self.workers}|1, since the link is a pair, which has one end"
            )
        return self

    @model_validator(mode="after")
    def _apart(self) -> Self:
        """Links have names, addresses and networks of their own."""
        if self.more and self.link == PAIR:
            raise ValueError(f"link|{PAIR}|a tap or a card, since there are more links")
        links: set[str] = set()
        networks: dict[Any, str] = {}
        cables: tuple[Cable, ...] = (self, *self.more)
        for cable in cables:
            name = cable.link.partition(":")[2]
            if name in links:
                raise ValueError(f"more|{cable.link}|links of different names")
            links.add(name)
            for cidr in cable.address:
                network = ipaddress.ip_interface(cidr).network
                for other, its in networks.items():
                    if its != cable.link and network.overlaps(other):
                        where = f"{other} is that of {its}"
                        raise ValueError(f"more|{cidr}|on a network of its own: {where}")
                networks[network] = cable.link
        return self


class Gateway(Table):
    """[gateway]: where the host finds a stack that runs on a pair."""

    bind: ServerAddress = Field(
        default="127.0.0.1", description='an IP address of this host, like "127.0.0.1"'
    )
    http: Port = 8080
    dns: Port = 5353
    https: Port = 8443
    dot: Port = 8853
    metrics: Port = 9090


class Tcp(Table):
    """[tcp]: how our connections behave."""

    congestion: Literal["cubic", "newreno"] = Field(
        default="cubic", description='"cubic" or "newreno"'
    )
    ecn: bool = Field(default=True, strict=True, description="true or false")
    user_timeout: float = Field(
        default=0,
        strict=True,
        ge=0,
        le=3600,
        description="a number of seconds from 0 (none) to 3600",
    )
    fast_open: int = Field(
        default=0, strict=True, ge=0, le=65_536, description="a number from 0 (never) to 65536"
    )
