"""Large files: read without waiting for the disk, shared, and never mixed with their successors."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from appliance.http import load_site
from appliance.http.largefile import (
    SLICE,
    ChangedError,
    FileSlice,
    Identity,
    LargeFile,
    Opened,
    Stretch,
    open_parts,
)
from tests.http.fakes import Client, FakeLoop, Reply, make_server
from tests.http.test_http2 import H2Client

OCTETS = os.urandom(5 * 1024 * 1024)


class ThreadLoop(FakeLoop):
    """Runs in place of a thread when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[tuple[asyncio.Future[bytes], object]] = []
        self._real = asyncio.new_event_loop()

    def run_in_executor(self, _pool: object, job: object) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = self._real.create_future()
        self.jobs.append((future, job))
        return future

    def work(self) -> None:
        future, job = self.jobs.pop(0)
        try:
            future.set_result(job())  # type: ignore[operator]
        except OSError as error:
            future.set_exception(error)
        self._real.run_until_complete(asyncio.sleep(0))

    def close(self) -> None:
        self._real.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(OCTETS)
    return path


def large(path: Path) -> LargeFile:
    return LargeFile(str(path), Identity.of(path.stat()))


def test_a_stretch_is_read_slice_by_slice(path: Path) -> None:
    (stretch,) = open_parts([FileSlice(large(path), 10, len(OCTETS) - 10)])
    assert isinstance(stretch, Stretch)
    found = []
    while stretch:
        assert stretch.at_hand()
        found.append(stretch.read())
    assert max(map(len, found)) == SLICE
    assert b"".join(found) == OCTETS[10:-10]


def test_downloads_share_a_descriptor_and_the_last_closes_it(path: Path) -> None:
    file = large(path)
    first, second = file.open(), file.open()
    assert first is second
    descriptor = first.descriptor
    del first, second
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("change", ["truncate", "grow", "rewrite"])
def test_a_change_in_place_is_noticed(path: Path, change: str) -> None:
    (stretch,) = open_parts([FileSlice(large(path), 0, len(OCTETS))])
    assert isinstance(stretch, Stretch)
    stretch.read()
    if change == "truncate":
        os.truncate(path, 1000)
    elif change == "grow":
        os.truncate(path, len(OCTETS) + 1)
    else:
        with path.open("r+b") as file:
            file.write(b"x")
        os.utime(path, ns=(1, 1))
    with pytest.raises(ChangedError):
        stretch.read()


def client_of(path: Path, loop: FakeLoop, kind: str) -> Client | H2Client:
    site = load_site(path.parent, theme=path.parent / "_theme").site
    if kind == "h2":
        client = H2Client(window=2**30)
        client.client.server.holder.current = site  # type: ignore[misc]
        client.client.server._loop = loop  # type: ignore[assignment]
        client.h2.increment_flow_control_window(2**30)
        client.exchange()
        return client
    return Client(make_server(site, loop=loop))


@pytest.mark.parametrize("kind", ["h1", "h2"])
def test_a_cold_file_is_read_by_a_thread(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = ThreadLoop()
    client = client_of(path, loop, kind)
    cold = [True]
    monkeypatch.setattr(Opened, "at_hand", lambda *_: not cold[0])
    if isinstance(client, H2Client):
        number = client.ask("/big.bin")
        client.exchange()
        assert client.bodies[number] == b""
        assert client.fetch("/")[0][":status"] == "404"  # others go on meanwhile
        loop.work()
        client.exchange()
        assert client.bodies[number] == OCTETS[:SLICE]
        cold[0] = False
        loop.work()
        client.exchange()
        assert client.bodies[number] == OCTETS
    else:
        client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        assert len(client.transport.sent) < 1000
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # asked while the disk is waited for
        loop.work()
        cold[0] = False
        loop.work()
        reply = Reply(bytes(client.transport.sent))
        assert reply.body == OCTETS
        assert reply.rest.startswith(b"HTTP/1.1 404")
    loop.close()


@pytest.mark.parametrize("kind", ["h1", "h2"])
def test_a_file_lost_while_a_thread_read_it_ends_the_answer(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = ThreadLoop()
    client = client_of(path, loop, kind)
    monkeypatch.setattr(Opened, "at_hand", lambda *_: False)
    if isinstance(client, H2Client):
        number = client.ask("/big.bin")
        client.exchange()
        os.truncate(path, 10)
        loop.work()
        client.exchange()
        assert client.resets[number] == 2  # INTERNAL_ERROR
        assert client.client.server.files_changed == 1
    else:
        client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        os.truncate(path, 10)
        loop.work()
        assert client.transport.aborted
        assert client.server.files_changed == 1
    loop.close()


def test_a_peer_that_leaves_while_a_thread_reads(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = ThreadLoop()
    client = client_of(path, loop, "h1")
    assert isinstance(client, Client)
    monkeypatch.setattr(Opened, "at_hand", lambda *_: False)
    client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
    client.transport.close()
    loop.work()
    loop.close()
