"""What every service of a running appliance is: a part that begins, reloads, drains and ends.

The order of a life: `begin` once the stack runs; `reload` whenever the content was loaded again;
`reopen` whenever logs were renamed; `drain` when told to end, and `drained` until what had begun
has finished; `end` in any case.
A part does nothing for a step that does not concern it. Imports asyncio's face of the stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.content import Content
    from appliance.net.transport import Server, Stack


class Part:
    """A service. `servers` are its listeners; the base closes them and waits for their clients."""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    async def begin(self, stack: Stack) -> None:
        """Listen, or whatever else it takes; raises OSError when that cannot be."""

    def reload(self, content: Content) -> None:
        """Serve this from now on; what is being answered is finished from the old."""

    def reopen(self) -> None:
        """Open files that are appended to again: they were renamed."""

    async def reloaded(self) -> None:
        """Return when what `reload` was given is served."""

    def drain(self) -> None:
        """Take on nothing new, and let what has begun finish."""
        for server in self.servers:
            server.close()

    async def drained(self) -> None:
        """Return when what had begun has finished; cancelled when that takes too long."""
        for server in self.servers:
            await server.wait_closed()

    async def end(self) -> None:
        """Let go of everything that the stack's own end does not take away."""

    def offers(self) -> list[tuple[str, int, int]]:
        """What else the gateway of a pair is to carry: name, port wished for, port of the stack."""
        return []

    def is_local(self, name: str) -> bool:
        """Whether what is offered under a name is for this host alone, whatever the rest is."""
        return False

    def offered(self, name: str, address: str, port: int) -> None:
        """Learn where this host finds what was offered under a name."""

    def notes(self) -> list[str]:
        """Lines for the banner."""
        return []
