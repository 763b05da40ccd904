"""What can come out of a script besides success.

`InapplicableError`: the script asks for something of Linux that has no meaning here; it says
nothing about the stack.  `MismatchError`: the stack did something else than the script expects.
Imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class InapplicableError(Exception):
    """The script cannot be judged here; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a comparison: what it is, what was expected, what came, whether they agree."""

    what: str
    expected: str
    got: str
    same: bool


@dataclass
class MismatchError(Exception):
    """Expected and got, side by side; `summary` in one line."""

    summary: str
    rows: list[Row] = field(default_factory=list)

    def __str__(self) -> str:
        return self.summary

    def table(self) -> str:
        """The comparison in columns; differing rows are marked."""
        if not self.rows:
            return ""
        head = Row("", "expected", "got", True)
        rows = [head, *self.rows]
        first = max(len(row.what) for row in rows)
        second = max(len(row.expected) for row in rows)
        lines = (
            f"  {' ' if row.same else '*'} {row.what:<{first}}  {row.expected:<{second}}  {row.got}"
            for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)
