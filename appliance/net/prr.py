"""Proportional Rate Reduction: how much to send per acknowledgment while repairing (RFC 9937).

Halving the window at once would silence the sender for half a round trip and then let it burst.
PRR spreads the reduction: as long as more is in flight than the new window allows, it sends in
the proportion new window / old flight of what each ACK reports delivered; below that, it lets
the flight grow back to the new window, by slow start while the ACKs show no further loss and by
packet conservation otherwise.

It counts octets.  It imports nothing.
"""

from __future__ import annotations


class Prr:
    """The accounts of one recovery: octets delivered and sent since it began (RFC 9937 §5)."""

    __slots__ = ("delivered", "out", "recover_fs", "ssthresh")

    def __init__(self, flight_size: int, ssthresh: int) -> None:
        self.delivered = 0  # prr_delivered
        self.out = 0  # prr_out
        self.recover_fs = max(flight_size, 1)  # RecoverFS: octets in flight when it began
        self.ssthresh = ssthresh  # octets; where the window shall end up

    def window(self, delivered: int, pipe: int, mss: int, safe: bool) -> int:
        """Return cwnd in octets after an ACK that reports `delivered` new octets (RFC 9937 §6).

        `pipe` is what is in flight now; `safe` (SafeACK) says that snd_una moved and no further
        loss was found.
        """
        self.delivered += delivered
        if pipe > self.ssthresh:
            budget = -(-self.delivered * self.ssthresh // self.recover_fs) - self.out
        else:
            budget = max(self.delivered - self.out, delivered)
            if safe:
                budget += mss
            budget = min(self.ssthresh - pipe, budget)
        # The first retransmission always leaves.
        if self.out == 0:
            budget = max(budget, mss)
        return pipe + max(budget, 0)
