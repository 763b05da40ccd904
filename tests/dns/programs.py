"""NSD, Knot and BIND beside ours: how each is told where it works, whom it trusts, what it has."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.dns import key

SECRET = b"0123456789abcdef0123456789abcdef"
TEXT = base64.b64encode(SECRET).decode()
KEY = key("xfr.example.", "hmac-sha256", SECRET)
"""The key of all transfers between them and us."""


def installed(program: str) -> None:
    """Skip the test when there is no such program; fail it where all must be there."""
    if shutil.which(program) is None:
        told = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        told(f"{program} is not installed")


def folder(path: Path) -> Path:
    """A folder below `path` for a program that may give up being root."""
    directory = path / "other"
    for one in (directory, directory / "db"):
        one.mkdir()
    for one in (path, directory, directory / "db"):
        one.chmod(0o777)
    return directory


def nsd(directory: Path, port: int, rest: str, server: str = "") -> list[str]:
    """The command that runs NSD with KEY; `rest` begins with its zones, `server` are more lines
    of that clause.
    """
    (directory / "nsd.conf").write_text(
        f"""server:
  ip-address: 127.0.0.1@{port}
  username: ""
  zonesdir: "{directory}"
  pidfile: "{directory}/pid"
  database: ""
  zonelistfile: "{directory}/list"
  xfrdfile: "{directory}/xfrd"
  xfrdir: "{directory}"
{server}remote-control:
  control-enable: no
key:
  name: "xfr.example"
  algorithm: hmac-sha256
  secret: "{TEXT}"
{rest}"""
    )
    return ["nsd", "-d", "-c", f"{directory}/nsd.conf"]


def knot(
    directory: Path, port: int, rest: str, *, server: str = "", template: str = "", ours: int = 0
) -> list[str]:
    """The command that runs Knot; with `ours`, a port, KEY and that remote come along, and the
    access rule `told`, which lets it tell of changes and take zones.
    """
    remote = f"""key:
  - id: xfr.example
    algorithm: hmac-sha256
    secret: {TEXT}
remote:
  - id: ours
    address: 127.0.0.1@{ours}
    key: xfr.example
acl:
  - id: told
    address: 127.0.0.1
    key: xfr.example
    action: [notify, transfer]
"""
    (directory / "knot.conf").write_text(
        f"""server:
  listen: 127.0.0.1@{port}
  rundir: {directory}
{server}database:
  storage: {directory}/db
{remote if ours else ""}template:
  - id: default
    storage: {directory}
{template}{rest}"""
    )
    return ["knotd", "-c", f"{directory}/knot.conf"]


def bind(
    directory: Path, port: int, rest: str, *, options: str = "", transport: str = ""
) -> list[str]:
    """The command that runs BIND with KEY; `options` are more of these, `transport` is said
    after the port on which it listens.
    """
    (directory / "named.conf").write_text(
        f"""options {{
  directory "{directory}"; pid-file none; session-keyfile none; recursion no;
  listen-on port {port} {transport}{{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  dnssec-validation no; {options}
}};
controls {{}};
key "xfr.example" {{ algorithm hmac-sha256; secret "{TEXT}"; }};
{rest}"""
    )
    return ["named", "-g", "-c", f"{directory}/named.conf"]


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program, until it has ended; what it says goes to `log`."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "TZ": "UTC"}
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def run(scenario: Callable[[], Coroutine[Any, Any, None]], log: Path) -> None:
    """Run a scenario; if it fails, show what the program said."""
    try:
        asyncio.run(scenario())
    except BaseException:
        print(log.read_text()[-8000:])  # noqa: T201
        raise
