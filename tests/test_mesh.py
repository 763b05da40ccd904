"""The sockets between workers: order, room, and what is too large for a letter."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from appliance.mesh import BATCH, LARGEST, WAITING, Mesh, Post, blob_of, file_of


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    made = Mesh(2)
    yield made
    made.close()


def test_frames_are_whole_and_in_order(mesh: Mesh) -> None:
    frames = [b"a" * 10, b"b" * 65_600, b"c"]
    assert all(mesh.pass_on(1, frame) for frame in frames)
    assert mesh.frames_for(1) == frames
    assert mesh.frames_for(1) == []
    assert mesh.frames_for(0) == []


def test_what_is_seen_is_shown_to_the_first(mesh: Mesh) -> None:
    """And what finds no room is not: frames that are on their way have channels of their own."""
    mesh.show(b"one", "a")
    mesh.show(b"two", "another")
    assert mesh.shown() == [(b"one", "a"), (b"two", "another")]
    for _ in range(10_000):
        mesh.show(bytes(60_000), "a")
    assert 2 < len(mesh.shown()) <= BATCH
    assert mesh.pass_on(0, b"three")
    assert mesh.frames_for(0) == [b"three"]


def test_a_full_channel_takes_no_frame(mesh: Mesh) -> None:
    """And has room again when somebody has read."""
    sent = 0
    while mesh.pass_on(0, bytes(60_000)):
        sent += 1
        assert sent < 10_000
    assert sent > 2
    assert len(mesh.frames_for(0)) == min(sent, BATCH)
    assert mesh.pass_on(0, bytes(60_000))


def test_letters_wait_for_room_in_their_order(mesh: Mesh) -> None:
    sender, reader = Post(mesh, 0), Post(mesh, 1)
    for number in range(3000):
        sender.send(1, "count", number, b"x" * 1000)
    assert not sender.flush()
    got: list[int] = []
    while len(got) < 3000:
        before = len(got)
        got += [words[1] for words, _ in reader.receive()]
        sender.flush()
        assert len(got) > before
    assert got == list(range(3000))
    assert sender.flush()


def test_a_reader_that_never_reads_is_told_of(mesh: Mesh) -> None:
    sender = Post(mesh, 0)
    number = 0
    while not sender.stuck:
        sender.send(1, "news", number, b"x" * 500)
        number += 1
        assert number < 3 * WAITING + 100_000
    assert sender.stuck == {1}
    assert number > WAITING


def test_what_is_large_comes_as_a_file(mesh: Mesh) -> None:
    """Also to several, each of whom reads it from its beginning; nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    sender, one, two = Post(mesh, 2), Post(mesh, 0), Post(mesh, 1)
    data = os.urandom(300_000)
    file = file_of(data)
    for to in (0, 1):
        sender.send(to, "prepare", 7, blob=file)
    sender.send(0, "also", blob=b"small")
    os.close(file)
    (words, fd), (also, small) = one.receive()
    assert words == ("prepare", 7)
    assert blob_of(fd) == data
    assert (also, blob_of(small)) == (("also",), b"small")
    ((_, fd),) = two.receive()
    assert blob_of(fd) == data
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_letter_has_a_bound(mesh: Mesh) -> None:
    with pytest.raises(ValueError, match="are a blob"):
        Post(mesh, 0).send(1, "much", bytes(LARGEST))
