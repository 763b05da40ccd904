"""`appliance trace` by hand: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.net.errors import LinkError
from appliance.trace.record import TraceFile
from tests.trace.scene import transfer


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "a.trace"
    path.write_text(transfer(50_000, connections=2)[0])
    return path


def test_a_picture_beside_the_file(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(trace)]) == 0
    assert trace.with_name("a.trace.svg").read_text().startswith("<svg")
    assert "connection 1" in capsys.readouterr().out


def test_a_page_of_all(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "all.html"
    assert main(["trace", str(trace), "-o", str(target)]) == 0
    assert target.read_text().count("<svg") == 2
    assert "and 1 more" in capsys.readouterr().out


def test_one_by_its_number_and_a_part_of_it(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "b.svg"
    words = ["trace", str(trace), "--connection", "2", "--to", "0.2", "-o", str(target)]
    assert main(words) == 0
    assert "TCP connection 2" in target.read_text()
    assert main(["trace", str(trace), "--from", "9000"]) == 2
    assert "nothing happened between 9000 and inf seconds" in capsys.readouterr().err


def test_list_and_text(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(trace), "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["trace", str(trace), "--text", "--connection", "2"]) == 0
    assert capsys.readouterr().out.startswith("2. 10.0.0.1:")
    assert not trace.with_name("a.trace.svg").exists()


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["--connection", "7"], 2, "no connection 7 in"),
        (["-o", "x.png"], 2, "x.png: a picture's name ends in .svg or .html"),
        (["-o", "/absent/x.svg"], 1, "/absent/x.svg: No such file or directory"),
    ],
)
def test_refusals(
    trace: Path,
    words: list[str],
    status: int,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["trace", str(trace), *words]) == status
    assert complaint in capsys.readouterr().err


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err


# ---- writing


def test_the_file_is_the_owner_s_and_has_a_bound(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "a.trace"
    file = TraceFile(path, warn=told.append, max_octets=100)
    assert path.stat().st_mode & 0o777 == 0o600
    file.trace._write("x" * 60 + "\n")
    file.trace._write("y" * 60 + "\n")
    file.trace._write("z\n")
    file.close()
    assert "y" not in path.read_text()
    assert path.read_text().endswith("x\n")
    assert told == [f"tracing to {path} has stopped: the file is full"]


def test_a_full_disk_stops_the_trace_alone(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    told: list[str] = []
    file = TraceFile(Path("/dev/full"), warn=told.append)
    file.trace._write("more\n")
    assert told == ["tracing to /dev/full has stopped: No space left on device"]


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot trace to"):
        TraceFile(tmp_path / "absent" / "a.trace", warn=lambda _: None)
    assert os.listdir(tmp_path) == []
