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
from appliance.fuzz.script import packets
from appliance.fuzz.script.faults import InapplicableError, MismatchError
from appliance.fuzz.script.parser import DEFINITIONS, DEFINITIONS6, ScriptError, parse_file
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
    version: str = ""  # of IP, when the script was played over several
    events: int = 0
    output: str = ""

    @property
    def name(self) -> str:
        """The path, and over which IP if that is a question."""
        return f"{self.path} ({self.version})" if self.version else self.path


@dataclass(frozen=True)
class Choices:
    """How scripts are played.

    `definitions` are words that stand for others, besides packetdrill's own; `ip_version` "" leaves
    it to the script, by its option or by a name that ends in v6.pkt.
    """

    definitions: Mapping[str, str] = field(default_factory=dict)
    exact_push: bool = False
    seed: int = SEED
    ip_version: str = ""


def run_file(path: str | Path, choices: Choices | None = None) -> Result:
    """Play one script; raises OSError when it cannot be read.  A syntax error is a failure."""
    choices = choices or Choices()
    began = time.perf_counter()
    version = choices.ip_version or _own_version(str(path)) or packets.IPV4
    try:
        script = parse_file(path, _definitions(version, choices))
        said = script.options.get("ip_version", version)
        if said != version:
            script = parse_file(path, _definitions(said, choices))
    except ScriptError as error:
        result = Result(
            str(path), FAILED, error.line, f"syntax: {error.message} (column {error.column})"
        )
    else:
        result = run_script(script, choices)
    result.took = time.perf_counter() - began
    return result


def _own_version(path: str) -> str:
    """The version that a script's name tells, as packetdrill's own runner has it; "" for none."""
    return next((v for v in (packets.IPV4, packets.IPV6) if path.endswith(f"{v[2:]}.pkt")), "")


def _definitions(version: str, choices: Choices) -> dict[str, str]:
    six = version != packets.IPV4
    common = DEFINITIONS6 if six else DEFINITIONS
    mapped = {"CODE": DEFINITIONS["CODE"], "TFO_COOKIE": DEFINITIONS["TFO_COOKIE"]}
    return {**common, **(mapped if version == packets.MAPPED else {}), **choices.definitions}


def _version(script: e.Script, choices: Choices) -> str:
    """Over which IP a script is played; raises InapplicableError when it is for another."""
    said = script.options.get("ip_version") or _own_version(script.path)
    asked = choices.ip_version
    if asked and said and asked != said and {asked, said} != {packets.IPV4, packets.MAPPED}:
        raise InapplicableError(f"the script is one of {said}")
    return asked or said or packets.IPV4


def run_script(script: e.Script, choices: Choices | None = None) -> Result:
    """Play a script that has been read."""
    result = Result(script.path, PASSED)
    player: Player | None = None
    try:
        choices = choices or Choices()
        version = _version(script, choices)
        player = Player(
            script, seed=choices.seed, exact_push=choices.exact_push, ip_version=version
        )
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
