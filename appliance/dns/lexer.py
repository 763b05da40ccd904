r"""Cuts master files into statements (RFC 1035 §5.1) and multiplies $GENERATE templates.

A statement is one logical line: comments are off, lines inside parentheses are joined, quoted
strings keep their quotes and escapes are left as they are, for whoever parses the words knows what
`\.` means there. Each remembers the line it begins on. Says nothing about meaning. Imports nothing
of ours but `errors`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from appliance.dns.errors import LocalError

_SPECIAL: Final = re.compile(r'[;()"\\]')
_TOKEN: Final = re.compile(
    r"""[ \t\r\f\v]+ | (?P<comment>;.*) | (?P<paren>[()])
      | (?P<word> (?: [^\s;()"\\] | \\. | "(?:[^"\\\n]|\\.)*" )+ )""",
    re.VERBOSE,
)


@dataclass(slots=True)
class Statement:
    """One logical line."""

    line: int
    """Where it begins, from 1."""
    indented: bool
    """It begins with white space: the owner is the one before."""
    words: list[str]
    end: int = 0
    """The last line that it takes."""


def statements(lines: Iterable[str], fault: Callable[[int, str], None]) -> Iterator[Statement]:
    """Statements of a file's lines; `fault` is told line and complaint, and cutting goes on."""
    pending: Statement | None = None
    depth = opened = 0
    sound = True
    for number, line in enumerate(lines, 1):
        if pending is None:
            # Most lines of a large file hold nothing special.
            if _SPECIAL.search(line) is None:
                words = line.split()
                if words:
                    yield Statement(number, line[0] in " \t", words, number)
                continue
            pending = Statement(number, line[0] in " \t", [])
            sound = True
        at, end = 0, len(line.rstrip("\r\n"))
        while at < end:
            match = _TOKEN.match(line, at, end)
            if match is None:
                sound = False
                fault(number, "a quoted string or an escape has no end on this line")
                break
            at = match.end()
            if match.lastgroup == "word":
                pending.words.append(match[0])
            elif match.lastgroup == "paren":
                if match[0] == ")":
                    depth -= 1
                    if depth < 0:
                        depth, sound = 0, False
                        fault(number, "a parenthesis is closed that was not opened")
                else:
                    if not depth:
                        opened = number
                    depth += 1
        if not depth:
            if sound and pending.words:
                pending.end = number
                yield pending
            pending = None
    if depth:
        fault(opened, "this parenthesis is never closed; nothing behind it was read")


# $GENERATE: not in any RFC; as BIND's reference manual describes it.

_RANGE: Final = re.compile(r"([0-9]{1,10})-([0-9]{1,10})(?:/([0-9]{1,10}))?", re.ASCII)
_MODIFIER: Final = re.compile(r"\{([+-]?[0-9]{1,10})(?:,([0-9]{1,3})(?:,([doxXnN]))?)?\}", re.ASCII)
_WIDTH_MAX: Final = 255
"""Characters of one number at most: nothing longer fits a name."""


def generate_range(text: str) -> range:
    """The numbers of `start-stop` or `start-stop/step`, both ends included; else LocalError."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise LocalError(f"{text!r} is no range like 1-254 or 0-255/2")
    start, stop, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if start > stop or step < 1:
        raise LocalError(f"the range {text!r} is empty")
    return range(start, stop + 1, step)


def generate_text(template: str, number: int) -> str:
    r"""Put a number in for each `$` of a template; `$$` and `\$` stand for the sign itself.

    `${offset,width,base}` adds, pads and chooses d, o, x, X, or n and N for nibbles. LocalError
    when a modifier is none of that.
    """
    out: list[str] = []
    at = 0
    while at < len(template):
        char = template[at]
        at += 1
        if char == "\\":
            out.append("$" if template[at : at + 1] == "$" else char + template[at : at + 1])
            at += 1
        elif char != "$":
            out.append(char)
        elif template[at : at + 1] == "$":
            out.append("$")
            at += 1
        elif template[at : at + 1] != "{":
            out.append(str(number))
        else:
            match = _MODIFIER.match(template, at)
            if match is None or int(match[2] or 0) > _WIDTH_MAX:
                raise LocalError(f"bad modifier in {template!r}")
            at = match.end()
            out.append(_number(number + int(match[1]), int(match[2] or 0), match[3] or "d"))
    return "".join(out)


def _number(value: int, width: int, base: str) -> str:
    if value < 0:
        raise LocalError("an offset makes a number negative")
    if base in "dox":
        return format(value, base).zfill(width)
    if base == "X":
        return format(value, "X").zfill(width)
    # Nibbles, least significant first, with dots; the width counts the dots too.
    digits = format(value, "x" if base == "n" else "X")
    return ".".join(digits.zfill((width + 1) // 2)[::-1])
