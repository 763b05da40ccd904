"""`python -m bench` beside nginx and NSD: short rounds, whole results, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.lab import run
from tests.interop.conftest import ENVIRONMENT, ROOT, require

TOOLS = ("nginx", "nsd", "wrk", "dnsperf", "curl", "taskset", "sysctl")


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the benchmark as `make bench` does."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "--rounds", "1", *arguments],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_rows_and_json(tmp_path: Path) -> None:
    """The answers agree with the peers', and each row says what its readers rely on."""
    require(*TOOLS)
    target = tmp_path / "out.json"
    with start(
        "--seconds", "1", "--json", str(target), "dns-mixed", "http-conn", "upload-1g"
    ) as process:
        table, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "dns-mixed" in table
    rows = json.loads(target.read_text())
    assert [(row["row"], row["peer_name"]) for row in rows] == [
        ("dns-mixed", "nsd"),
        ("http-conn", "nginx"),
        ("upload-1g", "kernel"),
    ]
    for row in rows:
        assert len(row["rounds"]) == 1
        assert row["ours"] == row["rounds"][0]["ours"] > 0
        assert row["ratio"] == row["ours"] / row["peer"]
        assert row["cpu_us_ours"] > 0
        assert row["cpu_us_peer"] > 0
        assert row["unit"]


def test_interrupted_it_leaves_nothing() -> None:
    require(*TOOLS)
    with start("--seconds", "60", "http-1k-c1") as process:
        assert process.stderr is not None
        name = f"appliance-{process.pid}-client"
        while name not in run("ip", "netns"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "taken down" in errors
    assert f"appliance-{process.pid}-" not in run("ip", "netns")


def test_unknown_row_is_refused_with_the_names() -> None:
    with start("http-2k") as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "no row http-2k" in errors
    assert "http-1k-c32" in errors
