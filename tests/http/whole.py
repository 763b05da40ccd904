"""`appliance serve` as a process, for tests that have to see the whole of it."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.ports import free_port

PAGE = "---\ntitle: Home\n---\nWelcome. [About](/about)\n"
ZONE = "$ORIGIN example.org.\n$TTL 60\n@ SOA ns a 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n"


def material(folder: Path, settings: str) -> None:
    """Write a site, a zone and settings."""
    (folder / "site").mkdir()
    (folder / "site/index.md").write_text(PAGE)
    (folder / "zones").mkdir()
    (folder / "zones/example.org.zone").write_text(ZONE)
    (folder / "appliance.toml").write_text(settings)


class Lines(list[str]):
    """What was said so far; `until` reads on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__()
        self._process = process

    def until(self, word: str) -> str:
        """Read lines up to one with a word in it, and return that; fails after half a minute."""
        watchdog = threading.Timer(30, self._process.kill)
        watchdog.start()
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                self.append(line.rstrip())
                if word in line:
                    return line
        finally:
            watchdog.cancel()
        raise AssertionError(f"ended without {word!r}: {self}")


@contextlib.contextmanager
def appliance(folder: Path, *options: str) -> Iterator[Lines]:
    """Run `appliance serve` in a folder until the banner's last line; gives the lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "appliance", "serve", *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        lines = Lines(process)
        lines.until("Ctrl-C")
        yield lines
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def get(url: str) -> tuple[int, bytes, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def url_of(lines: list[str], word: str = "") -> str:
    found = next(line for line in lines if "http://" in line and word in line)
    match = re.search(r"http://[^ ]+", found)
    assert match is not None
    return match[0]


SETTINGS = """
[site]
title = "Example"
base_url = "http://example.org"
[tls]
port = 0
dot_port = 0
[metrics]
port = 9090
[gateway]
http = {}
dns = {}
metrics = {}
"""


def settings() -> str:
    begin = free_port()
    return SETTINGS.format(begin, begin + 10, begin + 20)
