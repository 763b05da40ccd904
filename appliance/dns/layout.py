"""One layout for every master file: `appliance zone fmt`.

Columns for owner, TTL, class, type and data; what a line says is not changed, nor are comments,
blank lines, directives and the order of anything. Records on several lines keep their lines, of
which only the first is laid out. Columns are those of the file, but a very long name is let stick
out; TTLs and comments are aligned within a block, which is what stands between blank lines. Laying
out twice is the same as once. Imports nothing of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_WORD: Final = re.compile(r'(?:[^\s;()"\\]|\\.|"(?:[^"\\\n]|\\.)*")+')
_BODY: Final = re.compile(r'(?:[^;"\\]|\\.|"(?:[^"\\\n]|\\.)*")*')
_TTL: Final = re.compile(r"(?:[0-9]{1,10}[wdhms]?)+", re.IGNORECASE | re.ASCII)
_CLASS: Final = re.compile(r"IN|CLASS1", re.IGNORECASE)
OWNER: Final = 8
"""Columns of an owner at least."""
WIDEST: Final = 16
"""Columns of an owner at most: a longer one pushes what follows to the right."""
COMMENT: Final = 40
"""Columns of data at most behind which comments are aligned."""


@dataclass
class _Line:
    """One line of the file: a record's beginning, or something that is left as it is."""

    text: str
    record: bool = False
    owner: str = ""
    ttl: str = ""
    rclass: str = ""
    rtype: str = ""
    data: str = ""
    comment: str = ""


def _parse(text: str) -> _Line:
    body = _BODY.match(text)
    assert body is not None
    inside, comment = body[0], text[body.end() :]
    indented = text[:1] in (" ", "\t")
    words = list(_WORD.finditer(inside))
    plain = _Line(text.rstrip())
    if not words or (words[0][0].startswith("$") and not indented):
        return plain
    at = 0
    owner = ""
    if not indented:
        owner = words[0][0]
        if words[0].start() != 0:
            return plain  # a parenthesis first: not laid out
        at = 1
    ttl = rclass = ""
    while at < len(words):
        word = words[at][0]
        if not ttl and _TTL.fullmatch(word):
            ttl = word
        elif not rclass and _CLASS.fullmatch(word):
            rclass = word.upper()
        else:
            break
        at += 1
    if at >= len(words):
        return plain
    rtype = words[at]
    if "(" in _WORD.sub("", inside[: rtype.end()]):
        return plain
    data = inside[rtype.end() :].strip()
    kind = rtype[0].upper()
    return _Line(text, True, owner, ttl, rclass, kind, data, comment.rstrip())


def layout(text: str) -> str:
    """The text, laid out; statements stay on their lines."""
    lines: list[_Line] = []
    depth = 0
    for raw in text.splitlines():
        line = _Line(raw.rstrip()) if depth else _parse(raw)
        body = _BODY.match(raw)
        assert body is not None
        bare = _WORD.sub("", body[0])
        depth = max(depth + bare.count("(") - bare.count(")"), 0)
        lines.append(line)
    widths = _widths([line for line in lines if line.record])
    out: list[str] = []
    block: list[_Line] = []
    for line in lines:
        if not line.record and not line.text.strip():
            out += _block(block, widths)
            block = []
            if out and out[-1]:
                out.append("")
        else:
            block.append(line)
    out += _block(block, widths)
    while out and not out[-1]:
        out.pop()
    return "".join(line + "\n" for line in out)


def _widths(records: list[_Line]) -> tuple[int, int, int]:
    """Columns of owner, class and type."""
    owners = [len(one.owner) + 1 for one in records]
    return (
        max([OWNER, *(width for width in owners if width <= WIDEST)]),
        3 if any(one.rclass for one in records) else 0,
        max([5, *(len(one.rtype) + 1 for one in records if len(one.rtype) < 5)]),
    )


def _block(block: list[_Line], widths: tuple[int, int, int]) -> list[str]:
    owner, rclass, rtype = widths
    ttl = max([0, *(len(one.ttl) + 1 for one in block if one.record and one.ttl)])
    short = [len(one.data) for one in block if one.record and len(one.data) <= COMMENT]
    data = max([0, *short])
    out: list[str] = []
    for line in block:
        if not line.record:
            out.append(line.text)
            continue
        text = f"{line.owner + ' ':<{owner}}"
        if ttl:
            text += f"{line.ttl:<{ttl}}"
        if rclass:
            text += f"{line.rclass:<{rclass}}"
        text += f"{line.rtype + ' ':<{rtype}}{line.data}"
        if line.comment:
            text = f"{text + ' ' * max(data - len(line.data), 0)} {line.comment}"
        out.append(text.rstrip())
    return out
