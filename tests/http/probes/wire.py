"""One exchange with a server: octets out, responses in, taken apart without any HTTP library."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# Seconds that an answer may take before the server counts as silent.
PATIENCE = 3.0


@dataclass
class Response:
    """A response as it came."""

    status: int
    version: str
    fields: list[tuple[str, str]]  # names lower case
    body: bytes
    octets: int  # of the body on the wire
    complete: bool

    def all(self, name: str) -> list[str]:
        """Return the values of a field, in order."""
        return [value for key, value in self.fields if key == name]

    def __getitem__(self, name: str) -> str:
        return ", ".join(self.all(name))


@dataclass
class Talk:
    """What a connection brought."""

    responses: list[Response] = field(default_factory=list)
    closed: bool = False  # the server closed, or reset
    reset: bool = False
    seconds: float = 0.0
    rest: bytes = b""

    @property
    def first(self) -> Response:
        """The first response, or one with status 0 when there was none."""
        return self.responses[0] if self.responses else Response(0, "", [], b"", 0, False)

    @property
    def statuses(self) -> list[int]:
        """Statuses in order."""
        return [response.status for response in self.responses]


def talk(
    address: tuple[str, int],
    octets: bytes | Sequence[bytes],
    methods: Sequence[str] = ("GET",),
    *,
    pause: float = 0.05,
    half_close: bool = False,
    see_close: bool = False,
    patience: float = PATIENCE,
) -> Talk:
    """Send pieces with a pause between them, and read the responses to these methods.

    `see_close` waits for the end of the connection after the last of them.
    """
    result = Talk()
    begun = time.monotonic()
    with socket.create_connection(address, patience) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pieces = [octets] if isinstance(octets, bytes) else list(octets)
        try:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(pause)
                sock.sendall(piece)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused half way; what it says is still read
        reader = _Reader(sock, patience, result)
        for method in methods:
            response = _response(reader, method)
            while response is not None and 100 <= response.status < 200:
                result.responses.append(response)
                response = _response(reader, method)
            if response is None:
                break
            result.responses.append(response)
        if see_close and not result.closed:
            reader.drain()
        result.rest = reader.buffer
    result.seconds = time.monotonic() - begun
    return result


class _Reader:
    def __init__(self, sock: socket.socket, patience: float, result: Talk) -> None:
        self.buffer = b""
        self._sock = sock
        self._end = time.monotonic() + patience
        self._result = result

    def more(self) -> bool:
        left = self._end - time.monotonic()
        if left <= 0 or self._result.closed:
            return False
        self._sock.settimeout(left)
        try:
            data = self._sock.recv(1 << 16)
        except TimeoutError:
            return False
        except OSError:
            self._result.closed = self._result.reset = True
            return False
        self._result.closed = not data
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes | None:
        while mark not in self.buffer:
            if not self.more():
                return None
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size and self.more():
            pass
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def drain(self) -> None:
        while self.more():
            pass


def _response(reader: _Reader, method: str) -> Response | None:
    head = reader.until(b"\r\n\r\n")
    if head is None:
        return None
    line, *rest = head.decode("latin-1").split("\r\n")
    words = line.split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        return None
    fields = []
    for text in rest:
        name, _, value = text.partition(":")
        fields.append((name.lower(), value.strip()))
    response = Response(int(words[1]), words[0], fields, b"", 0, True)
    if method == "HEAD" or response.status < 200 or response.status in (204, 304):
        return response
    if response["transfer-encoding"].lower() == "chunked":
        _chunks(reader, response)
    elif response["content-length"].isdigit():
        size = int(response["content-length"])
        response.body = reader.exactly(size)
        response.octets = len(response.body)
        response.complete = response.octets == size
    else:
        reader.drain()
        response.body, reader.buffer = reader.buffer, b""
        response.octets = len(response.body)
    return response


def _chunks(reader: _Reader, response: Response) -> None:
    while True:
        size = reader.until(b"\r\n")
        if size is None:
            response.complete = False
            return
        length = int(size.split(b";")[0], 16)
        response.body += reader.exactly(length)
        response.octets = len(response.body)
        reader.exactly(2)
        if not length:
            return


Check = Callable[[Talk], str]
"""Looks at a talk and says what is wrong with it; "" when nothing is."""
