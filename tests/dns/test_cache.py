"""A memory with bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.dns.cache import Generations


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=300))
def test_it_never_holds_more_than_its_bound_and_never_lies(steps: list[tuple[bool, int]]) -> None:
    cache: Generations[int, str] = Generations(10, 1000)
    for put, key in steps:
        if put:
            cache.put(key, str(key), 10)
        else:
            assert cache.get(key) in (None, str(key))
        assert len(cache) <= 10


def test_octets_are_bounded_too() -> None:
    cache: Generations[int, bytes] = Generations(1000, 1000)
    for key in range(100):
        cache.put(key, bytes(100), 100)
        assert len(cache) <= 12


def test_what_is_asked_for_survives_a_flood() -> None:
    cache: Generations[int, str] = Generations(100, 1 << 20)
    cache.put(-1, "kept", 1)
    for key in range(1000):
        cache.put(key, "flood", 1)
        assert cache.get(-1) == "kept"
    assert cache.get(0) is None
