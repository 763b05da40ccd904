"""appliance.toml, and what the command line puts over it, as frozen and validated settings.

pydantic decides what is valid; each field's description says what is allowed, in the words that end
up in the error. All problems of a file are reported together, each with file, line, key and value.

Nothing is opened here but the file itself: whether a directory exists or an interface can be made
is found out by those who use them. Imports pydantic and the standard library.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

FILE: Final = "appliance.toml"
"""Where settings are looked for when no file is named."""
PAIR: Final = "pair"
IFNAMSIZ: Final = 16
"""Octets of an interface name with its final zero; Linux's if.h."""
LEVELS: Final = ("debug", "info", "warning", "error")

OPTIONS: Final[Mapping[str, str]] = {
    "site.directory": "--site",
    "dns.zones": "--zones",
    "net.link": "--link",
    "net.address": "--address",
    "net.gateway": "--gateway",
    "net.host_address": "--host-address",
    "net.pcap": "--pcap",
    "gateway.http": "--http-port",
    "gateway.dns": "--dns-port",
}
"""The option that overrides a key; an error in an overridden key names it instead of the file."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `line` counts from 1, 0 where there is none."""

    file: str
    line: int
    severity: str  # "error" or "warning"
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}"


class ConfigError(Exception):
    """Settings that cannot be used; `problems` has all of them.

    `usable` has [site] and [dns] without their faulty keys, and defaults for the rest; None if
    the file could not be read at all.
    """

    def __init__(self, problems: list[Problem], usable: Settings | None = None) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.usable = usable


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


def _interface(value: str) -> str:
    if "/" not in value:
        raise ValueError("no prefix length")
    interface = ipaddress.IPv4Interface(value)
    network = interface.network
    # RFC 1122 §3.2.1.3: the network's and the broadcast address name no host (RFC 3021: /31 does).
    if network.prefixlen < 31 and interface.ip in (network[0], network[-1]):
        raise ValueError("names the network itself")
    _unicast(interface.ip)
    return interface.with_prefixlen


def _host(value: str) -> str:
    address = ipaddress.IPv4Address(value)
    _unicast(address)
    return str(address)


def _unicast(address: ipaddress.IPv4Address) -> None:
    if address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback:
        raise ValueError("not a unicast address")


def _bind(value: str) -> str:
    return str(ipaddress.ip_address(value))


def _url(value: str) -> str:
    parts = urlsplit(value)
    plain = not (parts.query or parts.fragment or parts.path.strip("/"))
    if parts.scheme in ("http", "https") and parts.hostname and plain:
        return value.rstrip("/")
    raise ValueError("not a base URL")


def _level(value: str) -> str:
    if value not in LEVELS:
        raise ValueError("no such level")
    return value


AnyPath = Annotated[Path, BeforeValidator(_path)]
Text = Annotated[str, Field(strict=True)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535, description="an integer from 1 to 65535")]
Interface = Annotated[Text, AfterValidator(_interface)]
Host = Annotated[Text, AfterValidator(_host)]

AN_INTERFACE: Final = 'an IPv4 host address with its prefix length, like "10.0.0.2/24"'


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


class Dns(_Table):
    """[dns]: the zones, and the stack's port."""

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


class Http(_Table):
    """[http]: the stack's port."""

    port: Port = 80


class Net(_Table):
    """[net]: the cable, and who we are on it."""

    link: Annotated[Text, AfterValidator(_link)] = Field(
        default=PAIR,
        description='"pair", "tap:NAME" or "packet:IFACE" with a name of 1 to 15 characters',
    )
    address: tuple[Interface, ...] = Field(
        default=("10.0.0.2/24",),
        min_length=1,
        max_length=16,
        description=f"a list, each {AN_INTERFACE}",
    )
    gateway: tuple[Host, ...] = Field(
        default=("10.0.0.1",),
        max_length=4,
        description='a list of IPv4 addresses, like ["10.0.0.1"]',
    )
    host_address: Interface | None = Field(default=None, description=AN_INTERFACE)
    pcap: AnyPath | None = Field(default=None, description="a path, as text")

    @model_validator(mode="after")
    def _together(self) -> Net:
        networks = [ipaddress.IPv4Interface(cidr).network for cidr in self.address]
        for gateway in self.gateway:
            if not any(ipaddress.IPv4Address(gateway) in network for network in networks):
                names = ", ".join(map(str, networks))
                raise ValueError(f"gateway|{gateway}|an address of a network of ours: {names}")
            if any(gateway == cidr.partition("/")[0] for cidr in self.address):
                raise ValueError(f"gateway|{gateway}|an address that is not our own")
        if self.host_address is not None and not self.link.startswith("tap:"):
            raise ValueError(f"host_address|{self.host_address}|absent unless the link is a tap")
        return self


class Gateway(_Table):
    """[gateway]: where the host finds a stack that runs on a pair."""

    bind: Annotated[Text, AfterValidator(_bind)] = Field(
        default="127.0.0.1", description='an IP address of this host, like "127.0.0.1"'
    )
    http: Port = 8080
    dns: Port = 5353


class Log(_Table):
    """[log]: how much is said."""

    level: Annotated[Text, AfterValidator(_level)] = Field(
        default="info", description="one of " + ", ".join(f'"{level}"' for level in LEVELS)
    )


