"""The Python of scripts, run with the `tcpi_` names of a connection.

A script is as trusted as a test: its code is run, not judged.  Imports `net.tcp_info`.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from dataclasses import asdict
from typing import Any, Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script.faults import InapplicableError, MismatchError, Row
from appliance.net import tcp_info
from appliance.net.tcp import Connection

# enum tcp_ca_state (without CWR, which the stack does not have: a mark reduces at once) and the
# states and options of struct tcp_info, for code.
_CONSTANTS: Final = {
    "TCP_CA_Open": 0, "TCP_CA_Disorder": 1, "TCP_CA_Recovery": 3, "TCP_CA_Loss": 4,
    "TCP_ESTABLISHED": 1, "TCP_SYN_SENT": 2, "TCP_SYN_RECV": 3, "TCP_FIN_WAIT1": 4,
    "TCP_FIN_WAIT2": 5, "TCP_TIME_WAIT": 6, "TCP_CLOSE": 7, "TCP_CLOSE_WAIT": 8,
    "TCP_LAST_ACK": 9, "TCP_LISTEN": 10, "TCP_CLOSING": 11,
    "TCPI_OPT_TIMESTAMPS": 1, "TCPI_OPT_SACK": 2, "TCPI_OPT_WSCALE": 4, "TCPI_OPT_ECN": 8,
    "TCPI_OPT_ECN_SEEN": 16, "TCPI_OPT_SYN_DATA": 32,
}  # fmt: skip


class Interpreter:
    """What a script's pieces of code share: their names, and where they print to."""

    def __init__(self, script: e.Script) -> None:
        self._script = script
        self._names: dict[str, Any] = dict(_CONSTANTS)
        self.output = io.StringIO()

    def run(self, code: e.Code, line: int, connection: Connection | None, now: float) -> None:
        """Run one piece that stands at `line`; raises MismatchError and InapplicableError."""
        if connection is not None:
            snapshot = tcp_info.snapshot(connection, now)
            self._names.update(asdict(snapshot))
        source = textwrap.dedent(code.text).rstrip() + "\n"
        compiled: Any
        try:
            compiled = compile("\n" * (line - 1) + source + "\n", self._script.path, "exec")
        except SyntaxError as error:
            raise MismatchError(f"the code is no Python: {error.msg}") from None
        try:
            with contextlib.redirect_stdout(self.output):
                exec(compiled, self._names)  # noqa: S102
        except AssertionError as error:
            inner = error.__traceback__.tb_next if error.__traceback__ else None
            at = inner.tb_lineno if inner else line
            text = self._script.text.split("\n")[at - 1].strip()
            raise MismatchError(
                f"{text or 'assert'}: {error}", [Row("code", text, str(error), False)]
            ) from None
        except NameError as error:
            if error.name and error.name.startswith(("tcpi_", "SO_", "TCP")):
                raise InapplicableError(f"the stack does not keep {error.name}") from None
            raise MismatchError(f"the code fails: {error}") from None
        except Exception as error:
            raise MismatchError(f"the code fails: {error!r}") from None
