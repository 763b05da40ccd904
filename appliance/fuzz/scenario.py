"""A scenario: two machines, the link between them, and what their applications do.

It is a value: frozen, comparable, and written as TOML, so that a person can write one and the
fuzzer can write down what it found. `load` and `dump` do the reading and writing, `run.run` runs
it. Imports `link`, `application`, `net.tcp` and pydantic.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tomli_w
from annotated_types import Ge, Gt, Interval, Le
from pydantic import BaseModel, PlainValidator, TypeAdapter, ValidationError, create_model

from appliance.fuzz.application import End
from appliance.fuzz.link import Link
from appliance.net.tcb import TcpSettings


class ScenarioError(ValueError):
    """A scenario that cannot be used; one line for each reason, with file and key."""


def _settings_model() -> type[BaseModel]:
    """A model of TcpSettings, which may be compiled and then is no class that pydantic can fill."""
    fields: dict[str, Any] = {
        item.name: (type(item.default), item.default) for item in dataclasses.fields(TcpSettings)
    }
    return create_model("TcpSettings", **fields)


_SETTINGS = _settings_model()


def _settings(value: Any) -> TcpSettings:
    if isinstance(value, TcpSettings):
        return value
    return TcpSettings(**_SETTINGS.model_validate(value).model_dump())


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One of the two hosts."""

    tcp: Annotated[TcpSettings, PlainValidator(_settings)] = field(default_factory=TcpSettings)
    mtu: Annotated[int, Interval(ge=68, le=65_535)] = 1500
    offload: bool = False
    """Its interface takes super-segments."""
    clock: Annotated[float, Interval(ge=-1e4, le=1e6)] = 0.0
    """Seconds that its clock is ahead."""
    backlog: Annotated[int, Ge(1)] = 1024
    """Handshakes under way that a listener keeps; of more, SYN cookies take care (RFC 4987)."""
    memory: Annotated[int, Ge(1)] = 256 << 20
    """Octets that all connections may make it keep; beyond, it gives connections up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Middle:
    """Two routers between the client's network and the server's, and the link between them."""

    mtu: Annotated[int, Interval(ge=68, le=65_535)] = 1500
    """Octets of the longest packet that the routers pass on."""
    signal: bool = True
    """They tell of longer ones (RFC 1191, RFC 8201); False: a black hole."""
    link: Link = field(default_factory=Link)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """Connections that behave alike."""

    client: End = field(default_factory=End)
    server: End = field(default_factory=lambda: End(when="eof"))
    opens: Literal["client", "both"] = "client"
    """Both: a simultaneous open."""
    rounds: Annotated[int, Ge(0)] = 0
    """Turns in which the client asks and the server answers; 0: both send when they can."""
    count: Annotated[int, Interval(ge=1, le=100_000)] = 1
    every: Annotated[float, Ge(0.0)] = 0.0
    """Seconds from one to the next."""
    at: Annotated[float, Ge(0.0)] = 0.0
    """Seconds until the first is opened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expect:
    """What is to hold besides the rules that always do."""

    within: Annotated[float, Gt(0.0)] = float("inf")
    """Seconds until all connections have ended."""
    errors: Literal["none", "excused"] = "excused"
    """No connection may fail; or only where the scenario gives it a reason to."""
    retransmissions: Annotated[int, Ge(0)] = 1 << 62
    """Segments sent again at the most, by both ends together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """All that decides what happens."""

    seed: Annotated[int, Ge(0)] = 0
    ip: Literal[4, 6] = 4
    """The version of the internet protocol."""
    seconds: Annotated[float, Gt(0.0), Le(1e7)] = 14_400.0
    """Virtual seconds after which what has not ended never will."""
    client: Machine = field(default_factory=Machine)
    server: Machine = field(default_factory=Machine)
    link: Link = field(default_factory=Link)
    back: Link | None = None
    """The way from the server to the client; like `link` unless given."""
    middle: Middle | None = None
    """What stands between the two networks; None: they are one, and the cable is `link`."""
    flow: tuple[Flow, ...] = (Flow(),)
    expect: Expect = field(default_factory=Expect)


_ADAPTER: TypeAdapter[Scenario] = TypeAdapter(Scenario)


def load(path: str | Path) -> Scenario:
    """Read a scenario from a TOML file; raises ScenarioError and OSError."""
    data = Path(path).read_bytes()
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    return from_table(table, str(path))


def from_table(table: dict[str, Any], source: str = "scenario") -> Scenario:
    """Make a scenario of what a TOML file says; raises ScenarioError."""
    problems = [f"{source}: {problem}" for problem in _unknown(table, Scenario, "")]
    try:
        scenario = _ADAPTER.validate_python(table)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            key = ".".join(str(part) for part in item["loc"])
            problems.append(f"{source}: {key}: {item['msg']} (it is {item['input']!r})")
        raise ScenarioError("\n".join(problems)) from error
    for number, flow in enumerate(scenario.flow):
        if flow.client.when == flow.server.when == "eof":
            problems.append(f"{source}: flow.{number}: each end waits for the other's end")
    if scenario.ip == 6:
        # RFC 8200 §5: every link of IPv6 carries 1280 octets.
        sizes = {"client": scenario.client.mtu, "server": scenario.server.mtu}
        if scenario.middle is not None:
            sizes["middle"] = scenario.middle.mtu
        problems += [
            f"{source}: {key}.mtu: IPv6 has no links below 1280 (it is {mtu})"
            for key, mtu in sizes.items()
            if mtu < 1280
        ]
    if problems:
        raise ScenarioError("\n".join(problems))
    return scenario


def to_table(value: Any) -> dict[str, Any]:
    """Say what differs from the defaults."""
    table: dict[str, Any] = {}
    for item in dataclasses.fields(value):
        entry = getattr(value, item.name)
        if entry == default_of(item):
            continue
        table[item.name] = _plain(entry)
    return table


def dump(scenario: Scenario) -> str:
    """Write a scenario as TOML; `load` gives it back."""
    return tomli_w.dumps(to_table(scenario))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_table(value)
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value


def default_of(item: dataclasses.Field[Any]) -> Any:
    """What a field is when nothing is said."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def _unknown(table: Any, kind: Any, place: str) -> list[str]:
    """Name the keys that mean nothing, and what they may have meant."""
    if isinstance(table, list):
        return [p for n, e in enumerate(table) for p in _unknown(e, kind, f"{place}{n}.")]
    if not isinstance(table, dict):
        return []
    if kind is TcpSettings:
        hints: dict[str, Any] = {item.name: None for item in dataclasses.fields(kind)}
    else:
        hints = get_type_hints(kind)
    problems: list[str] = []
    for key, value in table.items():
        if key not in hints:
            close = difflib.get_close_matches(key, hints, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(hints)}"
            problems.append(f"{place}{key}: no such key{hint}")
        elif (inner := _dataclass_in(hints[key])) is not None:
            problems += _unknown(value, inner, f"{place}{key}.")
    return problems


def _dataclass_in(hint: Any) -> Any:
    """The dataclass that a type is, or holds."""
    if dataclasses.is_dataclass(hint):
        return hint
    for part in get_args(hint):
        if (inner := _dataclass_in(part)) is not None:
            return inner
    return None
