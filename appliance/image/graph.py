"""A build graph in which a step is made again only when what it depends on has changed.

    key(step) = SHA-256 of: the source of its recipe, its values, the digest of each file that it
                reads, and the digest of what each step that it needs has made

A step's output lies in the store under its key. It is made in a folder of its own and renamed into
place, so an interrupted build leaves whole steps or none. Since keys count what earlier steps
*made* and not what they were made of, a change without an effect stops where its effect ends.

What a step finds out on its way that it depends on (the libraries that a program is linked with) it
tells in `Bench.found`; a change there makes it again as well.

No step may look at anything that neither counts: folders, clocks, names of machines. Imports
the standard library.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from appliance.files import write_whole

KEPT: Final = 3
"""Outputs kept for each step: the one in use, and what an edit undone would ask for again."""
RACY: Final = 2_000_000_000
"""Nanoseconds: a file that changed this shortly before it was read may change again unnoticed."""
_SHOWN: Final = 3
"""Changes named in one line of an explanation."""

Say = Callable[[str], None]


class BuildError(Exception):
    """A step cannot be made; the text says what is to be put right."""


@dataclass(frozen=True)
class Bench:
    """What a recipe works with."""

    out: Path
    """An empty folder; what lies in it at the end is the output."""
    scratch: Path
    """A folder that outlives an interruption, for a step that can go on where it was."""
    inputs: Mapping[str, Path]
    """The outputs of the steps that this one needs, by name."""
    say: Say
    """For progress, in a line."""
    found: dict[str, Path] = field(default_factory=dict)
    """Files that turned out to matter, for the recipe to add to."""


@dataclass(frozen=True)
class Step:
    """One step. `files` maps a name, which must not depend on where things lie, to a file."""

    name: str
    make: Callable[[Bench], None]
    needs: tuple[Step, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a step: its output, whether it was made now, why, and in how many seconds."""

    step: Step
    out: Path
    digest: str
    made: bool
    why: str
    seconds: float


