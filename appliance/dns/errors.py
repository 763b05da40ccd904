"""What can go wrong in the DNS rooms, and how a zone file's faults are told. Imports nothing here.

Hostile bytes raise `WireError`, which never leaves `answer`; a person's mistakes become
`Problem`s, gathered so that one run names all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["error", "warning"]


class DnsError(Exception):
    """Everything that this package raises on purpose."""


class WireError(DnsError):
    """The peer's octets are no DNS message; counted, answered with FORMERR or dropped."""


class SenselessError(WireError):
    """Differences of a zone that make no sense; the whole of it may (RFC 1995 §4)."""


class LocalError(DnsError, ValueError):
    """A caller's mistake: a name that is no name, two zones with one origin."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault of a zone file; `line` counts from 1, 0 when the whole file is meant."""

    file: str
    line: int
    severity: Severity
    message: str

    def __str__(self) -> str:
        """`file:line: severity: message`, as compilers write it, so that editors can jump."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.severity}: {self.message}"


PROBLEMS_SHOWN: Final = 20
"""Problems in the text of a `ZoneError`; the object carries them all."""


class ZoneError(LocalError):
    """A zone is not served because of the errors in `problems` (warnings are among them too)."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep all problems; the message shows `PROBLEMS_SHOWN`, errors first."""
        self.problems = tuple(problems)
        worst_first = sorted(self.problems, key=lambda problem: problem.severity != "error")
        lines = [str(problem) for problem in worst_first[:PROBLEMS_SHOWN]]
        if len(self.problems) > PROBLEMS_SHOWN:
            lines.append(f"… and {len(self.problems) - PROBLEMS_SHOWN} more")
        super().__init__("\n".join(lines) or "no zone")
