"""Namespaces with a tap, and the appliance on it, for tests against other people's programs.

Skipped with the reason where root or a program is missing; on CI a missing one is a failure.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench import lab, material
from bench.lab import Namespace, Server

ROOT = Path(__file__).parents[2]
OURS, KERNEL, KERNEL_TOO = "10.78.1.2", "10.78.1.1", "10.78.1.9"
TAP = "tap0"
PEER = Path(__file__).with_name("peer.py")
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.interop)


def require(*programs: str) -> None:
    """Skip, or fail on CI, when the laboratory cannot open with these programs."""
    if reason := lab.missing(["ip", *programs]):
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@dataclass
class House:
    """A running appliance, the namespace around it, and what it serves."""

    space: Namespace
    server: Server
    started: float  # seconds until the banner was out
    pages: dict[str, material.Page] = field(default_factory=dict)

    def peer(self, command: str, *arguments: str, timeout: float = 60.0) -> Any:
        """Run a command of `peer.py` beside the appliance and return its result."""
        return json.loads(
            self.space.run(
                sys.executable, str(PEER), command, OURS, *arguments, timeout=timeout
            ).splitlines()[-1]
        )

    def curl(self, *arguments: str) -> str:
        """Run curl beside the appliance and return what it prints."""
        return self.space.run("curl", "--silent", "--show-error", "--max-time", "30", *arguments)

    def dig(self, *arguments: str) -> str:
        """Run dig beside the appliance and return what it prints."""
        return self.space.run("dig", f"@{OURS}", "+tries=1", "+time=5", *arguments)


@contextmanager
def tap_namespace(suffix: str) -> Iterator[Namespace]:
    """Open a namespace with a tap whose kernel side has two addresses."""
    with lab.namespace(suffix) as space:
        space.tap(TAP, f"{KERNEL}/24")
        space.address(TAP, f"{KERNEL_TOO}/24")
        yield space


@contextmanager
def appliance(space: Namespace, folder: Path, *arguments: str) -> Iterator[House]:
    """Run `appliance serve` in a namespace until it has said what it serves."""
    command = [sys.executable, "-m", "appliance", "serve", *arguments]
    began = time.monotonic()
    with lab.serve("appliance", space.command(*command), folder, env=ENVIRONMENT) as server:
        server.wait(lambda: "http://" in server.words(), 30)
        yield House(space, server, time.monotonic() - began)


@contextmanager
def on_tap(space: Namespace, folder: Path, *arguments: str) -> Iterator[House]:
    """Run the appliance on the namespace's tap."""
    link = ("--link", f"tap:{TAP}", "--address", f"{OURS}/24", "--gateway", KERNEL)
    with appliance(space, folder, *link, *arguments) as house:
        yield house


def write_house(folder: Path) -> tuple[list[str], dict[str, material.Page]]:
    """Write a site with files of 1 KB to 100 MB and a zone; return the arguments for them."""
    site, zones = folder / "site", folder / "zones"
    site.mkdir()
    zones.mkdir()
    (site / "index.md").write_text("---\ntitle: Interop\n---\n\nA page for *machines*.\n")
    sizes = {"1k.txt": 1_000, "100k.bin": 100_000, "10m.bin": 10_000_000, "100m.bin": 100_000_000}
    pages = {name: material.write_page(site, name, size) for name, size in sizes.items()}
    material.write_zone(zones)
    settings = material.write_settings(folder)
    return ["-c", str(settings), "--site", str(site), "--zones", str(zones)], pages


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An appliance on a tap with the files of `write_house`, shared by the tests of a module."""
    require("curl", "dig", "ping")
    folder = tmp_path_factory.mktemp("house")
    arguments, pages = write_house(folder)
    with ExitStack() as stack:
        space = stack.enter_context(tap_namespace("tap"))
        made = stack.enter_context(on_tap(space, folder, *arguments))
        made.pages = pages
        yield made
        assert made.server.process.poll() is None, made.server.words()
        assert "Traceback" not in made.server.words()
