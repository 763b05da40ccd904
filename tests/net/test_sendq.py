"""The send queue, against plain bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.sendq import VIEW_ABOVE, SendQueue

START = (1 << 32) - 3


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=10), st.data())
def test_any_slice_of_what_is_held(chunks: list[bytes], data: st.DataObject) -> None:
    queue, model, gone = SendQueue(START), b"", 0
    for chunk in chunks:
        queue.append(data.draw(st.sampled_from([bytes, memoryview]))(chunk))
        model += chunk
        assert queue.end == START + len(model)
        at = data.draw(st.integers(gone, len(model) - 1))
        length = data.draw(st.integers(1, len(model) - at))
        assert bytes(queue.slice(START + at, length)) == model[at : at + length]
        gone = data.draw(st.integers(gone, len(model) - 1))
        queue.acknowledge(START + gone)
        assert len(queue) == len(model) - gone
        assert queue.start == START + gone
        assert bytes(queue.slice(START + gone, len(queue))) == model[gone:]


def test_acknowledged_to_the_end_and_beyond() -> None:
    """The FIN has a number too, and no octet."""
    queue = SendQueue(10)
    queue.append(b"abc")
    queue.acknowledge(14)
    assert len(queue) == 0
    queue.append(b"def")
    assert bytes(queue.slice(13, 3)) == b"def"


def test_whole_objects_are_not_copied() -> None:
    queue = SendQueue(0)
    whole = bytes(5000)
    queue.append(whole)
    assert queue.slice(0, 5000) is whole


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_large_slices_are_views_and_small_ones_are_not(kind: type) -> None:
    """A view costs more to send and nothing to make; a small copy is cheaper."""
    queue = SendQueue(0)
    queue.append(kind(bytes(4 * VIEW_ABOVE)))
    assert isinstance(queue.slice(10, VIEW_ABOVE + 1), memoryview)
    assert isinstance(queue.slice(10, VIEW_ABOVE), bytes)


def test_slices_from_the_middle_of_many() -> None:
    queue = SendQueue(0)
    for n in range(100):
        queue.append(b"%02d" % n)
    assert queue.slice(100, 6) == b"505152"
    assert queue.slice(101, 2) == b"05"
    assert queue.slice(198, 2) == b"99"
