"""The same protocol on asyncio's own transports, over the kernel's loopback."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.http import HttpProtocol, HttpServer, load_site
from tests.http.fakes import Holder, Reply, replies

BIG = bytes(range(251)) * 60_000  # 15 MB: past what the kernel buffers


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[HttpServer, int]]:
    server = HttpServer(Holder(load_site(directory, theme=directory / "_theme").site))
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: HttpProtocol(server), "127.0.0.1", 0)
    async with listener:
        yield server, listener.sockets[0].getsockname()[1]
        server.drain()
        async with asyncio.timeout(10):
            await server.drained()


async def exchange(port: int, octets: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.asyncio
async def test_downloads_pipelines_and_endings(tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(BIG)
    (tmp_path / "small.txt").write_text("small")
    big = b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n"
    small = b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serving(tmp_path) as (server, port), asyncio.timeout(60):
        answers = await asyncio.gather(
            *(exchange(port, big + small) for _ in range(4)),
            *(exchange(port, small * 50) for _ in range(10)),
            exchange(port, b"rubbish\n" * 100),
        )
        for answer in answers[:4]:
            first, second = replies(answer, "GET", "GET")
            assert hashlib.sha256(first.body).digest() == hashlib.sha256(BIG).digest()
            assert second.body == b"small"
        for answer in answers[4:14]:
            assert len(replies(answer, *["GET"] * 50)) == 50
        assert Reply(answers[14]).status == 400
        assert server.counters()["status_200"] == 8 + 500


@pytest.mark.asyncio
async def test_a_connection_left_open_is_closed_by_drain(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("small")
    async with serving(tmp_path) as (server, port), asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"small")
        server.drain()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
