"""Running scripts: how each one ends, and what is told of it.

A script ends as `passed`, `failed` (with expected and got side by side), or `not applicable` (with
the reason).  Imports the player.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script.faults import InapplicableError, MismatchError
from appliance.fuzz.script.parser import DEFINITIONS, ScriptError, parse_file
from appliance.fuzz.script.player import SEED, Player
from appliance.fuzz.script.stage import MICRO

PASSED: Final = "passed"
FAILED: Final = "failed"
NOT_APPLICABLE: Final = "not applicable"


@dataclass
class Result:
    """How one script ended."""

    path: str
    outcome: str
    line: int = 0
    reason: str = ""
    detail: str = ""  # expected and got, and the last packets
    seconds: float = 0.0  # of virtual time
    took: float = 0.0  # of the machine
    events: int = 0
    output: str = ""


@dataclass(frozen=True)
class Choices:
    """How scripts are played."""

    definitions: Mapping[str, str] = field(default_factory=lambda: dict(DEFINITIONS))
    exact_push: bool = False
    seed: int = SEED


def run_file(path: str | Path, choices: Choices | None = None) -> Result:
    """Play one script; raises OSError when it cannot be read.  A syntax error is a failure."""
    choices = choices or Choices()
    began = time.perf_counter()
    try:
        script = parse_file(path, choices.definitions)
    except ScriptError as error:
        result = Result(
            str(path), FAILED, error.line, f"syntax: {error.message} (column {error.column})"
        )
    else:
        result = run_script(script, choices)
    result.took = time.perf_counter() - began
    return result


def run_script(script: e.Script, choices: Choices | None = None) -> Result:
    """Play a script that has been read."""
    result = Result(script.path, PASSED)
    player: Player | None = None
    try:
        choices = choices or Choices()
        player = Player(script, seed=choices.seed, exact_push=choices.exact_push)
        player.play()
    except InapplicableError as reason:
        result.outcome, result.reason = NOT_APPLICABLE, str(reason)
    except Exception as fault:
        if not isinstance(fault, MismatchError):
            # Nothing may escape the stack: that it did is what is wrong.
            told = traceback.extract_tb(fault.__traceback__)[-1]
            where = f"{told.filename}:{told.lineno}"
            fault = MismatchError(f"the stack raised {fault!r} at {where}")
        result.outcome, result.reason = FAILED, fault.summary
        trace = player.trace() if player else ""
        result.detail = "\n".join(filter(None, (fault.table(), trace)))
    if player is not None:
        result.line = player.line if result.outcome != PASSED else 0
        result.events = player.done
        result.seconds = player.stage.now / MICRO
        result.output = player.interpreter.output.getvalue()
    elif script.setup is not None:
        result.line = script.setup[1].line
    return result
