"""The same inputs give the same octets: an image built twice, in two folders, at two times.

    BUILD_TWICE=1 python -m pytest tests/image/test_twice.py

It takes a minute and a half, so it runs when it is asked for; the graph, the archive and the
bytecode have tests of their own that always run.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from tests.image import machines

EDIT, NOTHING = 15.0, 1.0
"""Seconds that a build may take after an edit of a page, and after none."""

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not os.environ.get("BUILD_TWICE"), reason="BUILD_TWICE=1 asks for it"),
]


def digests(image: Path) -> dict[str, str]:
    return {
        str(path.relative_to(image)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(image.rglob("*"))
        if path.is_file()
    }


def timed_build(folder: Path) -> float:
    began = time.monotonic()
    machines.appliance(folder, "build")
    return time.monotonic() - began


def test_two_builds_are_the_same_and_an_edit_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.require()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    first = digests(machines.build(tmp_path / "one"))
    second = digests(machines.build(tmp_path / "a" / "longer" / "place"))
    assert {"initramfs", "vmlinuz", "cold.squashfs", "content.pickle"} <= set(first)
    assert first == second
    page = tmp_path / "one" / "site" / "index.md"
    page.write_text(page.read_text() + "\nOne more line.\n")
    edited = timed_build(tmp_path / "one")
    again = timed_build(tmp_path / "one")
    after = digests(tmp_path / "one" / "build" / "image" / "qemu")
    assert [name for name in after if after[name] != first[name]] == ["content.pickle", "initramfs"]
    if not os.environ.get("CI"):  # a shared machine is no stop-watch
        assert edited < EDIT, again
        assert again < NOTHING, edited