class Graph:
    """Steps over a store in `root`; one build at a time uses a store."""

    def __init__(self, root: Path, say: Say) -> None:
        self._root = root
        self._say = say
        self._digests = _Digests(root / "digests.json")

    def build(self, targets: Sequence[Step]) -> dict[str, Outcome]:
        """Make what is missing for `targets`; returns every step's outcome, in the order made.

        Raises BuildError when a step cannot be made.
        """
        outcomes: dict[str, Outcome] = {}
        with self._alone():
            try:
                for step in _ordered(targets):
                    outcomes[step.name] = self._bring(step, outcomes)
            finally:
                self._digests.save()
        return outcomes

    def _bring(self, step: Step, done: Mapping[str, Outcome]) -> Outcome:
        needed = {need.name: done[need.name] for need in step.needs}
        parts = self._parts(step, needed)
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
        place = self._root / "steps" / step.name
        note = place / f"{key}.json"
        out = place / key
        why = ""
        if note.exists() and out.exists():
            known = json.loads(note.read_text())
            why = self._found_changed(known["found"])
            if not why:
                os.utime(note)
                unchanged = "nothing that it depends on has changed"
                return Outcome(step, out, known["digest"], False, unchanged, 0.0)
        why = why or self._why(place, parts)
        began = time.monotonic()
        discovered = self._make(step, key, out, {name: o.out for name, o in needed.items()})
        seconds = time.monotonic() - began
        digest = tree_digest(out)
        found = {name: [str(path), self._digests.of(path)] for name, path in discovered.items()}
        _write(
            note,
            {"digest": digest, "seconds": round(seconds, 3), "parts": parts, "found": found},
        )
        self._forget(place)
        return Outcome(step, out, digest, True, why, seconds)

    def _found_changed(self, found: Mapping[str, Sequence[str]]) -> str:
        """Which of the files that turned out to matter is another now; empty when none is."""
        for name, (path, digest) in found.items():
            try:
                if self._digests.of(Path(path)) != digest:
                    return f"{name} changed"
            except BuildError:
                return f"{name} is gone"
        return ""

    def _make(self, step: Step, key: str, out: Path, inputs: Mapping[str, Path]) -> dict[str, Path]:
        scratch = self._root / "scratch" / f"{step.name}-{key}"
        fresh = self._root / "scratch" / f"{step.name}-{key}.out"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        scratch.mkdir(parents=True, exist_ok=True)
        bench = Bench(fresh, scratch, inputs, lambda line: self._say(f"{step.name}: {line}"))
        step.make(bench)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)
        shutil.rmtree(scratch, ignore_errors=True)
        return bench.found

    def _parts(self, step: Step, needed: Mapping[str, Outcome]) -> dict[str, str]:
        """Everything that decides a step's output, by name."""
        parts = {f"value {name}": value for name, value in step.values.items()}
        parts["recipe"] = _source_digest(step.make)
        for name, path in step.files.items():
            parts[name] = self._digests.of(path)
        for name, found in needed.items():
            parts[f"step {name}"] = found.digest
        return parts

    def _why(self, place: Path, parts: Mapping[str, str]) -> str:
        """What has changed since the step was last made or used."""
        notes = sorted(place.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        if not notes:
            return "never made before"
        before: dict[str, str] = json.loads(notes[-1].read_text())["parts"]
        changes = [f"{name} is new" for name in parts if name not in before]
        changes += [f"{name} is gone" for name in before if name not in parts]
        changes += [f"{n} changed" for n, d in parts.items() if n in before and before[n] != d]
        if not changes:
            return "its output was taken away"
        more = len(changes) - _SHOWN
        return ", ".join(changes[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

    def _forget(self, place: Path) -> None:
        """Drop outputs that have not been used for longest."""
        notes = sorted(place.glob("*.json"), key=lambda path: -path.stat().st_mtime_ns)
        for note in notes[KEPT:]:
            shutil.rmtree(note.with_suffix(""), ignore_errors=True)
            note.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"another build uses {self._root}; waiting for it to end")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _ordered(targets: Sequence[Step]) -> list[Step]:
    """Every step once, behind those that it needs."""
    found: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.name not in found:
            for need in step.needs:
                visit(need)
            found[step.name] = step

    for target in targets:
        visit(target)
    return list(found.values())


def _source_digest(make: Callable[[Bench], None]) -> str:
    """The digest of the module that a recipe is written in."""
    function = make
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    source = inspect.getsourcefile(function)
    if source is None:
        raise BuildError(f"{make!r} has no source")
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def files_below(top: Path, name: str = "", suffixes: tuple[str, ...] = ()) -> dict[str, Path]:
    """Files below a folder, by names that begin with `name`; no bytecode and no dot files."""
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(f for f in folders if f != "__pycache__" and f[0] != ".")
        inner = Path(folder).relative_to(top)
        for file in sorted(files):
            if file.endswith((".pyc", "~")) or file[0] == ".":
                continue
            if not suffixes or file.endswith(suffixes):
                found[str(Path(name) / inner / file)] = Path(folder) / file
    return found


def site_below(top: Path, name: str) -> dict[str, Path]:
    """Files of a site, by names that begin with `name`: what `appliance.http.walk` serves.

    And what the site is made with (names with `_`). `.well-known` is no dot file at the top, and a
    link is what it leads to, unless that is hidden or no part of the site.
    """
    real = top.resolve()

    def is_part(path: Path) -> bool:
        if not path.is_symlink():
            return True
        try:
            inner = path.resolve(strict=True).relative_to(real)
        except (OSError, RuntimeError, ValueError):
            return False
        return not any(part.startswith((".", "_")) for part in inner.parts)

    def below(folder: Path, prefix: str, above: frozenset[Path]) -> Iterator[tuple[str, Path]]:
        for path in sorted(folder.iterdir()):
            hidden = path.name[0] == "." and not (path.name == ".well-known" and folder == top)
            if hidden or not is_part(path):
                continue
            if path.is_file():
                yield f"{prefix}/{path.name}", path
            elif path.is_dir() and path.resolve() not in above:
                yield from below(path, f"{prefix}/{path.name}", above | {path.resolve()})

    return dict(below(top, name, frozenset({real}))) if top.is_dir() else {}


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(top: Path) -> str:
    """The SHA-256 of everything below a folder: names, kinds, who may execute, contents."""
    digest = hashlib.sha256()
    for path in sorted(top.rglob("*")):
        about = path.lstat()
        if stat.S_ISLNK(about.st_mode):
            content = os.readlink(path)
        else:
            content = file_digest(path) if stat.S_ISREG(about.st_mode) else ""
        kind = stat.S_IFMT(about.st_mode) | (about.st_mode & 0o100)
        digest.update(f"{path.relative_to(top)}\0{kind:o}\0{content}\n".encode())
    return digest.hexdigest()


class _Digests:
    """Digests of files, remembered while size, times and inode stay as they were."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        try:
            self._known = json.loads(path.read_text())
        except (OSError, ValueError):
            pass  # only a memory: without it everything is read once more

    def of(self, path: Path) -> str:
        """The SHA-256 of a file; raises BuildError when it cannot be read."""
        try:
            about = path.stat()
            stamp = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
            known = self._known.get(str(path))
            if known is not None and known[:4] == stamp:
                digest: str = known[4]
                return digest
            digest = file_digest(path)
        except OSError as exc:
            raise BuildError(f"{path}: {exc.strerror}") from exc
        if time.time_ns() - about.st_ctime_ns > RACY:
            self._known[str(path)] = [*stamp, digest]
            self._changed = True
        return digest

    def save(self) -> None:
        """Write down what is known."""
        if self._changed:
            _write(self._path, self._known)


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # What a power cut takes is made again.
    write_whole(path, json.dumps(value, separators=(",", ":")).encode(), durable=False)
