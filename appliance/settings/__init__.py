"""What may stand in appliance.toml: its tables and keys as frozen pydantic models.

pydantic decides what is valid; each field's description says what is allowed, in the words that end
up in the error (config.py writes it). A table belongs to the part of the appliance that it sets up.
Imports pydantic and this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationInfo, field_validator

from appliance.settings.dns import (
    Dns,
    DnsForward,
    DnsKey,
    DnsPrimary,
    DnsSecondary,
    DnsUpdate,
)
from appliance.settings.fields import (
    LEVELS,
    AnyPath,
    Level,
    Table,
    host_name,
)
from appliance.settings.net import (
    Cable,
    Gateway,
    MoreLink,
    Net,
    Tcp,
)
from appliance.settings.tls import (
    Acme,
    CertificateFiles,
    Tls,
)
from appliance.settings.web import (
    Http,
    Metrics,
    Security,
    Site,
    VirtualHost,
)

__all__ = [
    "LISTS",
    "TABLES",
    "Acme",
    "Cable",
    "CertificateFiles",
    "Control",
    "Dns",
    "DnsForward",
    "DnsKey",
    "DnsPrimary",
    "DnsSecondary",
    "DnsUpdate",
    "Gateway",
    "Http",
    "Log",
    "Metrics",
    "MoreLink",
    "Net",
    "Security",
    "Settings",
    "Site",
    "Tcp",
    "Tls",
    "VirtualHost",
    "host_name",
]


class Control(Table):
    """[control]: where `appliance ping`, `arp`, `route` and `capture` speak to a running one."""

    enabled: bool = Field(default=True, strict=True, description="true or false")
    socket: AnyPath = Field(default=Path("state/control"), description="a path, as text")


class Log(Table):
    """[log]: how much is said."""

    level: Level = Field(
        default="info", description="one of " + ", ".join(f'"{level}"' for level in LEVELS)
    )


class Settings(Table):
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

    @field_validator("net")
    @classmethod
    def _of_who_writes(cls, net: Net, info: ValidationInfo) -> Net:
        """Each worker would have an age of its own for the open page, which asks any of them."""
        site = info.data.get("site")
        if net.workers > 1 and site is not None and site.watch:
            raise ValueError(f"workers|{net.workers}|1 with site.watch, which is for who writes")
        return net

    @field_validator("http", "metrics", "tls")
    @classmethod
    def _of_ports(cls, table: Any, info: ValidationInfo) -> Any:
        """Each service of the stack has a port of its own."""
        taken = {
            getattr(info.data[name], key): f"{name}.{key}"
            for name, key in (("dns", "port"), ("http", "port"), ("metrics", "port"))
            if name in info.data
        }
        for key in ("port", "dot_port"):
            if port := getattr(table, key, 0):
                if port in taken:
                    raise ValueError(f"{key}|{port}|another port than {taken[port]}")
                taken[port] = f"{info.field_name}.{key}"
        return table

    @field_validator("acme")
    @classmethod
    def _of_a_certificate(cls, acme: Acme, info: ValidationInfo) -> Acme:
        """A certificate is for a listener."""
        tls = info.data.get("tls")
        if acme.directory is None or tls is None:
            return acme
        if not (tls.port or tls.dot_port):
            raise ValueError(f"directory|{acme.directory}|absent, since there is no port of [tls]")
        return acme


TABLES: Final[Mapping[str, type[Table]]] = {
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
LISTS: Final[Mapping[str, type[Table]]] = {
    "host": VirtualHost,
    "certificate": CertificateFiles,
}
"""Tables that may stand several times, as [[host]]."""
