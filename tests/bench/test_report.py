"""The benchmark's arithmetic and its table."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from bench import load, material, report
from bench.lab import LabError
from bench.rows import Result, Round


def result() -> Result:
    rounds = [Round(80, 100, 9, 10), Round(120, 90, 11, 12), Round(90, 110, 10, 11)]
    return Result("http-1k-c32", "nginx", "requests/s", rounds)


def test_ratio_is_of_the_medians() -> None:
    assert result().median("ours") == 90
    assert result().ratio == 90 / 100
    assert result().spread("ours") == (120 - 80) / 90


def test_table_has_the_row_and_its_ratio() -> None:
    lines = report.table([result()]).splitlines()
    row = next(line for line in lines if line.startswith("http-1k-c32"))
    assert row.split() == [
        *("http-1k-c32", "requests/s", "90.0", "44%", "100", "20%", "0.90", "10.0", "11.0"),
        *("-", "-", "nginx"),
    ]


def test_latency_and_whatever_else_was_measured_are_told() -> None:
    rounds = [
        Round(80, 100, 9, 10, 700, 800, {"memory, MB": (1.0, 2.0)}),
        Round(80, 100, 9, 10, 900, 800, {"memory, MB": (3.0, 2.0)}),
    ]
    table = report.table([Result("syn-flood", "nginx", "%", rounds)])
    assert "800  nginx" in table
    assert "syn-flood also: memory, MB 2.0 against 2.0" in table


def test_a_peer_of_nought_has_no_ratio(tmp_path: Path) -> None:
    result = Result("churn", "nginx", "MB left", [Round(8.0, 0.0, 1, 1)])
    assert " -  " in report.table([result])
    report.write_json([result], tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())[0]["ratio"] is None


def test_json_has_every_round(tmp_path: Path) -> None:
    report.write_json([result()], tmp_path / "out.json")
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["rounds"][1] == {
        "ours": 120,
        "peer": 90,
        "cpu_us_ours": 11,
        "cpu_us_peer": 12,
        "p99_us_ours": 0,
        "p99_us_peer": 0,
        "more": {},
    }
    assert (row["row"], row["peer_name"], row["ratio"]) == ("http-1k-c32", "nginx", 0.9)


def test_a_report_without_its_figure_is_an_error() -> None:
    with pytest.raises(LabError, match="no "):
        load.figure(r"^Requests/sec:\s+([\d.]+)", "unable to connect")


@pytest.mark.parametrize(
    ("words", "micros"), [("812.00us", 812), ("4.41ms", 4410), ("1.2s", 1.2e6)]
)
def test_percentile_in_each_of_its_units(words: str, micros: float) -> None:
    report = f"  Latency Distribution\n     50%  1.00ms\n     99%    {words}\n  9 requests in 1s\n"
    assert load.percentile(report) == pytest.approx(micros)
    with pytest.raises(LabError, match="percentile"):
        load.percentile("     90%   1ms")


def test_queries_are_the_same_in_every_run_and_of_every_kind() -> None:
    first = material.queries()
    assert first == material.queries()
    assert len(first) == 20_000
    for kind in ("host", "alias", ".wild.", "absent", ".child"):
        assert any(kind in name for name, _ in first)


@pytest.mark.parametrize("length", [0, 1_000, 2_500_001])
def test_pages_have_the_length_and_hash_that_are_told(tmp_path: Path, length: int) -> None:
    page = material.write_page(tmp_path, "page.bin", length)
    body = (tmp_path / "page.bin").read_bytes()
    assert (len(body), page.length) == (length, length)
    assert hashlib.sha256(body).hexdigest() == page.sha256
