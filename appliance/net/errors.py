"""The two kinds of error that the stack knows: the peer's bytes, and the caller's mistakes.

`WireError` is raised by functions that read hostile bytes, and by nothing else; it never leaves the
layer that caught it: the frame is dropped and the counter that the error names goes up by one.
`LocalError` and its kin are raised at the call that was wrong. What happens to a connection is told
with Python's own errors (`ConnectionResetError`, `TimeoutError`, ...), which need no class here.

Imports nothing but the standard library.
"""

from __future__ import annotations


class WireError(Exception):
    """Bytes from the network that cannot be used; `counter` names the counter of this drop."""

    __slots__ = ("counter",)

    def __init__(self, counter: str) -> None:
        super().__init__(counter)
        self.counter = counter


class LocalError(Exception):
    """Something that the person or the program on this side has to put right; the text says how."""


class LinkError(LocalError, OSError):
    """A network interface that cannot be opened or configured; `errno` is the kernel's reason."""

    def __init__(self, errno: int, message: str) -> None:
        OSError.__init__(self, errno, message)

    def __str__(self) -> str:
        return str(self.strerror)
