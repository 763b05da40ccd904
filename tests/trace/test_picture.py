"""The picture: well-formed, standing alone, everything in its frame, nothing left out."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from appliance.trace import draw, picture, table
from appliance.trace.draw import Panel
from appliance.trace.flows import Connection, Event, read
from tests.trace.scene import transfer

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Connection:
    path = tmp_path_factory.mktemp("trace") / "a.trace"
    path.write_text(transfer(300_000)[0])
    return read(path)[0]


def test_it_stands_alone_in_light_and_dark(connection: Connection) -> None:
    for content in (picture.svg(connection), picture.html([connection])):
        assert not re.search(r"(?:href|src|url|@import)\s*[=(]", content)
        assert "<script" not in content
        assert "prefers-color-scheme:dark" in content
    ET.fromstring(picture.svg(connection))


def test_every_part_is_there(connection: Connection) -> None:
    root = ET.fromstring(picture.svg(connection))
    said = [text.text for text in root.iter(f"{SVG}text")]
    for words in ("Sequence numbers", "sent again", "SACK blocks", "the peer's window", "cwnd",
                  "ssthresh", "Round trips, ms", "srtt", "timeout"):  # fmt: skip
        assert words in said
    drawn = {path.get("class") for path in root.iter(f"{SVG}path")}
    assert {"s-blue", "s-orange", "s-green", "s-purple", "s-amber"} <= drawn
    assert any(rect.get("opacity") for rect in root.iter(f"{SVG}rect"))  # a repair


def test_nothing_lies_outside(connection: Connection) -> None:
    root = ET.fromstring(picture.svg(connection))
    for path in root.iter(f"{SVG}path"):
        d = path.get("d") or ""
        for x in re.findall(r"[ML]([\d.-]+) ", d) + re.findall(r"H([\d.-]+)", d):
            assert 0 <= float(x) <= picture.WIDTH, d[:80]
        for y in re.findall(r"V([\d.-]+)", d):
            assert 0 <= float(y) <= picture.HEIGHT, d[:80]


def test_each_segment_sent_again_has_its_dot(connection: Connection) -> None:
    root = ET.fromstring(picture.svg(connection))
    dots = [c for c in root.iter(f"{SVG}circle") if c.get("class") == "f-orange"]
    assert len(dots) == sum(1 for e in connection.events if e.sent and e.again and e.length)


def test_a_connection_of_one_segment_can_be_drawn() -> None:
    alone = Connection(1, "10.0.0.1:1", "10.0.0.2:2")
    alone.events = [Event(0.0, True, 0, 0, "S", None, 0, (), False)]
    ET.fromstring(picture.svg(alone))
    ET.fromstring(picture.svg(Connection(1, "a", "b")))


def test_names_are_escaped() -> None:
    odd = Connection(1, "<script>", "&")
    ET.fromstring(picture.svg(odd))
    assert "<script>" not in picture.html([odd])


def test_bars_of_one_column_are_joined_and_none_is_lost() -> None:
    panel = Panel(0, 0, 100, 100, (0, 100), (0, 100))
    d = panel.bars([(10, 0, 20), (10.1, 20, 40), (10.1, 60, 80), (50, 5, 5.1)], "blue", 1)
    assert re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", d) == [
        ("10", "20.0", "40.0"),
        ("10", "60.0", "100.0"),
        ("50", "94.9", "95.9"),
    ]


def test_a_line_of_many_points_stays_small_and_keeps_its_ends() -> None:
    panel = Panel(0, 0, 100, 100, (0, 1), (0, 1))
    d = panel.line([(n / 100_000, n / 100_000) for n in range(100_001)], "blue")
    assert d.count("L") < 400
    assert "M0.0 100.0" in d
    assert "L100.0 0.0" in d


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [(0, 10, 5, [0, 2, 4, 6, 8, 10]), (0.3, 1.1, 4, [0.4, 0.6, 0.8, 1.0]), (5, 5, 3, [5])],
)
def test_ticks_are_round(low: float, high: float, count: int, expected: list[float]) -> None:
    assert draw.ticks(low, high, count) == pytest.approx(expected)


def test_quantities() -> None:
    assert [draw.quantity(n) for n in (0, 950, 64_000, 1.5e6, 2e9)] == [
        "0", "950", "64 k", "1.5 M", "2 G",
    ]  # fmt: skip


def test_text_has_every_segment_and_state(connection: Connection) -> None:
    lines = list(table.lines(connection))
    assert len(lines) == 3 + len(connection.events) + len(connection.states) + 1
    assert sum("AGAIN" in line for line in lines) == connection.again()
    assert any("sack" in line for line in lines)
    overview = list(table.overview([connection]))
    assert len(overview) == 2
    assert "300 kB" in overview[1]


def test_wide_range(tmp_path: Path, connection: Connection) -> None:
    """A part of a connection has axes of its own."""
    root = ET.fromstring(picture.svg(connection.between(0.2, 0.4)))
    said = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert "200 ms" in said
    assert "400 ms" in said
    assert "0 s" not in said