class Settings(_Table):
    """All tables of appliance.toml; each key has a default."""

    site: Site = Site()
    dns: Dns = Dns()
    http: Http = Http()
    net: Net = Net()
    gateway: Gateway = Gateway()
    log: Log = Log()


TABLES: Final[Mapping[str, type[_Table]]] = {
    "site": Site,
    "dns": Dns,
    "http": Http,
    "net": Net,
    "gateway": Gateway,
    "log": Log,
}


def load(path: Path, overrides: Mapping[str, object] | None = None) -> Settings:
    """Read settings from `path`, with `overrides` such as {"net.link": "tap:t0"} put over them.

    Relative paths are relative to the file. Raises ConfigError with every problem found.
    """
    overrides = overrides or {}
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as exc:
        raise _failure(path, 0, f"cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise _failure(path, exc.object.count(b"\n", 0, exc.start) + 1, "is not UTF-8") from exc
    except tomllib.TOMLDecodeError as exc:
        message = str(exc)
        found = re.search(r" \(at line (\d+), column \d+\)", message)
        line = int(found[1]) if found else text.count("\n") + 1
        message = message[: found.start()] if found else message
        raise _failure(path, line, f"is not TOML: {message}") from exc
    return _validated(document, overrides, path, text)


def _failure(path: Path, line: int, message: str) -> ConfigError:
    return ConfigError([Problem(str(path), line, "error", message)])


def _validated(
    document: dict[str, Any], overrides: Mapping[str, object], path: Path, text: str
) -> Settings:
    for key, value in overrides.items():
        table, _, name = key.partition(".")
        target = document.setdefault(table, {})
        if isinstance(target, dict):  # otherwise the file's own error is the one to tell
            target[name] = value
    net = document.get("net")
    if "net.address" in overrides and "net.gateway" not in overrides and isinstance(net, dict):
        # Another network: the file's gateways belong to the one that was replaced.
        net["gateway"] = []
    for table in TABLES:
        document.setdefault(table, {})  # so that the defaults, too, are relative to the file
    context = {"base": path.parent}
    try:
        return Settings.model_validate(document, context=context)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
    # A list with a wrong item is told once, by the item, and not again as a list too short.
    inner = {error["loc"][:2] for error in errors if len(error["loc"]) > 2}
    problems = [
        _explain(error["loc"], error, overrides, path, text)
        for error in errors
        if error["loc"] not in inner
    ]
    # What is needed to look at the pages and zones all the same.
    faulty = {error["loc"][:2] for error in errors}
    content = {
        table: {key: value for key, value in document[table].items() if (table, key) not in faulty}
        for table in ("site", "dns")
        if isinstance(document[table], dict)
    }
    usable = Settings.model_validate(content, context=context)
    raise ConfigError(sorted(problems, key=lambda p: p.line), usable)


def _explain(
    location: tuple[int | str, ...],
    error: Any,
    overrides: Mapping[str, object],
    path: Path,
    text: str,
) -> Problem:
    """One of pydantic's errors as file, line, key, value and what is allowed."""
    keys = [str(part) for part in location if isinstance(part, str)][:2]
    value = error["input"]
    if error["type"] == "value_error" and len(keys) == 1:  # of a table as a whole
        name, value, allowed = str(error["ctx"]["error"]).split("|")
        keys.append(name)
        message = f"must be {allowed}"
    elif error["type"] == "extra_forbidden":
        message = _unknown(keys)
    elif len(keys) == 1:
        message = f"must be a table, [{keys[0]}]"
    else:
        field = TABLES[keys[0]].model_fields[keys[1]]
        message = f"must be {field.description or 'an integer from 1 to 65535'}"
    key = ".".join(keys)
    option = OPTIONS.get(key) if key in overrides else None
    if option:
        return Problem("command line", 0, "error", f"{option} {_shown(value)}: {message}")
    line = _line_of(text, *keys)
    return Problem(str(path), line, "error", f"{key} = {_shown(value)}: {message}")


def _unknown(keys: list[str]) -> str:
    if len(keys) == 1:
        kind, known = "table", list(TABLES)
    else:
        kind, known = "key", list(TABLES[keys[0]].model_fields)
    close = difflib.get_close_matches(keys[-1], known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"no such {kind}; {hint}known are {', '.join(known)}"


def _shown(value: Any) -> str:
    """The value as TOML would have it, cut to a line."""
    if isinstance(value, bool):
        shown = "true" if value else "false"
    elif isinstance(value, str | Path):
        shown = '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    elif isinstance(value, dict):
        shown = "{…}"
    elif isinstance(value, list | tuple):
        shown = "[" + ", ".join(map(_shown, value)) + "]"
    else:
        shown = str(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _line_of(text: str, table: str, key: str | None = None) -> int:
    """The line of a key, or of its table when the key is spelt in an unusual way; 0 if none."""
    of_table = 0
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            current = found[1]
            if current == table:
                of_table = number
        elif found := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            name = found[1].strip("\"'")
            full = f"{current}.{name}" if current else name
            if full == (f"{table}.{key}" if key else table):
                return number
    return of_table
