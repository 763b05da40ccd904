"""What a secondary finds on the disk, whenever it was killed: a version that it had, and no mix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.dns import Zone, copies
from appliance.dns.copies import Copy
from appliance.dns.serial import difference
from tests.dns.test_copies import NAME, content, version

CALLS = ("open", "pwrite", "ftruncate", "fsync", "fdatasync", "replace", "unlink", "utime", "mkdir")
"""Where the system is asked to change something on the disk, or to have changed it."""


State = tuple[tuple[str, bytes], ...]
"""What a folder has."""


class Moments:
    """The states of a folder before and after each call to the system."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.states: dict[State, None] = {}
        self._patch = patch
        self._taking = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self._patch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._with_moments(name))
            yield

    def _with_moments(self, name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def called(*args: Any, **more: Any) -> Any:
            if self._taking:
                return call(*args, **more)
            self._take()
            if name == "pwrite":
                descriptor, data, at = args
                call(descriptor, data[: len(data) // 2], at)  # torn
                self._take()
            result = call(*args, **more)
            self._take()
            return result

        return called

    def _take(self) -> None:
        self._taking = True
        if self.folder.exists():
            files = sorted(self.folder.iterdir())
            self.states[tuple((file.name, file.read_bytes()) for file in files)] = None
        self._taking = False

    def found(self, folder: Path) -> Iterator[Zone | None]:
        """What a process finds that begins at each moment, and what the next one finds then."""
        for number, state in enumerate(self.states):
            later = folder / str(number)
            later.mkdir(parents=True)
            for name, data in state:
                (later / name).write_bytes(data)
            for _ in range(2):
                copy = Copy(later, NAME)
                found = copy.load()
                yield None if found is None else found.zone
                if found is not None and found.changes:
                    assert found.changes[-1].new_serial == found.zone.serial
            self._go_on(copy, later, None if found is None else found.zone)

    def _go_on(self, copy: Copy, folder: Path, zone: Zone | None) -> None:
        """What comes next is kept as if nothing had happened."""
        if zone is None:
            zone = version(1)
            copy.save(zone)
        following = version(zone.serial + 1, "later A 192.0.2.1")
        change = difference(zone, following)
        copy.save(following, (change,))
        found = Copy(folder, NAME).load()
        assert found is not None
        assert content(found.zone) == content(following)
        assert not found.changes or found.changes[-1] == change


def steps() -> Iterator[tuple[Zone, bool]]:
    """Versions, and whether each comes as a difference."""
    bulk = " ".join(f'"{"x" * 250}"' for _ in range(4))
    yield version(1, *(f"h{n} A 10.0.0.{n}" for n in range(20))), False
    yield version(2, "one A 192.0.2.1"), True
    yield version(3, "two A 192.0.2.1", "One A 192.0.2.1"), True
    yield version(9, "nine A 192.0.2.1"), False
    yield version(10, "ten A 192.0.2.1"), True
    # So much that the file is written anew.
    yield version(11, *(f"t{n} TXT {bulk}" for n in range(4))), True
    yield version(12, "twelve A 192.0.2.1"), True
    yield version(13, *(f"t{n} TXT {bulk}" for n in range(4))), True
    yield version(14), True


def test_a_crash_at_any_moment_leaves_a_version_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was kept, or the one that was to be kept; from which everything goes on."""
    monkeypatch.setattr(copies, "LEAST", 5000)
    folder = tmp_path / "copies"
    copy = Copy(folder, NAME)
    before: Zone | None = None
    written = []
    for number, (zone, follows) in enumerate(steps()):
        moments = Moments(folder, monkeypatch)
        changes = (difference(before, zone),) if follows and before is not None else ()
        with moments.watching():
            copy.save(zone, changes)
        wanted = [None if one is None else content(one) for one in (before, zone)]
        found = list(moments.found(tmp_path / str(number)))
        assert len(found) >= 6
        for one in found:
            assert (None if one is None else content(one)) in wanted
        last = Copy(folder, NAME).load()
        assert last is not None
        assert content(last.zone) == content(zone)
        written.append(len((folder / "x.test.zone").read_bytes()))
        before = zone
    assert len(set(written)) == 4  # with and without a whole file
