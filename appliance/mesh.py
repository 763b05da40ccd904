"""How the workers of one host reach one another, and the supervisor: sockets made before the fork.

Each has two of them to read from, and everybody can write to both: one for frames, where a message
that finds no room is lost as links lose frames, and one for words, where it waits. Words are tuples
that begin with what they are; what may be large (a zone, a site) follows them as a file in memory
(memfd_create(2)), so that it is read where and when it suits.

What one process writes another receives in the same order. Both ends stay open in the supervisor:
a worker that takes the place of another goes on where that stopped. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

BUFFER: Final = 2 << 20
"""Octets on their way to one reader (the kernel may allow fewer): some 30 of the largest frames."""
LARGEST: Final = 80_000
"""Octets of the largest message: a super-segment of 64 KB, its headers, and our own."""
WAITING: Final = 10_000
"""Words that wait for a reader; one that lets so many wait is no use, and is replaced."""
BATCH: Final = 64
"""Messages in one turn, as of frames."""

Words = tuple[Any, ...]


class Mesh:
    """The sockets, made once; `count` workers, and the supervisor as number `count`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.frames = [_pair() for _ in range(count)]
        """(reader, writer) of each worker."""
        self.words = [_pair() for _ in range(count + 1)]
        self.seen = _pair()
        """What others than the first worker see, while somebody watches; read by that one."""

    def pass_on(self, worker: int, message: bytes) -> bool:
        """Send a frame's message; False when there is no room."""
        try:
            self.frames[worker][1].send(message)
        except OSError:
            return False
        return True

    def frames_for(self, worker: int) -> list[bytes]:
        """Messages for a worker, up to a batch; never blocks."""
        return _batch(self.frames[worker][0])

    def show(self, frame: bytes, link: str) -> None:
        """Tell the first worker of a frame of a link, if there is room."""
        name = link.encode()
        with contextlib.suppress(OSError):
            self.seen[1].send(bytes((len(name),)) + name + frame)

    def shown(self) -> list[tuple[bytes, str]]:
        """Frames that the others have seen, with their links, up to a batch; never blocks."""
        told = [(message, 1 + message[0]) for message in _batch(self.seen[0])]
        return [(message[at:], message[1:at].decode()) for message, at in told]

    def close(self) -> None:
        """Close all sockets."""
        for reader, writer in (*self.frames, *self.words, self.seen):
            reader.close()
            writer.close()


class Post:
    """One process's letters; `number` is its own."""

    def __init__(self, mesh: Mesh, number: int) -> None:
        self.mesh = mesh
        self.number = number
        self._waiting: dict[int, deque[tuple[bytes, int]]] = {}
        self.stuck: set[int] = set()
        """Readers that have let too much wait; whoever looks at it clears it."""

    def fileno(self) -> int:
        """What is readable when there are letters."""
        return self.mesh.words[self.number][0].fileno()

    def send(self, to: int, *words: Any, blob: bytes | int = -1) -> None:
        """Send words, now or with `flush`; `blob` (or a `file_of` one) follows them as a file."""
        fd = -1
        if not isinstance(blob, int):
            fd = file_of(blob)
        elif blob >= 0:
            fd = os.dup(blob)
        letter = pickle.dumps(words, protocol=5)
        if len(letter) > LARGEST:
            raise ValueError(f"{words[0]}: {len(letter)} octets are a blob")
        queue = self._waiting.setdefault(to, deque())
        queue.append((letter, fd))
        if len(queue) > WAITING:
            self.stuck.add(to)
            self._forget(to)
        else:
            self.flush()

    def flush(self) -> bool:
        """Send what waits as far as there is room; True when nothing waits any more."""
        for to, queue in self._waiting.items():
            writer = self.mesh.words[to][1]
            while queue:
                letter, fd = queue[0]
                try:
                    socket.send_fds(writer, [letter], [fd] if fd >= 0 else [])
                except BlockingIOError:
                    break
                queue.popleft()
                if fd >= 0:
                    os.close(fd)
        return not any(self._waiting.values())

    def _forget(self, to: int) -> None:
        for _, fd in self._waiting.pop(to):
            if fd >= 0:
                os.close(fd)

    def receive(self) -> Iterator[tuple[Words, int]]:
        """Letters that have come, each with the descriptor of its blob, or -1; see `blob_of`."""
        reader = self.mesh.words[self.number][0]
        for _ in range(BATCH):
            try:
                letter, fds, _, _ = socket.recv_fds(reader, LARGEST, 1)
            except BlockingIOError:
                return
            words: Words = pickle.loads(letter)  # noqa: S301 - of our own process family
            yield words, fds[0] if fds else -1


def _batch(reader: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while len(found) < BATCH:
            found.append(reader.recv(LARGEST))
    return found


def blob_of(fd: int) -> bytes:
    """What a letter's descriptor holds; it is closed."""
    try:
        # From its beginning, wherever others with the same file are.
        left = os.fstat(fd).st_size
        parts: list[bytes] = []
        at = 0
        while at < left and (part := os.pread(fd, left - at, at)):
            parts.append(part)
            at += len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def file_of(blob: bytes) -> int:
    """A file in memory, for letters to several."""
    fd = os.memfd_create("appliance", os.MFD_CLOEXEC)
    view = memoryview(blob)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def _pair() -> tuple[socket.socket, socket.socket]:
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (reader, writer):
        end.setblocking(False)
    # The kernel counts what is on its way against the sender (unix(7)).
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return reader, writer
