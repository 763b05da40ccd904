"""Hostile octets for so long or so many, and what is written down of what they break.

Each round takes a target in turn: some thousand mutated inputs for a host, a name server, a web
server or TLS (`targets`), or one conversation under attack (`attack`). A failure becomes a
directory with a case file, which `again` runs; of a target's inputs only those are kept that it
takes to fail.
Imports `attack`, `casebook`, `targets` and tqdm.
"""

from __future__ import annotations

import random as random_module
import re
import sys
import time
import tomllib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import tomli_w
from tqdm import tqdm

from appliance.fuzz import attack, casebook
from appliance.fuzz.run import describe
from appliance.fuzz.targets import PATIENCE, TARGETS, Target

ROUND: Final = 1_000
"""Inputs for one target before it is the next one's turn."""
ATTACKS: Final = 20
"""Conversations that are attacked in a row."""
NAMES: Final = (*TARGETS, *attack.ATTACKS)


class CaseError(ValueError):
    """A case file that cannot be used; one line, with the file."""


@dataclass
class Damage:
    """What an assault came to."""

    inputs: Counter[str] = field(default_factory=Counter)
    """By target."""
    real: float = 0.0
    broken: Counter[str] = field(default_factory=Counter)
    failures: list[Path] = field(default_factory=list)

    def summary(self) -> Iterator[str]:
        """The lines that end it."""
        each = ", ".join(f"{name} {number}" for name, number in self.inputs.items())
        rate = sum(self.inputs.values()) / max(self.real, 1e-9)
        yield f"tried {each} in {self.real:.1f} s, {rate:.0f} a second"
        for what, number in self.broken.most_common():
            yield f"broken: {what}, {number} times"
        for path in self.failures:
            yield f"written: {path}/; again: {command(path)}"
        if not self.broken:
            yield "no rule was broken"


def command(directory: Path) -> str:
    """The command that runs the case of a directory again."""
    return f"appliance fuzz wire --case {directory / 'case.toml'}"


