"""What is wrong with a site, in words that lead to the line.  Imports the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of the loader or the checker."""

    file: str  # as the user would name it
    line: int  # from 1; 0 when the finding is about the file as a whole
    severity: Literal["error", "warning"]
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"
