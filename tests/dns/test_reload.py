"""What a reload leads to."""

from __future__ import annotations

from pathlib import Path

from appliance.dns import Zone, load_zones, reload
from appliance.dns.loading import LoadedZones

TODAY = 20260117


def text(serial: int, *lines: str) -> str:
    return (
        f"$TTL 60\n@ SOA a. b. {serial} 7200 1800 1209600 300\n@ NS a.\n" + "\n".join(lines) + "\n"
    )


def load(directory: Path, **zones: str) -> LoadedZones:
    for name, content in zones.items():
        (directory / f"{name}.test.zone").write_text(content)
    return load_zones(directory)


def serials(zones: tuple[Zone, ...]) -> dict[str, int]:
    return {zone.name: zone.serial for zone in zones}


def test_new_unchanged_and_changed_zones(tmp_path: Path) -> None:
    first = reload((), load(tmp_path, a=text(1), b=text(1)), TODAY)
    assert serials(first.news) == {"a.test.": 1, "b.test.": 1}
    assert first.changes == ()
    second = reload(first.zones, load(tmp_path, a=text(2, "x A 192.0.2.1"), c=text(1)), TODAY)
    assert serials(second.zones) == {"a.test.": 2, "b.test.": 1, "c.test.": 1}
    assert serials(second.news) == {"a.test.": 2, "c.test.": 1}
    (change,) = second.changes
    assert (change.old_serial, change.new_serial, len(change.added)) == (1, 2, 1)
    # What did not change is the very same object, so what was rendered for it may be kept.
    assert {zone.name: zone for zone in second.zones}["b.test."] is first.zones[1]
    assert second.problems == ()


def test_a_forgotten_serial_is_raised_by_the_zones_convention(tmp_path: Path) -> None:
    first = reload((), load(tmp_path, a=text(2026011601), b=text(7)), TODAY)
    loaded = load(tmp_path, a=text(2026011601, "x A 192.0.2.1"), b=text(6, "x A 192.0.2.1"))
    second = reload(first.zones, loaded, TODAY)
    assert serials(second.zones) == {"a.test.": 2026011700, "b.test.": 8}
    assert [problem.line for problem in second.problems] == [2, 2]
    assert "its serial 2026011601 is not newer than 2026011601" in second.problems[0].message
    assert [one.new_serial for one in second.changes] == [2026011700, 8]
    # The file still has the old one: nothing more is to be done.
    loaded = load(tmp_path)
    third = reload(second.zones, loaded, TODAY)
    assert serials(third.zones) == serials(second.zones)
    assert (third.changes, third.news, third.problems) == ((), (), ())


def test_a_serial_may_be_raised_for_its_own_sake(tmp_path: Path) -> None:
    first = reload((), load(tmp_path, a=text(1)), TODAY)
    second = reload(first.zones, load(tmp_path, a=text(9)), TODAY)
    assert serials(second.news) == {"a.test.": 9}


def test_a_zone_gone_bad_is_served_as_it_was_and_one_that_is_gone_is_not(tmp_path: Path) -> None:
    first = reload((), load(tmp_path, a=text(1), b=text(1), c=text(1)), TODAY)
    (tmp_path / "b.test.zone").unlink()
    loaded = load(tmp_path, a=text(2, "x A nonsense"))
    second = reload(first.zones, loaded, TODAY)
    assert serials(second.zones) == {"a.test.": 1, "c.test.": 1}
    assert [(problem.severity, problem.line) for problem in second.problems] == [
        ("error", 4),
        ("warning", 0),
    ]
    assert "is served as it was, with serial 1" in second.problems[1].message
    assert second.changes == second.news == ()
