"""The page on testing: its scenario fails and passes as it says, its test file is one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "site" / "docs" / "testing.md").read_text()


def block(language: str) -> str:
    """The first example in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_scenario_fails_and_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "upload.toml"
    path.write_text(block("toml"))
    words = ["fuzz", "loopback", "--scenario", str(path)]
    assert main(words) == 1
    told = capsys.readouterr().out
    assert re.search(r"expect: it took \d+\.\d+ s, not 5\.0 s", told)
    assert "1 connections" in told
    path.write_text(block("toml").replace("loss = 0.02", "loss = 0.005"))
    assert main([*words, "--show"]) == 0
    told = capsys.readouterr().out
    assert "0 rules broken" in told
    assert told.count(" > ") > 1_000
    path.write_text(block("toml").replace("delay", "dealy"))
    assert main(words) == 2
    assert "link.dealy: no such key; did you mean delay?" in capsys.readouterr().err


def test_every_key_is_on_the_page() -> None:
    """A key that nobody hears of is not there."""
    import dataclasses

    from appliance.fuzz.application import End
    from appliance.fuzz.link import Link
    from appliance.fuzz.scenario import Expect, Flow, Machine, Scenario

    for kind in (Scenario, Machine, Link, Flow, End, Expect):
        for item in dataclasses.fields(kind):
            place = rf"(`|\[|\[client\.|\{{ |, ){item.name}\b"
            assert re.search(place, PAGE), f"{kind.__name__}.{item.name}"


def test_the_test_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "test_upload.py").write_text(block("python"))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    done = subprocess.run(
        words, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_programs_are_ones(tmp_path: Path) -> None:
    """They end, and say what happened."""
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1:]
    said = []
    for number, program in enumerate(programs):
        path = tmp_path / f"program{number}.py"
        path.write_text(program)
        words = [sys.executable, str(path)]
        done = subprocess.run(
            words, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert re.fullmatch(r"300000 octets in \d+\.\d\d s, \d+ frames lost\n", said[0])
    told = re.fullmatch(r"50000 octets; (\d+) packets were too big, \d+ forwarded\n", said[1])
    assert told is not None
    assert int(told[1]) > 0
