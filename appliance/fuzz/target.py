"""What a target of hostile octets is, and the corpus kept for it. Imports nothing of ours."""

from __future__ import annotations

import random as random_module
from importlib.resources import files
from typing import Final, Protocol

PATIENCE: Final = 256
"""Inputs that one live host sees before it is replaced, so that a finding can be shown again."""


class BrokenRuleError(AssertionError):
    """A rule does not hold; the first word names it."""


class Target(Protocol):
    """Something to try octets on."""

    name: str

    def seeds(self) -> list[bytes]:
        """Sound inputs to begin from."""
        ...

    def mutate(self, data: bytes, random: random_module.Random) -> bytes:
        """Something like `data`."""
        ...

    def try_one(self, data: bytes) -> None:
        """Try it; raises BrokenRuleError, or whatever escapes."""
        ...

    def renew(self) -> None:
        """Forget everything: the next input meets what the first one met."""
        ...


def corpus(name: str) -> list[bytes]:
    """The inputs kept for a target, the smallest set that reaches what has been reached."""
    folder = files("appliance.fuzz") / "corpus" / name
    if not folder.is_dir():
        return []
    return [entry.read_bytes() for entry in sorted(folder.iterdir(), key=lambda e: e.name)]
