"""Names in wire form (RFC 1035 §3.1, §5.1; RFC 4343), with dnspython as the judge."""

from __future__ import annotations

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import names
from appliance.dns.errors import LocalError, WireError

LABELS = st.lists(st.binary(min_size=1, max_size=20), max_size=8)


def wire(labels: list[bytes]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


@given(LABELS)
def test_text_and_back(labels: list[bytes]) -> None:
    name = wire(labels)
    text = names.to_text(name)
    assert names.from_text(text) == name
    assert dns.name.from_text(text, None).to_wire() == name
    assert names.labels(name) == labels


@given(LABELS, LABELS)
def test_is_below_is_what_dnspython_calls_a_subdomain(
    left: list[bytes], right: list[bytes]
) -> None:
    a, b = wire([label.lower() for label in left]), wire([label.lower() for label in right])
    expected = dns.name.Name([*left, b""]).is_subdomain(dns.name.Name([*right, b""]))
    assert names.is_below(a, b) == expected
    joined = a[:-1] + b
    assert names.is_below(joined, b)


def test_a_tail_of_octets_is_not_yet_a_parent() -> None:
    # A label that contains what looks like another name's labels.
    assert not names.is_below(b"\x05a\x03org\0", b"\x03org\0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("www", b"\x03www\x07example\0"),
        ("@", b"\x07example\0"),
        (".", b"\0"),
        ("WwW.Example.", b"\x03WwW\x07Example\0"),
        (r"a\.b", b"\x03a.b\x07example\0"),
        (r"\065\000.", b"\x02A\0\0"),
        (r"\@", b"\x01@\x07example\0"),
        (r"a\\.", b"\x02a\\\0"),
        ("*.x.", b"\x01*\x01x\0"),
    ],
)
def test_master_file_notation(text: str, expected: bytes) -> None:
    """RFC 1035 §5.1."""
    assert names.from_text(text, b"\x07example\0") == expected


@pytest.mark.parametrize(
    "text",
    ["", "a..b", ".a", "..", "x" * 64 + ".", r"\256.", r"\25", "a\\", ".".join(["x" * 63] * 4)],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(LocalError):
        names.from_text(text, names.ROOT)


def test_a_relative_name_needs_an_origin() -> None:
    with pytest.raises(LocalError, match="no origin"):
        names.from_text("www")


def test_the_longest_name_has_255_octets() -> None:
    """RFC 1035 §2.3.4."""
    label = "x" * 63
    longest = f"{label}.{label}.{label}.{'x' * 61}."
    assert len(names.from_text(longest)) == 255
    with pytest.raises(LocalError):
        names.from_text(f"{label}.{label}.{label}.{'x' * 62}.")


@given(st.binary(max_size=300), st.integers(0, 300))
def test_reading_raises_nothing_but_wire_error(data: bytes, at: int) -> None:
    for reader in (names.end_of, names.skip):
        try:
            end = reader(data, at)
        except WireError:
            continue
        assert at < end <= len(data) + 1


def test_end_of_takes_no_pointer_and_no_long_name() -> None:
    with pytest.raises(WireError):
        names.end_of(b"\xc0\x0c", 0)
    with pytest.raises(WireError):
        names.end_of(b"\x01x" * 127 + b"\x01x\0", 0)
    assert names.end_of(b"\x01x" * 127 + b"\0", 0) == 255
    with pytest.raises(WireError):
        names.end_of(b"\x40" + b"x" * 64 + b"\0", 0)


def test_skip_steps_over_a_pointer() -> None:
    assert names.skip(b"\x01x\xc0\x0crest", 0) == 4
    with pytest.raises(WireError):
        names.skip(b"\x80x", 0)
