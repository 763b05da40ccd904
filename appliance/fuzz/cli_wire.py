"""`appliance fuzz wire`: hostile packets and messages, plainly or guided by coverage."""

from __future__ import annotations

import argparse
import importlib.util
import secrets
import subprocess
import sys
from pathlib import Path

from appliance.commands import FAILED, MISUSED, OK, complain, count, say
from appliance.fuzz.cli_loopback import positive, whole


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--seconds", metavar="N", type=positive, help="for so long (default: 10)")
    much.add_argument("--runs", metavar="N", type=whole, help="so many inputs and conversations")
    much.add_argument("--case", metavar="FILE", type=Path, help="a case that was written, again")
    parser.add_argument("--seed", metavar="S", type=int, help="(default: any, and said)")
    parser.add_argument(
        "--target", metavar="NAME", action="append",
        help="frames, dns, http, tls, off-path or in-between; may be repeated (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--guided", action="store_true", help="by coverage, one --target; needs atheris"
    )
    parser.add_argument(
        "--into", metavar="DIR", type=Path, default=Path("fuzz-failures"),
        help="where failures, and what --guided finds, are written (default: fuzz-failures)",
    )  # fmt: skip
    parser.add_argument(
        "--keep", metavar="N", type=int, default=5, help="failures to write (default: 5)"
    )


def run(options: argparse.Namespace) -> int:
    """Try hostile octets; 1 when a rule was broken."""
    from appliance.fuzz.assault import NAMES, Assault
    from appliance.fuzz.targets import TARGETS

    if options.case is not None:
        return _again(options.case)
    names = options.target or list(NAMES)
    for name in names:
        if name not in NAMES:
            complain(f"fuzz wire: no target {name!r}; there are {', '.join(NAMES)}")
            return MISUSED
    if options.guided:
        if len(names) != 1 or names[0] not in TARGETS:
            complain(f"fuzz wire: --guided wants one --target of {', '.join(TARGETS)}")
            return MISUSED
        return _guided(names[0], options)
    seed = options.seed if options.seed is not None else secrets.randbelow(1 << 40)
    if seed < 0:
        complain("fuzz wire: --seed counts from 0")
        return MISUSED
    say(f"octets from --seed {seed}")
    assault = Assault(seed, names, options.into, options.keep, say)
    seconds = options.seconds or (None if options.runs else 10.0)
    damage = assault.go(runs=options.runs, seconds=seconds)
    for line in damage.summary():
        say(line)
    return FAILED if damage.broken else OK


def _again(path: Path) -> int:
    from appliance.fuzz.assault import CaseError, again

    try:
        broken = again(path)
    except CaseError as error:
        complain(str(error))
        return MISUSED
    except OSError as error:
        complain(f"{path}: {error.strerror}")
        return MISUSED
    for line in broken:
        say(line)
    say(f"{count(len(broken), 'rule')} broken")
    return FAILED if broken else OK


def _guided(name: str, options: argparse.Namespace) -> int:
    """Hand over to atheris, in a process of its own."""
    if importlib.util.find_spec("atheris") is None:
        complain("fuzz wire: --guided needs atheris: pip install 'appliance[fuzz]'")
        return MISUSED
    folder = options.into / f"guided-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    script = str(Path(__file__).with_name("guided.py"))
    words = [sys.executable, "-P", script, name, str(folder / "corpus")]
    words += [f"-artifact_prefix={folder}/", "-max_len=4096"]
    if options.runs:
        words.append(f"-runs={options.runs}")
    else:
        words.append(f"-max_total_time={int(options.seconds or 10.0)}")
    if options.seed is not None:
        words.append(f"-seed={options.seed % (1 << 31) or 1}")
    found = subprocess.run(words, check=False).returncode  # noqa: S603  # our own interpreter
    if found:
        say(f"the input that broke a rule is in {folder}/")
    return FAILED if found else OK
