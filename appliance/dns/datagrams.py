"""A datagram in, its answer out: what a name server's UDP endpoint asks for each of them.

Apart from `protocol`, whose classes are asyncio's, because this is on the path of a plain query
and is compiled with `quick`. Imports the leaves of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.dns.consts import HEADER_LEN, OPCODE_UPDATE
from appliance.dns.quick import Quick
from appliance.dns.tally import Tally


class Datagrams:
    """Answers by whatever catalog `holder.current` is at the moment; see `protocol.Holder`."""

    __slots__ = ("_answer", "_holder", "_quick", "_reply", "_tally", "_update")

    def __init__(self, holder: Any, reply: Callable[[bytes, Any], None]) -> None:
        """`reply` is given answers that come later, with the address that they go to."""
        self._holder = holder
        self._reply = reply
        self._update: Any = getattr(holder, "update", None)
        # The catalog's `answer` as it was last, its counter, and what it is a method of.
        self._answer: Any = None
        self._tally = Tally()
        self._quick: Quick | None = None

    def answer(self, data: bytes, addr: Any) -> bytes | None:
        """The answer, if there is one now; our own stack asks so, and sends many at once."""
        catalog = self._holder.current
        ask = catalog.answer
        if ask is not self._answer:
            self._meet(catalog, ask)
        self._tally.count += 1
        answer: bytes | None
        if self._quick is not None:
            # One class to another: compiled, this is a jump, and nothing is packed for it.
            answer = self._quick.answer(data, peer=addr)
        else:
            answer = ask(data, peer=addr)
        if answer is None and self._update is not None and is_update(data):
            self._update(data, addr, lambda answer: self._reply(answer, addr))
        return answer

    def _meet(self, catalog: Any, ask: Any) -> None:
        """Another catalog, or the same with other tables; or something that looks on."""
        self._answer = ask
        self._tally = catalog.counters.udp
        owner = getattr(ask, "__self__", None)
        self._quick = owner if isinstance(owner, Quick) else None


def is_update(message: bytes) -> bool:
    """True for a query with opcode UPDATE, which is answered later."""
    return len(message) >= HEADER_LEN and message[2] & 0xF8 == OPCODE_UPDATE << 3
