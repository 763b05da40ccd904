"""An interrupted build leaves no program running, and says so in a line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.image import lock as locks
from tests.image.machines import ROOT

MAKE = """#!/bin/sh
# A make as it is in the middle of a kernel: what it started has started something.
case "$*" in *vmlinux*) ;; *) touch .config; exit 0 ;; esac
sh -c 'sleep 600 & echo $! > "$NOTE.new"; mv "$NOTE.new" "$NOTE"; wait'
"""
SETTINGS = """[site]
directory = "site"
[dns]
zones = "zones"
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose kernel is to be compiled, by a make that does not end."""
    (tmp_path / "site").mkdir()
    (tmp_path / "zones").mkdir()
    (tmp_path / "site" / "index.md").write_text("hello\n")
    (tmp_path / "appliance.toml").write_text(SETTINGS)
    (tmp_path / "linux-source-1").mkdir()
    (tmp_path / "linux-source-1" / ".configured").touch()
    source = tmp_path / "source.tar.xz"
    subprocess.run(["tar", "-cf", source, "linux-source-1"], cwd=tmp_path, check=True)
    shutil.rmtree(tmp_path / "linux-source-1")
    locks.write(
        tmp_path / "appliance.lock",
        locks.Lock(
            "qemu",
            {"kind": "own", "source": str(source)},
            locks.python_facts(),
            locks.package_facts(),
            {},
        ),
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "make").write_text(MAKE.replace("$NOTE", str(tmp_path / "pid")))
    (tmp_path / "bin" / "make").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_outlives_an_interrupted_build(project: Path, number: signal.Signals) -> None:
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    # What is ignored here, as below nohup, would be ignored there.
    before = signal.signal(number, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, "-m", "appliance", "build"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as build:
        signal.signal(number, before)
        note = project / "pid"
        until = time.monotonic() + 60
        while not note.exists() and build.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if not note.exists():
            build.kill()
        told = "" if note.exists() else build.communicate()[0]
        assert note.exists(), told
        grandchild = int(note.read_text())
        assert alive(grandchild)
        try:
            build.send_signal(number)
            told, _ = build.communicate(timeout=60)
            assert not alive(grandchild)
        finally:
            if alive(grandchild):
                os.kill(grandchild, signal.SIGKILL)
        assert build.returncode == 128 + number
        assert "Traceback" not in told
        assert told.splitlines()[-1] == (
            "appliance: interrupted; the next appliance build goes on where this one was"
        )
