"""What the fields of appliance.toml accept, whichever table they stand in.

Each validator raises ValueError; what is said of it is the field's description.
Imports pydantic and the standard library.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)

from appliance import __version__
from appliance.links import PAIR

IFNAMSIZ: Final = 16
"""Octets of an interface name with its final zero; Linux's if.h."""
SHA256: Final = 32
"""Octets of a digest."""
LEVELS: Final = ("debug", "info", "warning", "error")


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
        and not re.search(r"[/:\s%\0]", name)  # %: a pattern, of which the kernel makes a name
        and name not in (".", "..")
    ):
        return value
    raise ValueError("not a link")


def _no_pair(value: str) -> str:
    if value == PAIR:
        raise ValueError("a pair is alone")
    return value


def _interface(value: str) -> str:
    if "/" not in value or "%" in value:
        raise ValueError("no prefix length, or a zone")
    interface = ipaddress.ip_interface(value)
    network = interface.network
    if is_edge(interface.ip, network):
        raise ValueError("names the network itself")
    _unicast(interface.ip)
    return interface.with_prefixlen


def is_edge(address: Any, network: Any) -> bool:
    """Whether an address of a network names no host of it (RFC 1122 §3.2.1.3, RFC 3021: /31)."""
    whole = network.version == 6 or network.prefixlen >= 31
    return not whole and address in (network[0], network[-1])


def _host(value: str) -> str:
    address = ipaddress.ip_address(value)
    _unicast(address)
    return str(address)


def _unicast(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise ValueError("not a unicast address")
    if address.version == 4 and address.is_reserved:
        raise ValueError("not a unicast address")
    # A zone is the business of the link that it is set for; RFC 4291 §2.5.5.2: no host has these.
    if address.version == 6 and (address.scope_id or address.ipv4_mapped):
        raise ValueError("not an address of a host")


def _bind(value: str) -> str:
    return str(ipaddress.ip_address(value))


def _url(value: str) -> str:
    parts = urlsplit(value)
    plain = not (parts.query or parts.fragment or parts.path.strip("/"))
    if parts.scheme in ("http", "https") and _is_place(parts) and plain:
        return value.rstrip("/")
    raise ValueError("not a base URL")


def _is_place(parts: SplitResult) -> bool:
    """Whether a URL names a host, with a port if any, and no user; ValueError if not."""
    return bool(_server_name(parts.hostname or "")) and parts.port != 0 and "@" not in parts.netloc


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


def _certified(value: str) -> str:
    """A host name, or all names below one (RFC 9525 §6.3: the whole of the left-most label)."""
    return "*." * value.startswith("*.") + host_name(value.removeprefix("*."))


def _characters(value: str) -> str:
    # RFC 1035 §3.3: a length of one octet.
    if len(value.replace("%v", __version__).encode()) > 255:
        raise ValueError("no character string")
    return value


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
    if parts.scheme != "https" or not value.isprintable() or " " in value:
        raise ValueError("not an https URL")
    if not _is_place(parts):
        raise ValueError("no such host")
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
    float, Field(strict=True, gt=0, le=3600, description="a number of seconds above 0, up to 3600")
]
Network = Annotated[Text, AfterValidator(_network)]
HostName = Annotated[Text, AfterValidator(host_name)]
CertifiedName = Annotated[Text, AfterValidator(_certified)]
CharacterString = Annotated[Text, AfterValidator(_characters)]
ServerAddress = Annotated[Text, AfterValidator(_bind)]
DomainName = Annotated[Text, AfterValidator(_domain)]
Uri = Annotated[Text, AfterValidator(_uri)]
ServerName = Annotated[Text, AfterValidator(_server_name)]
Pin = Annotated[Text, AfterValidator(_pin)]
BaseUrl = Annotated[Text, AfterValidator(_url)]
HttpsUrl = Annotated[Text, AfterValidator(_https)]
Level = Annotated[Text, AfterValidator(_level)]
Link = Annotated[Text, AfterValidator(_link)]
OtherLink = Annotated[Link, AfterValidator(_no_pair)]
Interface = Annotated[Text, AfterValidator(_interface)]
Host = Annotated[Text, AfterValidator(_host)]

AN_INTERFACE: Final = 'an IPv4 or IPv6 host address with its prefix length, like "10.0.0.2/24"'


class Table(BaseModel):
    """What all tables have in common: they are frozen, and no key is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
