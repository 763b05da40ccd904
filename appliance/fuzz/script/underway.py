"""System calls under way, and the judgement of their results.

A call that waits is asked again after each turn of the host, until it ends.  Imports the sockets.
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from dataclasses import dataclass

from appliance.fuzz.script import events as e
from appliance.fuzz.script.faults import InapplicableError, MismatchError, Row
from appliance.fuzz.script.sockets import ErrnoError
from appliance.fuzz.script.symbols import errno_name, number, written


@dataclass
class Underway:
    """One call: when it must end, and how it did (microseconds; -1: not yet)."""

    event: e.Event
    call: e.Call
    running: Generator[None, None, int]
    ends: int | None
    ended: int = -1
    result: int = 0
    errno: int = 0
    stepping: bool = False
    fault: Exception | None = None

    def step(self) -> bool:
        """Go on; True when the call is done."""
        self.stepping = True
        try:
            next(self.running)
        except StopIteration as done:
            self.result = done.value
            return True
        except ErrnoError as error:
            self.result, self.errno = -1, error.number
            return True
        except OSError as error:
            self.result, self.errno = -1, error.errno or 0
            return True
        except (MismatchError, InapplicableError) as fault:
            self.fault = fault
            return True
        finally:
            self.stepping = False
        return False

    def judge(self) -> None:
        """Compare the result with the script's; raises MismatchError."""
        call = self.call
        if self.fault is not None:
            raise self.fault
        expected = call.result
        if isinstance(expected, e.Whatever) or expected == e.Symbol("?"):
            return
        wanted = number(expected)
        wanted_text = f"{written(expected)} {call.errno or ''}".strip()
        got = str(self.result)
        if self.errno:
            got = f"-1 {errno_name(self.errno)}"
        same = wanted == self.result
        if call.errno is not None:
            # By number: some have two names.
            same = same and getattr(errno, call.errno, None) == self.errno
        elif self.errno and wanted == -1:
            same = True
        if not same:
            raise MismatchError(
                f"{call.name}() returned {got}, not {wanted_text}",
                [Row("result", wanted_text, got, False)],
            )
