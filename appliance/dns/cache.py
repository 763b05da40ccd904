"""A bounded memory of renderings. Imports nothing of ours.

Two generations instead of a list in order of use: a full young one becomes the old one, and what
was in the old one and nobody asked for again is forgotten. A hit costs one or two dictionary
look-ups and no bookkeeping; between half and all of the bound is in use.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Generations(Generic[K, V]):
    """A dictionary that forgets; holds at most `entries` entries of `octets` octets together."""

    __slots__ = ("_entries", "_octets", "_old", "_room", "_young")

    def __init__(self, entries: int, octets: int) -> None:
        """Both bounds are for the two generations together."""
        self._entries = entries // 2
        self._octets = octets // 2
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._room = self._octets

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        """The value, or None."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                # Asked for again: it may live one generation longer. Its octets were counted when
                # it came, and the entry bound holds, so no account is kept of the move.
                del self._old[key]
                self._turn()
                self._young[key] = value
        return value

    def put(self, key: K, value: V, octets: int) -> None:
        """Remember a value that takes about `octets` octets."""
        self._room -= octets
        self._turn()
        self._young[key] = value

    def _turn(self) -> None:
        if self._room < 0 or len(self._young) >= self._entries:
            self._old = self._young
            self._young = {}
            self._room = self._octets
