"""The other end: clients on the kernel's sockets, run inside the namespace, one JSON line out.

    python peer.py COMMAND ARGUMENT…

Standard library only. The wall clock is used where the kernel's own TCP is the subject.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

_LIMIT = 30.0  # seconds that any one step may take
_MANY = 200


def _request(path: str, connection: str = "close") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n".encode()


def _body(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return {
        "status": int(head.split()[1]) if head.startswith(b"HTTP/1.1 ") else 0,
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }


def _connect(address: str, port: int = 80, source: str = "") -> socket.socket:
    return socket.create_connection((address, port), _LIMIT, (source, 0) if source else None)


def _rest(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


async def _fetch(address: str, path: str) -> dict[str, Any]:
    reader, writer = await asyncio.wait_for(asyncio.open_connection(address, 80), _LIMIT)
    writer.write(_request(path))
    answer = await asyncio.wait_for(reader.read(-1), _LIMIT)
    writer.close()
    await writer.wait_closed()
    return _body(answer)


def many(address: str, path: str) -> Any:
    """Fetch a page over many connections that are all open at once."""

    async def all_at_once() -> list[dict[str, Any]]:
        return await asyncio.gather(*(_fetch(address, path) for _ in range(_MANY)))

    return asyncio.run(all_at_once())


def slow(address: str, path: str, small: str) -> Any:
    """Read 10 KB/s for three seconds while others ask, then read the rest at once."""
    connection = _connect(address)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    connection.sendall(_request(path))
    pieces, waits = [], []
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        pieces.append(connection.recv(1_000))
        began = time.monotonic()
        with _connect(address) as other:
            other.sendall(_request(small))
            assert _body(_rest(other))["status"] == 200
        waits.append(time.monotonic() - began)
        time.sleep(max(0.0, 0.1 - waits[-1]))
    read = sum(len(piece) for piece in pieces)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    result = _body(b"".join(pieces) + _rest(connection))
    return result | {"worst": max(waits), "while_slow": read, "others": len(waits)}


def resets(address: str, path: str) -> Any:
    """Reset a hundred connections: unused, with half a request, and in the middle of an answer."""
    for number in range(100):
        connection = _connect(address)
        if number % 3 == 1:
            connection.sendall(b"GET / HT")
        elif number % 3 == 2:
            connection.sendall(_request(path))
            connection.recv(10_000)
        # SO_LINGER of zero seconds: close() sends a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    return {"reset": 100}


def half(address: str, path: str) -> Any:
    """Ask, close our direction at once, and read the whole answer."""
    with _connect(address) as connection:
        connection.sendall(_request(path, "keep-alive"))
        connection.shutdown(socket.SHUT_WR)
        return _body(_rest(connection))


def hang(address: str, path: str, source: str) -> Any:
    """Begin fifty downloads from `source`, say so, and wait to be killed."""
    connections = []
    for _ in range(50):
        connection = _connect(address, source=source)
        connection.sendall(_request(path))
        connection.recv(1_000)
        connections.append(connection)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    time.sleep(600)
    return len(connections)


def closed(address: str, port: str) -> Any:
    """Connect to a port where nobody listens; how long the refusal took."""
    began = time.monotonic()
    try:
        _connect(address, int(port)).close()
    except ConnectionRefusedError:
        return {"refused": True, "seconds": time.monotonic() - began}
    return {"refused": False}


def closed_udp(address: str, port: str) -> Any:
    """Send a datagram to a port where nobody listens; what the kernel was told by ICMP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_LIMIT)
        sender.connect((address, int(port)))
        sender.send(b"anybody?")
        try:
            sender.recv(100)
        except ConnectionRefusedError:
            return {"refused": True}
    return {"refused": False}


