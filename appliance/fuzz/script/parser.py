"""From the text of a script to its events, by the grammar beside this file.

lark reads the grammar and parses; `reader` turns its trees into plain values, and this module its
errors into lines that a person can use: file, line, column, what was found and what would have
fitted. It imports lark, the reader and the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from lark import Lark
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, VisitError

from appliance.fuzz.script import events as e
from appliance.fuzz.script.reader import ScriptError, read

__all__ = ["DEFINITIONS", "DEFINITIONS6", "ScriptError", "parse", "parse_file"]

MAX_SCRIPT: Final = 4 << 20  # octets of one script; the longest known has 20 KB

# What packetdrill's own runner defines, for IPv4 and for IPv6 (which has no CODE there).
DEFINITIONS: Final[Mapping[str, str]] = {
    "CMSG_LEVEL_IP": "SOL_IP",
    "CMSG_TYPE_RECVERR": "IP_RECVERR",
    "CODE": "host_unreachable",
    "TFO_COOKIE": "3021b9d889017eeb",
}
DEFINITIONS6: Final[Mapping[str, str]] = {
    "CMSG_LEVEL_IP": "SOL_IPV6",
    "CMSG_TYPE_RECVERR": "IPV6_RECVERR",
    "CODE": "address_unreachable",
    "TFO_COOKIE": "c1d1e9742a47a9bc",
}

# What people call the words of the grammar.
_PEOPLE: Final = {
    "$END": "the end of the file",
    "BACKQUOTED": "a `command`",
    "CODE": "%{ code }%",
    "ELLIPSIS": "...",
    "FLOAT": "a number with a point",
    "HEX": "a hexadecimal number",
    "INTEGER": "a whole number",
    "OPTION": "--option",
    "STRING": 'a "string"',
    "WORD": "a word",
}


@cache
def _lark() -> Lark:
    grammar = resources.files("appliance.fuzz.script").joinpath("grammar.lark").read_text("utf-8")
    return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def parse_file(path: str | Path, definitions: Mapping[str, str] = DEFINITIONS) -> e.Script:
    """Read the script at `path`; raises OSError, and ScriptError when it is not one."""
    path = Path(path)
    octets = path.read_bytes()
    if len(octets) > MAX_SCRIPT:
        raise ScriptError(str(path), 1, 1, f"longer than {MAX_SCRIPT} octets")
    try:
        text = octets.decode()
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ScriptError(str(path), line, 1, "not UTF-8 text") from None
    return parse(text, str(path), definitions)


def parse(
    text: str, path: str = "<script>", definitions: Mapping[str, str] = DEFINITIONS
) -> e.Script:
    """Turn the text of a script into its events; raises ScriptError.

    `definitions` are the words that stand for others, as packetdrill's -D gives them.
    """
    if not text.endswith("\n"):
        text += "\n"
    try:
        tree = _lark().parse(text)
        script = read(tree, text, path, definitions)
    except UnexpectedInput as error:
        raise _explained(error, text, path) from None
    except VisitError as error:
        if isinstance(error.orig_exc, ScriptError):
            raise error.orig_exc from None
        raise
    _check_times(script)
    return script


def _explained(error: UnexpectedInput, text: str, path: str) -> ScriptError:
    line, column = error.line, error.column
    if isinstance(error, UnexpectedCharacters):
        found = repr(text[error.pos_in_stream])  # type: ignore[index]
        wanted = error.allowed or set()
    else:
        token = getattr(error, "token", None)
        ended = isinstance(error, UnexpectedEOF) or token is None or token.type == "$END"
        found = "the end of the file" if ended else repr(str(token))
        wanted = getattr(error, "expected", None) or set()
        if ended:
            line, column = text.count("\n"), 1
    names = sorted(_person_name(name) for name in wanted if name not in ("COMMENT", "__IGNORE_0"))
    hint = f"; {', '.join(names[:-1])} or {names[-1]} would fit" if len(names) > 1 else ""
    if len(names) == 1:
        hint = f"; {names[0]} would fit"
    elif len(names) > 8:
        hint = ""
    return ScriptError(path, max(line, 1), max(column, 1), f"{found} does not belong here{hint}")


def _person_name(name: str) -> str:
    if name in _PEOPLE:
        return _PEOPLE[name]
    for terminal in _lark().terminals:
        if terminal.name == name:
            return repr(terminal.pattern.value)
    return name


def _check_times(script: e.Script) -> None:
    """Time starts at 0 and does not run backwards, as packetdrill has it."""
    last: e.Event | None = None
    for event in script.events:
        when = event.when
        if last is None and when.at != 0:
            where = event.place
            raise ScriptError(script.path, where.line, where.column, "the first event is at time 0")
        absolute = when.kind == e.ABSOLUTE and last is not None and last.when.kind == e.ABSOLUTE
        if absolute and last is not None and when.at < last.when.at:
            message = f"time runs backwards, from {last.when.at} to {when.at} microseconds"
            raise ScriptError(script.path, event.place.line, event.place.column, message)
        last = event
