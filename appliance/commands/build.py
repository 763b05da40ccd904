"""`appliance build`: make an image of what the lock says, as little of it again as has changed."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.commands import FAILED, MISUSED, OK, complain, config_path, of_images, say

if TYPE_CHECKING:
    from appliance.image.graph import Outcome


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="settings")
    parser.add_argument(
        "--target", choices=("qemu", "disk", "oci"), help="what to make (default: as configured)"
    )
    parser.add_argument(
        "--explain", action="store_true", help="tell of every step why it was made, or was not"
    )


def run(options: argparse.Namespace) -> int:
    """Build."""
    path = config_path(options)
    if path is None:
        return MISUSED
    return of_images(
        partial(_build, options, path), "; the next appliance build goes on where this one was"
    )


def _build(options: argparse.Namespace, path: Path) -> int:
    from appliance.image import lock as locks
    from appliance.image.project import build, load

    began = time.monotonic()
    project = load(path)
    for line in project.notes():
        say(line)
    locked = locks.read(project.lock_path)
    if different := locks.differences(locked):
        for line in different[:8]:
            complain(line)
        complain("this is not what was locked; to build it all the same: appliance configure")
        return FAILED
    current = locks.with_content(locked, project.content_digest())
    if current != locked:
        say(f"what is served has changed: {project.lock_path.name} is brought up to date")
    target = options.target or locked.target
    outcomes = build(project, current, target, say)
    if current != locked:
        locks.write(project.lock_path, current)
    made = [outcome for outcome in outcomes.values() if outcome.made]
    for outcome in outcomes.values() if options.explain else ():
        say(_explained(outcome))
    place = project.output / target
    for product in sorted(path for path in place.rglob("*") if path.is_file()):
        if options.explain or product.stat().st_size > 1 << 20:
            say(f"{product.stat().st_size / 1e6:8.1f} MB  {product}")
    steps = f"{len(made)} of {len(outcomes)} steps made"
    say(f"{steps} in {time.monotonic() - began:.1f} s; next: appliance run" if target == "qemu"
        else f"{steps} in {time.monotonic() - began:.1f} s")  # fmt: skip
    return OK


def _explained(outcome: Outcome) -> str:
    verb = f"made in {outcome.seconds:.1f} s" if outcome.made else "kept"
    return f"{outcome.step.name}: {verb}: {outcome.why}"