def dns_burst(address: str, port: str) -> Any:
    """Ask for 400 hosts of the benchmark's zone from one port, at once, and look at each answer."""
    asked = {}
    for number in range(400):
        label = f"host{number}".encode()
        question = bytes([len(label)]) + label + b"\5bench\4test\0" + b"\0\1\0\1"
        asked[number] = number.to_bytes(2) + b"\0\0\0\1\0\0\0\0\0\0" + question
    right = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_LIMIT)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sender.connect((address, int(port)))
        for query in asked.values():
            sender.send(query)
        for _ in range(len(asked)):
            answer = sender.recv(2000)
            number = int.from_bytes(answer[:2])
            query = asked.pop(number, b"?" * 12)
            rdata = bytes((198, 51, number // 250, number % 250 + 1))
            right += answer[12 : len(query)] == query[12:] and answer.endswith(rdata)
    return {"right": right, "wrong": 400 - right}


def upload(address: str, port: str, size: str) -> Any:
    """Send `size` octets, close our direction, and read what the other end makes of them."""
    data = pattern(int(size))
    with _connect(address, int(port)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return {"theirs": _rest(connection).decode(), "ours": hashlib.sha256(data).hexdigest()}


def download(address: str, port: str, size: str) -> Any:
    """Ask for `size` octets and hash them."""
    with _connect(address, int(port)) as connection:
        connection.sendall(f"{size}\n".encode())
        data = _rest(connection)
    wanted = hashlib.sha256(pattern(int(size))).hexdigest()
    return {"theirs": hashlib.sha256(data).hexdigest(), "ours": wanted, "length": len(data)}


def echo(address: str, port: str, size: str) -> Any:
    """Send and read at the same time, odd pieces at odd moments; the echo must be the same."""

    async def both() -> bytes:
        reader, writer = await asyncio.open_connection(address, int(port))
        data = pattern(int(size))

        async def send() -> None:
            position, step = 0, 1
            while position < len(data):
                writer.write(data[position : position + step])
                await writer.drain()
                position, step = position + step, step % 70_000 * 3 + 1
            writer.write_eof()

        sending = asyncio.create_task(send())
        answer = await asyncio.wait_for(reader.read(-1), _LIMIT)
        await sending
        writer.close()
        return answer

    same = asyncio.run(both()) == pattern(int(size))
    return {"same": same}


def accept(address: str, port: str, control: str, size: str) -> Any:
    """Listen on the kernel's side, have the stack connect here, and hash what it sends."""
    with socket.create_server(("", 0)) as listener:
        listener.settimeout(_LIMIT)
        own = listener.getsockname()[1]
        with _connect(address, int(port)) as order:
            order.sendall(f"{control} {own} {size}\n".encode())
            connection, source = listener.accept()
            connection.settimeout(_LIMIT)
            with connection:
                data = _rest(connection)
                connection.sendall(hashlib.sha256(data).hexdigest().encode())
            verdict = _rest(order).decode()
    wanted = hashlib.sha256(pattern(int(size))).hexdigest()
    return {"theirs": verdict, "ours": wanted, "source": source[0]}


_SYN_DATA = 32  # TCPI_OPT_SYN_DATA in tcpi_options, octet 5 of struct tcp_info


def _with_syn(connection: socket.socket) -> bool:
    """Whether the kernel says that octets went with the SYN and were taken."""
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5] & _SYN_DATA)


def fast_open(address: str, port: str) -> Any:
    """Connect twice with octets in the SYN (RFC 7413): was the echo right, did they go along?"""
    Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("3")
    answers = []
    for _ in range(2):
        with socket.socket() as connection:
            connection.sendto(b"early", socket.MSG_FASTOPEN, (address, int(port)))
            connection.settimeout(_LIMIT)
            connection.shutdown(socket.SHUT_WR)
            answers.append([_rest(connection).decode(), _with_syn(connection)])
    return answers


def accept_fast(address: str, control: str, own: str) -> Any:
    """Have the stack connect here twice, with octets in its SYN."""
    Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("3")
    answers = []
    with socket.create_server(("", 0)) as listener:
        listener.settimeout(_LIMIT)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        for _ in range(2):
            with _connect(address, int(control)) as order:
                order.sendall(f"{own} {listener.getsockname()[1]}\n".encode())
                connection, _ = listener.accept()
                connection.settimeout(_LIMIT)
                with connection:
                    answers.append([_rest(connection).decode(), _with_syn(connection)])
    return answers


def datagrams(address: str, port: str, *sizes: str) -> Any:
    """Send datagrams of these sizes one by one and compare the echoes."""
    results = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_LIMIT)
        sender.connect((address, int(port)))
        for size in sizes:
            data = pattern(int(size))
            sender.send(data)
            results.append(sender.recv(70_000) == data)
    return results


def pattern(size: int) -> bytes:
    """Return `size` octets in which no two places look alike for long (period of 64,770)."""
    block = bytes(n * n % 255 for n in range(254 * 255))
    return (block * (size // len(block) + 1))[:size]


def main() -> None:
    """Run the command that the first argument names."""
    result = globals()[sys.argv[1]](*sys.argv[2:])
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
