"""Content-coding negotiation by RFC 9110 §12.5.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http.coding import choose, weights

ALL = (b"br", b"gzip", b"")  # smallest first


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        (None, b""),  # no field: anything would do, identity is understood by all
        (b"", b""),  # an empty field: no content coding is wanted
        (b"gzip", b"gzip"),
        (b"GZip", b"gzip"),
        (b"x-gzip", b"gzip"),
        (b"gzip, br", b"br"),
        (b"br;q=0.5, gzip;q=0.8", b"gzip"),
        (b"gzip;q=0", b""),
        (b"gzip;q=0, br;q=0", b""),
        (b"gzip;q=0.000", b""),
        (b"gzip; q=0.001", b"gzip"),
        (b"*", b"br"),
        (b"*;q=0.1", b"br"),
        (b"br;q=0, *", b"gzip"),
        (b"identity", b""),
        (b"identity;q=0.5, gzip;q=0.4", b""),
        (b"identity;q=0.4, gzip;q=0.5", b"gzip"),
        (b"deflate, compress", b""),
        (b"gzip;q=0, identity;q=0", None),
        (b"identity;q=0", None),
        (b"identity;q=0, gzip", b"gzip"),
        (b"*;q=0", None),
        (b"*;q=0, gzip", b"gzip"),
        (b"*;q=0, identity", b""),
        (b"gzip;q=1.001", b""),  # more than 1 is malformed, and skipped
        (b"gzip;q=0.1234", b""),  # four decimals are too
        (b"gzip;level=9", b""),  # there is no such parameter
        (b", ,gzip,,", b"gzip"),
        (b"br;q=0.5, br;q=0", b""),  # the last word counts
    ],
)
def test_rfc9110_choice(field: bytes | None, wanted: bytes | None) -> None:
    """RFC 9110 §12.5.3, §12.4.2: q-values, `*`, identity, and malformed members."""
    index = choose(field, ALL)
    assert (ALL[index] if index >= 0 else None) == wanted


def test_rfc9110_one_representation_is_not_refused_by_mistake() -> None:
    """RFC 9110 §12.5.3: identity is sent unless it is refused, whatever else is asked for."""
    assert choose(b"gzip, br", (b"",)) == 0
    assert choose(b"gzip;q=1.0, br", (b"",)) == 0
    assert choose(b"identity;q=0", (b"",)) == -1


@given(st.binary(max_size=60))
def test_any_octets_give_a_choice(field: bytes) -> None:
    assert -1 <= choose(field, ALL) < len(ALL)
    assert all(0 <= weight <= 1000 for weight in weights(field).values())


def _oracle(asked: dict[str, int], star: int | None) -> set[bytes | None]:
    """The text of RFC 9110 §12.5.3 written out naively: every answer that is right."""
    quality: dict[bytes, int] = {}
    for coding in ALL:
        name = coding.decode() or "identity"
        if name in asked:
            quality[coding] = asked[name]
        elif star is not None:
            # "*" matches any coding not named, and identity with it when it refuses.
            if coding or star == 0:
                quality[coding] = star
            else:
                quality[coding] = -1  # acceptable, below all that was asked for
        else:
            quality[coding] = 0 if coding else -1
    positive = {coding: q for coding, q in quality.items() if q > 0}
    if positive:
        best = max(positive.values())
        return {next(coding for coding in ALL if positive.get(coding) == best)}
    return {b""} if quality[b""] == -1 else {None}


@given(
    st.dictionaries(st.sampled_from(["br", "gzip", "identity", "zstd"]), st.integers(0, 1000)),
    st.none() | st.integers(0, 1000),
)
def test_rfc9110_choice_against_a_naive_reading(asked: dict[str, int], star: int | None) -> None:
    """RFC 9110 §12.5.3: the same choice as its rules taken one by one."""
    members = [f"{name};q={q / 1000:.3f}" for name, q in asked.items()]
    if star is not None:
        members.append(f"*;q={star / 1000:.3f}")
    index = choose(", ".join(members).encode(), ALL)
    assert (ALL[index] if index >= 0 else None) in _oracle(asked, star)
