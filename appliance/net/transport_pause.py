"""How long a link that brings datagrams in numbers is left alone after a turn.

One by one, waking up and sending cost more than answering, so a driver does what network cards do
that hold back their interrupts: it sleeps for a moment and finds a fuller turn. For how long is
found by trying. Most senders do not wait for answers, and bring as many datagrams a second whether
the pause is short or long; then the long one is better, since fewer turns share the same work. A
few senders that wait for each answer bring fewer, the longer they wait. So both are tried now and
then, and the long pause is taken where it costs no datagrams, and there are many.

There is no pause after a turn of few datagrams, or mostly of segments, whose senders wait for
acknowledgments; nor after a full turn, which could not be fuller.

It does not sleep and has no clock: turns and times in, seconds out. Imports nothing.
"""

from __future__ import annotations

from math import inf
from typing import Final

CROWD: Final = 8
"""Datagrams in one turn from which on more are sure to follow: at 150,000 a second as many come in
the short pause, at 50,000 in the long one."""
SHORT: Final = 1e-6
"""Seconds. Linux wakes a sleeper up to 50 us late (PR_SET_TIMERSLACK, prctl(2)), and that is the
pause: nobody waits for it whose datagram came alone."""
LONG: Final = 1e-4
"""Seconds, and the same 50 us: less than a full turn takes, so that at worst a datagram waits as if
one more turn had been before it."""
FAST: Final = 60_000.0
"""Datagrams a second from which on a long pause is tried. At fewer the processor is half idle, and
its time worth less than a tenth of a millisecond of those who wait: measured on a tap, queries at
50,000 a second were answered within 46 us after short pauses, and 150 after long ones."""
TRIAL: Final = 0.02
"""Seconds that each pause is tried for: some hundred turns."""
AGAIN: Final = 1.0
"""Seconds from the end of a trial to the next: senders change."""
WORTH: Final = 0.9
"""Of the datagrams a second with short pauses, what must still come with long ones: less is no
accident of measuring, for what is answered later is asked later."""
GAP: Final = 0.001
"""Seconds between two turns, at most, that a trial counts: longer silence is not of our making."""


class Pauses:
    """The pauses of one link."""

    __slots__ = ("_before", "_datagrams", "_rate", "_seconds", "_try_at", "_trying", "pause")

    def __init__(self) -> None:
        self.pause = SHORT
        """Seconds; the pause of now."""
        self._trying = False
        self._try_at = -inf  # monotonic seconds of the next trial
        self._rate = 0.0  # datagrams a second with short pauses, in this trial
        self._before = 0.0  # monotonic seconds of the turn before; since this pause is tried:
        self._seconds = 0.0
        self._datagrams = 0

    def after(self, datagrams: int, frames: int, full: bool, began: float) -> float:
        """Seconds to pause after a turn that began at `began` by the clock; 0.0: none.

        `datagrams` of its `frames` were such; `full`: it could not have taken more.
        """
        if self._trying:
            self._note(datagrams, began)
        if full or datagrams < CROWD or 2 * datagrams <= frames:
            return 0.0
        if not self._trying and began >= self._try_at:
            self._trying = True
            self._begin(SHORT, began)
        return self.pause

    def _begin(self, pause: float, now: float) -> None:
        self.pause = pause
        self._before = now
        self._seconds = 0.0
        self._datagrams = 0

    def _note(self, datagrams: int, now: float) -> None:
        """So many have come since the turn before."""
        self._datagrams += datagrams
        self._seconds += min(now - self._before, GAP)
        self._before = now
        if self._seconds < TRIAL:
            return
        rate = self._datagrams / self._seconds
        if self.pause == SHORT and rate >= FAST:
            self._rate = rate
            self._begin(LONG, now)
            return
        self._trying = False
        self._try_at = now + AGAIN
        if rate < WORTH * self._rate:
            self.pause = SHORT
