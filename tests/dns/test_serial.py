"""Serial arithmetic and differences between versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import Zone, names
from appliance.dns.serial import (
    Record,
    difference,
    is_newer,
    is_same_content,
    records,
    serial_of,
    soa_record,
    successor,
    with_serial,
)

TOP = (1 << 32) - 1


@pytest.mark.parametrize(
    ("serial", "than", "newer"),
    [(1, 0, True), (0, 1, False), (5, 5, False), (0, TOP, True), (TOP, 0, False),
     (1 << 31, 0, False), (0, 1 << 31, False), ((1 << 31) - 1, 0, True)],
)  # fmt: skip
def test_rfc1982_3_2_comparison(serial: int, than: int, newer: bool) -> None:
    """RFC 1982 §3.2."""
    assert is_newer(serial, than) is newer


@given(st.integers(0, TOP), st.integers(20260101, 20991231))
def test_the_next_serial_is_newer(serial: int, today: int) -> None:
    following = successor(serial, today)
    assert 0 <= following <= TOP
    if serial // 100 < today:
        assert is_newer(following, serial)


@pytest.mark.parametrize(
    ("serial", "following"),
    [
        (41, 42),
        (2026010101, 2026011700),
        (2026011705, 2026011706),
        (2026011799, 2026011800),
        (2027010100, 2027010101),
        (1768600000, 1768600001),
        (2026139901, 2026139902),
        (TOP, 0),
    ],
)
def test_the_zones_convention_is_kept(serial: int, following: int) -> None:
    """RFC 1912 §2.2: dates stay dates."""
    assert successor(serial, 20260117) == following


def version(serial: int, *lines: str, minimum: int = 300) -> Zone:
    head = f"$ORIGIN x.test.\n$TTL 60\n@ SOA a. b. {serial} 7200 1800 1209600 {minimum}\n@ NS a.\n"
    return Zone.from_text(head + "\n".join(lines) + "\n")


def apply(zone: Zone, removed: tuple[Record, ...], added: tuple[Record, ...]) -> set[Record]:
    def fold(record: Record) -> Record:
        return record[0].lower(), *record[1:]

    have = {fold(record) for record in records(zone)}
    gone = {fold(record) for record in removed}
    assert gone <= have
    return (have - gone) | {fold(record) for record in added}


LINE = st.builds(
    lambda name, ttl, number: f"{name} {ttl} A 192.0.2.{number}",
    st.sampled_from(["a", "b", "B", "c.d"]),
    st.sampled_from([60, 90]),
    st.integers(1, 4),
)


@given(st.lists(LINE, max_size=8), st.lists(LINE, max_size=8))
def test_a_difference_leads_from_one_version_to_the_next(
    before: list[str], after: list[str]
) -> None:
    old, new = version(1, *before), version(2, *after)
    change = difference(old, new)
    wanted = {(record[0].lower(), *record[1:]) for record in records(new)}
    assert apply(old, change.removed, change.added) == wanted
    assert (change.old_serial, change.new_serial) == (1, 2)
    assert not (set(change.removed) & set(change.added))


def test_same_content() -> None:
    one = version(1, "a A 192.0.2.1")
    assert is_same_content(difference(one, version(7, "a A 192.0.2.1")))
    assert is_same_content(difference(one, version(1, "A A 192.0.2.1")))
    assert not is_same_content(difference(one, version(7, "a A 192.0.2.2")))
    assert not is_same_content(difference(one, version(7, "a 61 A 192.0.2.1")))
    assert not is_same_content(difference(one, version(7, "a A 192.0.2.1", minimum=301)))


def test_the_serial_in_an_soa() -> None:
    zone = version(77)
    rdata = soa_record(zone)[3]
    assert zone.serial == serial_of(rdata) == 77
    changed = with_serial(rdata, 78)
    assert serial_of(changed) == 78
    assert changed[-16:] == rdata[-16:]
    assert changed.startswith(names.from_text("a.") + names.from_text("b."))
