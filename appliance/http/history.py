"""When files last changed, by the site's own history.

A clone has the time of its making on every file; git knows better.  Asked for once, when a site is
loaded from a work tree; files that git does not have, or that were changed since, keep the time
that the disk gives them.  Imports the standard library; runs `git` where there is one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

# Seconds that git may take; a history as long as that is cut where it is.
PATIENCE = 10.0
# Octets of git's lists that are read: names of 200,000 files.
MAX_LIST = 64 * 1024 * 1024
# Nothing that a repository's own settings could make git run: whoever checks somebody's site looks
# at it and does not start what lies in it.  Filters have names, and are looked for.
_HARMLESS = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
# Fetch nothing that a partial clone lacks, by whatever command; write no index.
_ALONE = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"}


def changes(root: Path) -> dict[str, int]:
    """Return seconds since the epoch of the last commit by name under `root`; {} without a history.

    Names have "/" between their parts, as git has them.
    """
    git = shutil.which("git")
    here = root.resolve()
    # A folder that may not be looked into has no history for us: os.path.exists does not raise.
    inside = any(os.path.exists(parent / ".git") for parent in (here, *here.parents))
    if git is None or not inside:
        return {}
    base = [git, "-C", str(root), *_HARMLESS, "--literal-pathspecs"]
    filters = _filters(base)
    if any("=" in name for name in filters):
        return {}  # it could not be told to git
    for name in filters:
        for setting in ("clean=", "process=", "required=false"):
            base += ["-c", f"filter.{name}.{setting}"]
    tracked = _names([*base, "ls-files", "-z", "--", "."])
    dirty = _names(
        [*base, "diff", "--no-ext-diff", "--ignore-submodules=all", "--name-only", "-z",
         "--relative", "HEAD", "--", "."]
    )  # fmt: skip
    if tracked is None or dirty is None:
        return {}
    wanted = tracked - dirty
    if not wanted:
        return {}
    return _log([*base, "log", "--no-show-signature", "--format=%x01%ct", "--name-only",
                 "--no-renames", "-z", "--relative", "-m", "--first-parent", "--", "."],
                wanted)  # fmt: skip


def _filters(base: list[str]) -> set[str]:
    """Return the names of filters that the repository itself defines; the user's own may run."""
    found = _run([*base, "config", "--show-scope", "-z", "--name-only", "--get-regexp", "^filter"])
    words = [os.fsdecode(word) for word in (found or b"").split(b"\0")]
    scoped = zip(words[::2], words[1::2], strict=False)
    names = {name.partition(".")[2].rpartition(".")[0] for scope, name in scoped
             if scope in {"local", "worktree"}}  # fmt: skip
    return names - {""}


def _run(command: list[str]) -> bytes | None:
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=True,
            env=os.environ | _ALONE,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _names(command: list[str]) -> set[str] | None:
    found = _run(command)
    if found is None:
        return None
    return {os.fsdecode(name) for name in found[:MAX_LIST].split(b"\0") if name}


def _log(command: list[str], wanted: set[str]) -> dict[str, int]:
    """Read a log, newest first, until each of the names was in it."""
    found: dict[str, int] = {}
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | _ALONE,
    ) as process:  # fmt: skip
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        assert process.stdout is not None
        time, rest = 0, b""
        try:
            while len(found) < len(wanted) and (
                octets := os.read(process.stdout.fileno(), 1 << 16)
            ):
                *words, rest = (rest + octets).split(b"\0")
                for word in words:
                    word = word.lstrip(b"\n")
                    if word.startswith(b"\1"):
                        time = int(word[1:])
                    elif word and (name := os.fsdecode(word)) in wanted:
                        found.setdefault(name, time)
        finally:
            timer.cancel()
            process.kill()
    return found
