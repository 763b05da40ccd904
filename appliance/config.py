"""appliance.toml, and what the command line puts over it, read and validated.

`settings` says what may stand in it. Here the file is read, the options of the command line are
put over it, and all problems are reported together, each with file, line, key and value.

Nothing is opened but the file itself: whether a directory exists or an interface can be made is
found out by those who use them. Imports settings, pydantic and the standard library.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError

from appliance.links import PAIR
from appliance.settings import LISTS, TABLES, Settings

__all__ = ["FILE", "OPTIONS", "PAIR", "ConfigError", "Problem", "Settings", "load"]

FILE: Final = "appliance.toml"
"""Where settings are looked for when no file is named."""

OPTIONS: Final[Mapping[str, str]] = {
    "site.directory": "--site",
    "site.watch": "--watch",
    "dns.zones": "--zones",
    "net.link": "--link",
    "net.address": "--address",
    "net.gateway": "--gateway",
    "net.host_address": "--host-address",
    "net.probe": "--no-probe",
    "net.pcap": "--pcap",
    "net.trace": "--trace",
    "net.workers": "--workers",
    "gateway.bind": "--bind",
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
    if "net.link" in overrides and "net.more" not in overrides and isinstance(net, dict):
        net.pop("more", None)  # the command line says which links there are
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
        if isinstance(document[table], dict) and (table,) not in faulty
    }
    usable = Settings.model_validate(content, context=context)
    raise ConfigError(sorted(dict.fromkeys(problems), key=lambda p: p.line), usable)


def _explain(
    location: tuple[int | str, ...],
    error: Any,
    overrides: Mapping[str, object],
    path: Path,
    text: str,
) -> Problem:
    """One of pydantic's errors as file, line, key, value and what is allowed."""
    if location[0] in LISTS:
        return _explain_item(location, error, path, text, LISTS[str(location[0])])
    inner = _item_model(location)
    if inner is not None:
        table = f"{location[0]}.{location[1]}"
        told = _explain_item((table, *location[2:]), error, path, text, inner)
        return _of_the_command_line(told, table) if table in overrides else told
    keys = [str(part) for part in location if isinstance(part, str)][:2]
    value = error["input"]
    if error["type"] == "value_error" and len(keys) == 1:  # of a table as a whole
        name, said, allowed = str(error["ctx"]["error"]).split("|")
        value = int(said) if said.isdecimal() else said
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
    if key == "net.more" and key in overrides:  # which stands for all words of further links
        option = "--address" if "/" in str(value) else "--link"
    if option:
        return Problem("command line", 0, "error", f"{option} {_shown(value)}: {message}")
    line = _line_of_value(text, key, value) or _line_of(text, *keys)
    return Problem(str(path), line, "error", f"{key} = {_shown(value)}: {message}")


def _of_the_command_line(problem: Problem, table: str) -> Problem:
    """The same of a further --link: `net.more.address = ...` came as --address."""
    told = re.sub(rf"^{re.escape(table)}\.(\w+)(?: =)?", r"--\1", problem.message)
    option, _, rest = told.partition(" ")
    return Problem("command line", 0, "error", f"{option.replace('_', '-')} {rest}")


def _item_model(location: tuple[int | str, ...]) -> Any:
    """What each of several tables within a table is, like [[dns.key]]; None for anything else."""
    if len(location) < 3 or not isinstance(location[2], int):
        return None
    field = TABLES[str(location[0])].model_fields.get(str(location[1]))
    items = get_args(field.annotation) if field is not None else ()
    return items[0] if items and hasattr(items[0], "model_fields") else None


def _explain_item(
    location: tuple[int | str, ...], error: Any, path: Path, text: str, model: Any
) -> Problem:
    """The same for a table of which there may be several, like [[host]]."""
    table, *rest = location
    assert isinstance(table, str)
    number = rest[0] if rest and isinstance(rest[0], int) else 0
    line = _line_of_item(text, table, number)
    keys = [part for part in rest if isinstance(part, str)]
    fields = model.model_fields
    if not keys and error["type"] == "value_error":  # of one of them as a whole
        name, value, allowed = str(error["ctx"]["error"]).split("|")
        line = _line_of_item(text, table, number, name) or line
        message = f"{table}.{name} = {_shown(value)}: must be {allowed}"
        return Problem(str(path), line, "error", message)
    if not keys:
        shape = f"tables, each begun by [[{table}]]"
        allowed = f"one of at most 100 {shape}" if error["type"] == "too_long" else shape
        line = line or _line_of(text, *table.split("."))
        return Problem(str(path), line, "error", f"{table}: must be {allowed}")
    if error["type"] == "missing":
        return Problem(str(path), line, "error", f"{table}.{keys[0]}: is missing")
    line = _line_of_item(text, table, number, keys[0]) or line
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(keys[0], fields, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        message = f"no such key; {hint}known are {', '.join(fields)}"
    else:
        message = f"must be {fields[keys[0]].description or 'an integer from 1 to 65535'}"
    return Problem(
        str(path), line, "error", f"{table}.{keys[0]} = {_shown(error['input'])}: {message}"
    )


def _line_of_item(text: str, table: str, number: int, key: str = "") -> int:
    """The line of the nth [[table]], or of a key in it; 0 if there is none."""
    seen = -1
    for count, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[+\s*([^\[\]]+?)\s*\]", line):
            seen += found[1] == table
            if not key and seen == number and found[1] == table:
                return count
            inside = found[1] == table
        elif (
            key and seen == number and inside and re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line)
        ):
            return count
    return 0


def _unknown(keys: list[str]) -> str:
    if len(keys) == 1:
        kind, known = "table", [*TABLES, *LISTS]
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


def _line_of_value(text: str, table: str, value: object) -> int:
    """The last line with a value of some [[table]]; 0 if there is none or it is a plain key."""
    if f"[[{table}]]" not in text or not isinstance(value, str):
        return 0
    lines = text.splitlines()
    return max((at for at, line in enumerate(lines, 1) if f'"{value}"' in line), default=0)


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
