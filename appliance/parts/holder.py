"""What the parts share: the content of now, and how many may wait at a port."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

BACKLOG: Final = 1024
"""Handshakes and connections waiting per port: all that a host takes on (net.stack.Limits)."""

T = TypeVar("T")


class Holder(Generic[T]):
    """The content of now; assigning `current` swaps it for everybody at once."""

    __slots__ = ("current",)

    def __init__(self, current: T) -> None:
        self.current = current
