"""[dns] and the tables in it: zones, what is said besides, and other servers.

Imports pydantic and `fields`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from appliance.settings.fields import (
    AnyPath,
    CharacterString,
    DomainName,
    Network,
    Pin,
    Port,
    Seconds,
    ServerAddress,
    ServerName,
    Table,
    Text,
)


class DnsKey(Table):
    """[[dns.key]]: a secret shared with another server, for TSIG (RFC 8945)."""

    name: DomainName = Field(description='a domain name, like "transfer.example.org"')
    algorithm: Literal["hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"] = (
        Field(default="hmac-sha256", description='an algorithm, like "hmac-sha256"')
    )
    file: AnyPath = Field(description="a path, as text: the secret in base64, or tsig-keygen's")


class DnsSecondary(Table):
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


class DnsPrimary(Table):
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


class DnsUpdate(Table):
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


class DnsForward(Table):
    """[[dns.forward]]: whose updates go to the primaries of our secondary zones (RFC 2136 §6)."""

    networks: tuple[Network, ...] = Field(
        default=(), description='a list of networks, like ["192.0.2.0/24"]'
    )
    key: DomainName | None = Field(default=None, description="the name of a [[dns.key]]")
    zones: tuple[DomainName, ...] = Field(
        default=(), description='a list of zones, like ["example.net"]; without it all'
    )


def _tables(name: str) -> Any:
    return Field(
        default=(),
        max_length=1000,
        description=f"at most 1000 tables, each begun by [[dns.{name}]]",
    )


class Dns(Table):
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
        default=0,
        strict=True,
        ge=0,
        le=3600,
        description="a number of seconds up to 3600; 0 for never",
    )
    state: AnyPath = Field(default=Path("state/dns"), description="a path, as text")
    journal_mb: int = Field(
        default=32, strict=True, ge=1, le=1024, description="an integer from 1 to 1024 (MB)"
    )
    # RFC 5001: whatever tells an operator which server this is.
    nsid: Text = Field(default="", max_length=64, description="text of at most 64 characters")
    version: CharacterString = Field(
        default="", description="text of at most 255 octets; empty: not told"
    )
    identity: CharacterString = Field(
        default="", description="text of at most 255 octets; empty: not told"
    )
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
        default=1.0,
        strict=True,
        gt=0,
        le=1,
        description="a number above 0, up to 1: the part that is logged",
    )
    catalog: DomainName | None = Field(
        default=None, description="a domain name: the catalog zone that lists ours (RFC 9432)"
    )
    key: tuple[DnsKey, ...] = _tables("key")
    secondary: tuple[DnsSecondary, ...] = _tables("secondary")
    primary: tuple[DnsPrimary, ...] = _tables("primary")
    update: tuple[DnsUpdate, ...] = _tables("update")
    forward: tuple[DnsForward, ...] = _tables("forward")

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
