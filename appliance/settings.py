"""What may stand in appliance.toml: its tables and keys as frozen pydantic models.

pydantic decides what is valid; each field's description says what is allowed, in the words that end
up in the error (config.py writes it). A table belongs to the part of the appliance that it sets up.
Imports pydantic and the standard library.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from appliance.links import PAIR

IFNAMSIZ: Final = 16
"""Octets of an interface name with its final zero; Linux's if.h."""
SHA256: Final = 32
"""Octets of a digest."""
LEVELS: Final = ("debug", "info", "warning", "error")

# What the fields accept.


def _path(value: Any, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("not a path")
    base: Path = info.context["base"] if info.context else Path()
    return base / value


def _link(value: str) -> str:
    kind, _, name = value.partition(":")
    if value == PAIR:
        return value
    # Linux's dev_valid_name(): no slash, colon or white space, and neither of the two dots.
    if (
        kind in ("tap", "packet")
        and 0 < len(name.encode()) < IFNAMSIZ
        and not re.search(r"[/:\s]", name)
        and name not in (".", "..")
    ):
        return value
    raise ValueError("not a link")


def _no_pair(value: str) -> str:
    if value == PAIR:
        raise ValueError("a pair is alone")
    return value


def _interface(value: str) -> str:
    if "/" not in value:
        raise ValueError("no prefix length")
    interface = ipaddress.ip_interface(value)
    network = interface.network
    # RFC 1122 §3.2.1.3: the network's and the broadcast address name no host (RFC 3021: /31 does).
    whole = network.version == 6 or network.prefixlen >= 31
    if not whole and interface.ip in (network[0], network[-1]):
        raise ValueError("names the network itself")
    _unicast(interface.ip)
    return interface.with_prefixlen


def _host(value: str) -> str:
    address = ipaddress.ip_address(value)
    _unicast(address)
    return str(address)


def _unicast(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise ValueError("not a unicast address")
    if address.version == 4 and address.is_reserved:
        raise ValueError("not a unicast address")


def _bind(value: str) -> str:
    return str(ipaddress.ip_address(value))


def _url(value: str) -> str:
    parts = urlsplit(value)
    plain = not (parts.query or parts.fragment or parts.path.strip("/"))
    if parts.scheme in ("http", "https") and parts.hostname and plain:
        return value.rstrip("/")
    raise ValueError("not a base URL")


def host_name(value: str) -> str:
    """The name in lower case and as A-labels, without a final dot; ValueError when it is none."""
    try:
        name = value.encode("idna").decode().lower().removesuffix(".")
    except UnicodeError:
        raise ValueError("not a host name") from None
    # RFC 1123 §2.1: letters, digits and hyphens, at most 63 octets a label and 253 in all.
    label = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
    if len(name) > 253 or not re.fullmatch(rf"{label}(?:\.{label})*", name):
        raise ValueError("not a host name")
    return name


def _server_name(value: str) -> str:
    """A host name or an IP address, as certificates have them."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return host_name(value)


def _pin(value: str) -> str:
    if len(base64.b64decode(value, validate=True)) != SHA256:
        raise ValueError("not a SHA-256")
    return value


def _uri(value: str) -> str:
    parts = urlsplit(value)
    # RFC 9116 §2.5: web addresses have to be https.
    if parts.scheme in ("", "http") or not value.isprintable() or " " in value:
        raise ValueError("not a URI")
    return value


def _https(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or not value.isprintable() or " " in value:
        raise ValueError("not an https URL")
    return value


def _level(value: str) -> str:
    if value not in LEVELS:
        raise ValueError("no such level")
    return value


def _domain(value: str) -> str:
    """Lower case, without the final dot; what is no name is found out later, by the DNS room."""
    name = value.lower().rstrip(".")
    if not re.fullmatch(r"[a-z0-9_*/-]+(\.[a-z0-9_*/-]+)*", name) or len(name) > 253:
        raise ValueError("not a domain name")
    if any(len(label) > 63 for label in name.split(".")):
        raise ValueError("a label is too long")
    return name + "."


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


AnyPath = Annotated[Path, BeforeValidator(_path)]
Text = Annotated[str, Field(strict=True)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535, description="an integer from 1 to 65535")]
Seconds = Annotated[
    float, Field(gt=0, le=3600, description="a number of seconds above 0, up to 3600")
]
Network = Annotated[Text, AfterValidator(_network)]
HostName = Annotated[Text, AfterValidator(host_name)]
ServerAddress = Annotated[Text, AfterValidator(_bind)]
DomainName = Annotated[Text, AfterValidator(_domain)]
Uri = Annotated[Text, AfterValidator(_uri)]
ServerName = Annotated[Text, AfterValidator(_server_name)]
Pin = Annotated[Text, AfterValidator(_pin)]
Interface = Annotated[Text, AfterValidator(_interface)]
Host = Annotated[Text, AfterValidator(_host)]

AN_INTERFACE: Final = 'an IPv4 or IPv6 host address with its prefix length, like "10.0.0.2/24"'


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Site(_Table):
    """[site]: the pages."""

    directory: AnyPath = Field(default=Path("site"), description="a path, as text")
    title: Text = Field(default="appliance", min_length=1, description="text that is not empty")
    base_url: Annotated[Text, AfterValidator(_url)] = Field(
        default="http://localhost",
        description='http:// or https:// and a host name, without a path: "http://example.org"',
    )
    aliases: tuple[HostName, ...] = Field(
        default=(), description='a list of host names, like ["www.example.org"]'
    )
    cache: AnyPath = Field(default=Path(".cache"), description="a path, as text")
    watch: bool = Field(default=False, strict=True, description="true or false")


class DnsKey(_Table):
    """[[dns.key]]: a secret shared with another server, for TSIG (RFC 8945)."""

    name: DomainName = Field(description='a domain name, like "transfer.example.org"')
    algorithm: Literal["hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"] = (
        Field(default="hmac-sha256", description='an algorithm, like "hmac-sha256"')
    )
    file: AnyPath = Field(description="a path, as text: the secret in base64, or tsig-keygen's")


class DnsSecondary(_Table):
    """[[dns.secondary]]: who may have our zones, and whom to tell when they change."""

    address: ServerAddress | None = Field(
        default=None, description='an IP address, like "192.0.2.53"'
    )
    port: Port = 53
    key: DomainName | None = Field(default=None, description="the name of a [[dns.key]]")
    networks: tuple[Network, ...] = Field(
        default=(), description='a list of networks, like ["192.0.2.0/24"]'
    )
    zones: tuple[DomainName, ...] = Field(
        default=(), description='a list of zones, like ["example.org"]; without it all'
    )
    notify: bool = Field(default=True, strict=True, description="true or false")
    tls: bool = Field(default=False, strict=True, description="true or false")


class DnsPrimary(_Table):
    """[[dns.primary]]: whom we have zones from."""

    address: ServerAddress = Field(description='an IP address, like "192.0.2.53"')
    port: Port | None = Field(
        default=None, description="an integer from 1 to 65535; without it 53, or 853 with tls"
    )
    key: DomainName | None = Field(default=None, description="the name of a [[dns.key]]")
    zones: tuple[DomainName, ...] = Field(
        default=(), description='a list of zones, like ["example.net"]'
    )
    catalogs: tuple[DomainName, ...] = Field(
        default=(), description="a list of catalog zones (RFC 9432)"
    )
    tls: bool = Field(default=False, strict=True, description="true or false")
    tls_name: ServerName | None = Field(
        default=None, description='whom its certificate is for, like "ns1.example.net"'
    )
    tls_ca_file: AnyPath | None = Field(default=None, description="a path, as text")
    tls_pins: tuple[Pin, ...] = Field(
        default=(),
        max_length=16,
        description="a list of keys: SHA-256 of a SubjectPublicKeyInfo in base64, 44 characters",
    )

    @model_validator(mode="after")
    def _strictly(self) -> Self:
        for one in ("tls_name", "tls_ca_file", "tls_pins"):
            if getattr(self, one) and not self.tls:
                raise ValueError(f"{one}|{{…}}|beside tls = true")
        # RFC 9103 §7.5: TLS to anybody would hide nothing from whoever is in between.
        if self.tls and not (self.tls_name or self.tls_pins):
            raise ValueError("tls_name||a name beside tls = true, unless there are tls_pins")
        if self.tls_ca_file and not self.tls_name:
            raise ValueError("tls_ca_file|{…}|beside a tls_name")
        return self


class DnsUpdate(_Table):
    """[[dns.update]]: what a key may change by dynamic update (RFC 2136)."""

    key: DomainName = Field(description="the name of a [[dns.key]]")
    zones: tuple[DomainName, ...] = Field(
        default=(), description='a list of zones, like ["example.org"]; without it all'
    )
    names: tuple[Text, ...] = Field(
        default=("*",),
        min_length=1,
        description='a list of names: "www", "*.dyn" for all below, "@" for the apex, "*" for all',
    )
    types: tuple[Text, ...] = Field(
        default=(), description='a list of record types, like ["TXT"]; without it all'
    )


class DnsForward(_Table):
    """[[dns.forward]]: whose updates go to the primaries of our secondary zones (RFC 2136 §6)."""

    networks: tuple[Network, ...] = Field(
        default=(), description='a list of networks, like ["192.0.2.0/24"]'
    )
    key: DomainName | None = Field(default=None, description="the name of a [[dns.key]]")
    zones: tuple[DomainName, ...] = Field(
        default=(), description='a list of zones, like ["example.net"]; without it all'
    )


class Dns(_Table):
    """[dns]: the zones, the stack's port, what is said besides, and other servers."""

    zones: AnyPath = Field(default=Path("zones"), description="a path, as text")
    # RFC 6891 §6.2.5 sets the least; RFC 9715 §3.1 recommends 1,232 at most against fragments.
    udp_size: int = Field(
        default=1232,
        strict=True,
        ge=512,
        le=4096,
        description="an integer from 512 to 4096 (octets)",
    )
    port: Port = 53
    minimal: bool = Field(default=True, strict=True, description="true or false")
    watch: float = Field(
        default=0, ge=0, le=3600, description="a number of seconds up to 3600; 0 for never"
    )
    state: AnyPath = Field(default=Path("state/dns"), description="a path, as text")
    journal_mb: int = Field(
        default=32, strict=True, ge=1, le=1024, description="an integer from 1 to 1024 (MB)"
    )
    # RFC 5001: whatever tells an operator which server this is.
    nsid: Text = Field(default="", max_length=64, description="text of at most 64 characters")
    version: Text = Field(default="", max_length=255, description="text; empty: not told")
    identity: Text = Field(default="", max_length=255, description="text; empty: not told")
    cookies: bool = Field(default=True, strict=True, description="true or false")
    cookie_secret: AnyPath | None = Field(
        default=None, description="a path, as text: 32 hexadecimal digits a line, the first makes"
    )
    # NSD's default; a resolver asks for one name once in its TTL.
    rate_limit: int = Field(
        default=200,
        strict=True,
        ge=0,
        le=1_000_000,
        description="an integer: answers of one kind a second to one network; 0 for no limit",
    )
    rate_total: int = Field(
        default=2000,
        strict=True,
        ge=1,
        le=10_000_000,
        description="an integer: answers of all kinds a second to one network",
    )
    rate_slip: int = Field(
        default=2, strict=True, ge=0, le=100, description="an integer from 0 (never) to 100"
    )
    rate_exempt: tuple[Network, ...] = Field(
        default=(), description='a list of networks, like ["192.0.2.0/24"]'
    )
    connections: int = Field(
        default=2000, strict=True, ge=1, le=100_000, description="an integer from 1 to 100000"
    )
    connections_each: int = Field(
        default=100, strict=True, ge=1, le=100_000, description="an integer from 1 to 100000"
    )
    idle_seconds: Seconds = 10.0
    query_log: AnyPath | None = Field(default=None, description="a path, as text")
    query_log_format: Literal["text", "json"] = Field(
        default="text", description='"text" or "json"'
    )
    query_log_sample: float = Field(
        default=1.0, gt=0, le=1, description="a number above 0, up to 1: the part that is logged"
    )
    catalog: DomainName | None = Field(
        default=None, description="a domain name: the catalog zone that lists ours (RFC 9432)"
    )
    key: tuple[DnsKey, ...] = Field(default=(), max_length=1000)
    secondary: tuple[DnsSecondary, ...] = Field(default=(), max_length=1000)
    primary: tuple[DnsPrimary, ...] = Field(default=(), max_length=1000)
    update: tuple[DnsUpdate, ...] = Field(default=(), max_length=1000)
    forward: tuple[DnsForward, ...] = Field(default=(), max_length=1000)

    @model_validator(mode="after")
    def _known_keys(self) -> Dns:
        names = {one.name for one in self.key}
        if len(names) < len(self.key):
            every = [one.name for one in self.key]
            twice = next(name for name in every if every.count(name) > 1)
            raise ValueError(f"key|{twice}|the name of one key only")
        for what, some in (
            ("secondary", self.secondary),
            ("primary", self.primary),
            ("update", self.update),
            ("forward", self.forward),
        ):
            for one in some:
                if one.key is not None and one.key not in names:
                    raise ValueError(f"{what}|{one.key}|of a key that a [[dns.key]] names")
        for one in self.secondary:
            if one.key is None and not one.networks and one.address is None:
                raise ValueError("secondary|{…}|tables with a key, networks or an address")
        for entry in self.forward:
            if entry.key is None and not entry.networks:
                raise ValueError("forward|{…}|tables with a key or networks")
        return self


class Http(_Table):
    """[http]: the stack's port, what is logged of requests, and how much a peer may have."""

    port: Port = 80
    http2: bool = Field(default=True, strict=True, description="true or false")
    access_log: Literal["auto", "off", "human", "combined", "json"] = Field(
        default="auto", description='"auto", "off", "human", "combined" or "json"'
    )
    access_file: AnyPath | None = Field(default=None, description="a path, as text")
    truncate_addresses: bool = Field(default=False, strict=True, description="true or false")
    unknown_host: Literal["serve", "refuse"] = Field(
        default="serve", description='"serve" (the site of [site]) or "refuse" (421)'
    )
    connections: int = Field(
        default=10_000, strict=True, ge=1, le=1_000_000, description="an integer from 1 to 1000000"
    )
    connections_each: int = Field(
        default=4096, strict=True, ge=1, le=1_000_000, description="an integer from 1 to 1000000"
    )
    head_seconds: Seconds = 10.0
    idle_seconds: Seconds = 75.0
    min_rate: int = Field(
        default=500, strict=True, ge=0, le=10**9, description="octets a second, an integer"
    )


class Security(_Table):
    """[security]: what /.well-known/security.txt says; without a contact there is none."""

    contact: tuple[Uri, ...] = Field(
        default=(), description='a list of URIs, like ["mailto:security@example.org"]'
    )
    expires: date | None = Field(default=None, description="a date, like 2027-06-30")
    encryption: tuple[Uri, ...] = Field(default=(), description="a list of https: URIs")
    acknowledgments: tuple[Uri, ...] = Field(default=(), description="a list of https: URIs")
    policy: tuple[Uri, ...] = Field(default=(), description="a list of https: URIs")
    hiring: tuple[Uri, ...] = Field(default=(), description="a list of https: URIs")
    languages: tuple[Text, ...] = Field(
        default=(), description='a list of language tags, like ["en", "de"]'
    )


class VirtualHost(_Table):
    """[[host]]: another site, served under names of its own."""

    name: HostName = Field(description='a host name, like "blog.example.org"')
    directory: AnyPath = Field(description="a path, as text")
    title: Text | None = Field(default=None, min_length=1, description="text that is not empty")
    base_url: Annotated[Text, AfterValidator(_url)] | None = Field(
        default=None,
        description='http:// or https:// and a host name, without a path: "http://example.org"',
    )
    aliases: tuple[HostName, ...] = Field(
        default=(), description='a list of host names, like ["www.example.org"]'
    )


class Metrics(_Table):
    """[metrics]: a listener of its own for Prometheus, health and the dashboard."""

    port: int = Field(
        default=0, strict=True, ge=0, le=65535, description="a port of the stack; 0 for none"
    )
    allow: tuple[Network, ...] = Field(
        default=(), description='a list of networks, like ["10.0.0.0/8"]'
    )


class Control(_Table):
    """[control]: where `appliance ping`, `arp`, `route` and `capture` speak to a running one."""

    enabled: bool = Field(default=True, strict=True, description="true or false")
    socket: AnyPath = Field(default=Path("state/control"), description="a path, as text")


class CertificateFiles(_Table):
    """[[certificate]]: a chain and its key in PEM files, read again when they change."""

    chain: AnyPath = Field(description="a path, as text")
    key: AnyPath | None = Field(default=None, description="a path, as text; without it the chain's")


class Tls(_Table):
    """[tls]: HTTPS and DNS over TLS, and where their certificates come from."""

    port: int = Field(
        default=443, strict=True, ge=0, le=65535, description="a port of the stack; 0 for none"
    )
    dot_port: int = Field(
        default=853, strict=True, ge=0, le=65535, description="a port of the stack; 0 for none"
    )
    doh: Text = Field(
        default="/dns-query",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description='a path, like "/dns-query"; "" for none',
    )
    names: tuple[HostName, ...] = Field(
        default=(), description='a list of host names, like ["example.org", "www.example.org"]'
    )
    state: AnyPath = Field(default=Path("state"), description="a path, as text")
    redirect: bool = Field(default=False, strict=True, description="true or false")
    hsts: int = Field(
        default=0, strict=True, ge=0, le=10**9, description="a number of seconds; 0 for none"
    )
    keylog: AnyPath | None = Field(default=None, description="a path, as text")


class Acme(_Table):
    """[acme]: certificates from a certificate authority, by RFC 8555."""

    directory: Annotated[Text, AfterValidator(_https)] | None = Field(
        default=None, description="an https: URL: the authority's directory"
    )
    staging: Annotated[Text, AfterValidator(_https)] | None = Field(
        default=None, description="an https: URL: where each name is tried first"
    )
    names: tuple[Text, ...] = Field(
        default=(),
        max_length=100,
        description='a list of host names, like ["example.org", "*.example.org"]',
    )
    contact: tuple[Text, ...] = Field(
        default=(), description='a list of URIs, like ["mailto:admin@example.org"]'
    )
    agree: bool = Field(default=False, strict=True, description="true or false")
    challenge: Literal["dns-01", "http-01", "tls-alpn-01"] = Field(
        default="dns-01", description='"dns-01", "http-01" or "tls-alpn-01"'
    )
    ca_file: AnyPath | None = Field(default=None, description="a path, as text")
    eab_kid: Text = Field(default="", description="text")
    eab_key: AnyPath | None = Field(default=None, description="a path, as text")
    resolvers: tuple[Host, ...] = Field(
        default=(), max_length=8, description='a list of IP addresses, like ["192.0.2.53"]'
    )
    tlsa: bool = Field(default=False, strict=True, description="true or false")


class Cable(_Table):
    """One link: the cable, and who we are on it."""

    link: Annotated[Text, AfterValidator(_link)] = Field(
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
        if self.ipv6 == "off":
            for cidr in self.address:
                if ":" in cidr:
                    raise ValueError(f"address|{cidr}|an IPv4 address, since ipv6 is off")
        networks = [ipaddress.ip_interface(cidr).network for cidr in self.address]
        for gateway in self.gateway:
            router = ipaddress.ip_address(gateway)
            if router.version == 6 and router.is_link_local:
                continue
            if not any(router in network for network in networks):
                names = ", ".join(map(str, networks)) or "there is none"
                raise ValueError(f"gateway|{gateway}|an address of a network of ours: {names}")
            if any(gateway == cidr.partition("/")[0] for cidr in self.address):
                raise ValueError(f"gateway|{gateway}|an address that is not our own")
        if self.host_address is not None and not self.link.startswith("tap:"):
            raise ValueError(f"host_address|{self.host_address}|absent unless the link is a tap")
        return self


class MoreLink(Cable):
    """[[net.more]]: a further link of the same host."""

    link: Annotated[Text, AfterValidator(_link), AfterValidator(_no_pair)] = Field(
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


class Gateway(_Table):
    """[gateway]: where the host finds a stack that runs on a pair."""

    bind: Annotated[Text, AfterValidator(_bind)] = Field(
        default="127.0.0.1", description='an IP address of this host, like "127.0.0.1"'
    )
    http: Port = 8080
    dns: Port = 5353
    https: Port = 8443
    dot: Port = 8853
    metrics: Port = 9090


class Log(_Table):
    """[log]: how much is said."""

    level: Annotated[Text, AfterValidator(_level)] = Field(
        default="info", description="one of " + ", ".join(f'"{level}"' for level in LEVELS)
    )


class Tcp(_Table):
    """[tcp]: how our connections behave."""

    congestion: Literal["cubic", "newreno"] = Field(
        default="cubic", description='"cubic" or "newreno"'
    )
    ecn: bool = Field(default=True, strict=True, description="true or false")
    user_timeout: float = Field(
        default=0, ge=0, le=3600, description="a number of seconds from 0 (none) to 3600"
    )


class Settings(_Table):
    """All tables of appliance.toml; each key has a default."""

    site: Site = Site()
    dns: Dns = Dns()
    http: Http = Http()
    net: Net = Net()
    tcp: Tcp = Tcp()
    gateway: Gateway = Gateway()
    log: Log = Log()
    security: Security = Security()
    metrics: Metrics = Metrics()
    control: Control = Control()
    tls: Tls = Tls()
    acme: Acme = Acme()
    certificate: tuple[CertificateFiles, ...] = Field(default=(), max_length=100)
    host: tuple[VirtualHost, ...] = Field(default=(), max_length=100)


TABLES: Final[Mapping[str, type[_Table]]] = {
    "site": Site,
    "dns": Dns,
    "http": Http,
    "net": Net,
    "tcp": Tcp,
    "gateway": Gateway,
    "log": Log,
    "security": Security,
    "metrics": Metrics,
    "control": Control,
    "tls": Tls,
    "acme": Acme,
}
LISTS: Final[Mapping[str, type[_Table]]] = {
    "host": VirtualHost,
    "certificate": CertificateFiles,
}
"""Tables that may stand several times, as [[host]]."""