class Assault:
    """A random source, targets, and where failures go."""

    def __init__(
        self, seed: int, names: Sequence[str], into: Path, keep: int, say: Callable[[str], None]
    ) -> None:
        self.damage = Damage()
        self._seed = seed
        self._names = names
        self._into = into
        self._keep = keep
        self._say = say
        self._kinds: set[str] = set()
        self._made: dict[str, Target] = {}

    def go(self, *, runs: int | None, seconds: float | None) -> Damage:
        """Go on until `runs` inputs or real `seconds` are over, or it is stopped."""
        damage = self.damage
        start = time.monotonic()
        total = runs if runs is not None else round(seconds or 0)
        bar = tqdm(
            total=total,
            unit="input" if runs is not None else "s",
            disable=not sys.stderr.isatty(),
            leave=False,
        )
        turn = 0
        try:
            while (runs is None or sum(damage.inputs.values()) < runs) and (
                seconds is None or time.monotonic() - start < seconds
            ):
                name = self._names[turn % len(self._names)]
                left = None if runs is None else runs - sum(damage.inputs.values())
                if name in TARGETS:
                    self._round(name, turn, min(ROUND, left or ROUND))
                else:
                    for number in range(min(ATTACKS, left or ATTACKS)):
                        self._attack(name, self._seed + turn * ATTACKS + number)
                turn += 1
                damage.real = time.monotonic() - start
                done = sum(damage.inputs.values()) if runs is not None else round(damage.real)
                bar.n = min(done, total)
                bar.set_postfix_str(f"{name}, {sum(damage.broken.values())} found")
                bar.refresh()
        except KeyboardInterrupt:
            self._say("stopped")
        finally:
            bar.close()
        damage.real = time.monotonic() - start
        return damage

    # ------------------------------------------------------------------ targets

    def _round(self, name: str, turn: int, inputs: int) -> None:
        """Try some inputs on a target."""
        random = random_module.Random(f"{self._seed} {turn}")
        target = self._made.setdefault(name, TARGETS[name]())
        target.renew()
        pool = target.seeds()
        tried: deque[bytes] = deque(maxlen=PATIENCE)
        for _ in range(inputs):
            data = random.choice(pool)
            for _ in range(random.choice((1, 1, 2, 4))):
                data = target.mutate(data, random)
            tried.append(data)
            self.damage.inputs[name] += 1
            try:
                target.try_one(data)
            except Exception as error:
                self._broken(name, error, list(tried))
                target.renew()
                tried.clear()

    def _broken(self, name: str, error: Exception, tried: list[bytes]) -> None:
        text = describe(error)
        if not self._is_new(f"{name}: {text}"):
            return
        fewer = fewest(TARGETS[name](), tried, error)
        self._write(name, text, {"inputs": [data.hex() for data in fewer]})

    # ------------------------------------------------------------------ attacks

    def _attack(self, name: str, seed: int) -> None:
        """Run one conversation under attack."""
        outcome = attack.ATTACKS[name](seed)
        self.damage.inputs[name] += 1
        if not outcome.findings:
            return
        rule, text = outcome.findings[0]
        if not self._is_new(f"{name}: {rule}: {text}"):
            return
        case: dict[str, Any] = {"seed": seed}
        if name == "off-path":
            case["only"] = attack.fewest(seed, rule)
        self._write(name, f"{rule}: {text}", case)

    # ------------------------------------------------------------------ failures

    def _is_new(self, text: str) -> bool:
        """Count a failure; True for one of a kind not seen in this assault."""
        kind = re.sub("[0-9a-f]{8,}|[0-9.]+", "#", text)
        self.damage.broken[kind] += 1
        if kind in self._kinds:
            return False
        self._kinds.add(kind)
        self._say(text)
        return len(self.damage.failures) < self._keep

    def _write(self, name: str, text: str, case: dict[str, Any]) -> None:
        directory = casebook.fresh(self._into / f"wire-{name}-{self._seed}")
        (directory / "case.toml").write_text(tomli_w.dumps({"target": name, **case}))
        (directory / "findings.txt").write_text(f"{text}\n\n{command(directory)}\n")
        self.damage.failures.append(directory)
        self._say(f"  the least that it takes is in {directory}/")


def fewest(target: Target, tried: list[bytes], error: Exception) -> list[bytes]:
    """The inputs that it takes to fail in the same way: halves are left out while it fails."""
    wanted = (type(error), str(error).partition(":")[0])

    def fails(inputs: list[bytes]) -> bool:
        target.renew()
        for data in inputs:
            try:
                target.try_one(data)
            except Exception as other:
                return (type(other), str(other).partition(":")[0]) == wanted
        return False

    if not fails(tried):
        return tried
    size = max(len(tried) // 2, 1)
    while size:
        at = 0
        while at < len(tried):
            fewer = tried[:at] + tried[at + size :]
            if fewer and fails(fewer):
                tried = fewer
            else:
                at += size
        size //= 2
    return tried


def again(path: Path) -> list[str]:
    """Run a case file again; what it breaks.  Raises CaseError and OSError."""
    try:
        case = tomllib.loads(path.read_text())
        name = case["target"]
        if name in attack.ATTACKS:
            seed = int(case["seed"])
            only = case.get("only")
            outcome = (
                attack.off_path(seed, only) if only is not None else attack.ATTACKS[name](seed)
            )
            return [f"{finding.rule}: {finding.text}" for finding in outcome.findings]
        target = TARGETS[name]()
        inputs = [bytes.fromhex(line) for line in case["inputs"]]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, ValueError, TypeError) as error:
        raise CaseError(f"{path}: {type(error).__name__}: {error}") from error
    for data in inputs:
        try:
            target.try_one(data)
        except Exception as error:
            return [describe(error)]
    return []
