"""Which stream goes next: the extensible priorities of RFC 9218.

Eight urgencies, the lower the sooner.  Among equals, responses that are of no use in part go one
after the other in the order of their streams; incremental ones take turns.  Pure; imports the
standard library only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# RFC 9218 §4.1: what is assumed of a request that says nothing.
DEFAULT_URGENCY = 3
_MEMBER = re.compile(rb"[ \t]*(u|i)(?:=([0-7]|\?[01]))?[ \t]*")


class Priority(NamedTuple):
    """How soon a response is wanted."""

    urgency: int = DEFAULT_URGENCY  # 0 to 7, 0 first
    incremental: bool = False  # useful in part


def parse_priority(value: bytes) -> Priority:
    """Read a Priority field value; what is malformed or unknown is ignored (RFC 9218 §4)."""
    urgency, incremental = DEFAULT_URGENCY, False
    for member in value.split(b","):
        match = _MEMBER.fullmatch(member)
        if match is None:
            continue
        name, said = match.groups()
        if name == b"u" and said is not None and said.isdigit():
            urgency = int(said)
        elif name == b"i" and said in {None, b"?1", b"?0"}:
            incremental = said != b"?0"
    return Priority(urgency, incremental)


def rank(priority: Priority, stream: int, turn: int) -> tuple[int, bool, int]:
    """Return a sort key; `turn` counts when the stream was served last."""
    return (priority.urgency, priority.incremental, turn if priority.incremental else stream)
