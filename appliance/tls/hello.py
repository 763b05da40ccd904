"""The ClientHello, read before OpenSSL sees it (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2).

A server has to choose a context before OpenSSL may begin: by the name asked for (RFC 6066 §3), by
the protocols offered (RFC 7301), and by the key that a ticket was made with, since OpenSSL has one
set of ticket keys for each context. What is read here decides nothing else: OpenSSL judges the same
octets afterwards, so anything odd is simply not understood here and left to it.

No I/O. Imports the standard library.
"""

from __future__ import annotations

from typing import Final, NamedTuple

HANDSHAKE: Final = 22
"""Content type of a record that carries handshake messages: RFC 8446 §5.1."""
CLIENT_HELLO: Final = 1
"""Handshake type: RFC 8446 §4."""
MAX_HELLO: Final = 131_396
"""Octets of a ClientHello behind its header at most, all of RFC 8446 §4.1.2's vectors being full;
those of today have 0.3 to 2 KB."""
MAX_RECORD: Final = 16_384
"""Octets of a record's content: RFC 8446 §5.1."""
TICKET_NAME: Final = 16
"""Octets at the start of a ticket that name its key: RFC 5077 §4, which OpenSSL follows."""
MAX_TICKETS: Final = 8
"""Identities of a pre_shared_key extension that are looked at; clients send one or two."""

SERVER_NAME: Final = 0  # RFC 6066 §3
ALPN: Final = 16  # RFC 7301 §3.1
SESSION_TICKET: Final = 35  # RFC 5077 §3.2
PRE_SHARED_KEY: Final = 41  # RFC 8446 §4.2.11

_READ: Final = frozenset({SERVER_NAME, ALPN, SESSION_TICKET, PRE_SHARED_KEY})

# RFC 9110 §9 and others: how the requests of those begin who speak HTTP to this port.
_HTTP_METHODS: Final = (
    b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ",
    b"TRACE ", b"PRI * HTTP/",
)  # fmt: skip


class HelloTooLongError(Exception):
    """A ClientHello of more than MAX_HELLO octets."""


class Hello(NamedTuple):
    """What a ClientHello says about where it wants to go; empty when it does not say."""

    server_name: str = ""  # lower case, without a final dot; empty unless it is a host name
    alpn: tuple[bytes, ...] = ()
    ticket_names: tuple[bytes, ...] = ()  # TICKET_NAME octets each


NOTHING: Final = Hello()
"""What is known about a hello that cannot be read; OpenSSL will say what is wrong with it."""


def is_http(data: bytes) -> bool:
    """Whether these first octets begin an HTTP request in the clear; at least one octet."""
    if data[0] == HANDSHAKE:
        return False
    return any(method.startswith(data[: len(method)]) for method in _HTTP_METHODS)


class Gathered:
    """A hello that comes in pieces; whatever they are, each octet is looked at once."""

    __slots__ = ("_at", "_message", "octets")

    def __init__(self) -> None:
        self.octets = bytearray()  # all that has come; OpenSSL wants it from the beginning
        self._message = bytearray()  # the content of the records that are whole
        self._at = 0  # where the next record begins

    def add(self, data: bytes) -> Hello | None:
        """Take the next octets; None while the hello is not all there.

        Raises HelloTooLongError, and nothing else, whatever the octets are.
        """
        octets, message = self.octets, self._message
        octets += data
        have = len(octets)
        while True:
            at = self._at
            if have > at and octets[at] != HANDSHAKE:
                # Nothing but a handshake record can begin a connection: do not wait for the rest.
                return NOTHING
            if have < at + 5:
                return None
            length = octets[at + 3] << 8 | octets[at + 4]
            if octets[at + 1] != 3 or not 0 < length <= MAX_RECORD:
                return NOTHING
            if at > 2 * MAX_HELLO:
                # Many tiny records: the header of each is longer than what it carries.
                raise HelloTooLongError(f"{at} octets of records")
            if have < at + 5 + length:
                return None
            self._at = at + 5 + length
            message += octets[at + 5 : self._at]
            if message[0] != CLIENT_HELLO:
                return NOTHING
            if len(message) >= 4:
                length = int.from_bytes(message[1:4], "big")
                if length > MAX_HELLO:
                    raise HelloTooLongError(f"{length} octets")
                if len(message) >= 4 + length:
                    return _read(bytes(message[: 4 + length]))


def read_hello(data: bytes) -> Hello | None:
    """Read the hello at the start of a stream of records; None while it is not all there.

    Raises HelloTooLongError, and nothing else, whatever the octets are.
    """
    if len(data) >= 9 and data[0] == HANDSHAKE and data[1] == 3 and data[5] == CLIENT_HELLO:
        length = data[3] << 8 | data[4]
        # Most often this is one record, and all of it is here.
        if len(data) >= 5 + length and int.from_bytes(data[6:9], "big") == length - 4:
            return _read(data[5 : 5 + length])
    return Gathered().add(data)


def _read(hello: bytes) -> Hello:
    try:
        return _parse(hello)
    except (IndexError, ValueError):
        return NOTHING


def _parse(hello: bytes) -> Hello:
    """The fields of a whole ClientHello, with its header of 4 octets; IndexError, ValueError.

    Plain steps over octets: it is on the way of every connection.
    """
    at = 38  # header 4, legacy_version 2, random 32
    at += 1 + hello[at]  # session id
    at += 2 + (hello[at] << 8 | hello[at + 1])  # cipher suites
    at += 1 + hello[at]  # compression methods
    if at == len(hello):
        return NOTHING
    end = at + 2 + (hello[at] << 8 | hello[at + 1])
    at += 2
    name = ""
    alpn: tuple[bytes, ...] = ()
    tickets: tuple[bytes, ...] = ()
    while at < end:
        kind = hello[at] << 8 | hello[at + 1]
        start = at + 4
        at = start + (hello[at + 2] << 8 | hello[at + 3])
        if kind in _READ and at <= len(hello):
            content = hello[start:at]
            if kind == SERVER_NAME:
                name = _server_name(content)
            elif kind == ALPN:
                alpn = _alpn(content)
            elif kind == SESSION_TICKET:
                tickets = (content[:TICKET_NAME],) if content else ()
            else:
                tickets = _identities(content)
    return Hello(name, alpn, tickets)


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """A vector with a length of `width` octets (RFC 8446 §3.4), and where the next field begins."""
    length = int.from_bytes(data[at : at + width], "big")
    end = at + width + length
    if at + width > len(data) or end > len(data):
        raise ValueError("a vector past its end")
    return data[at + width : end], end


def _server_name(content: bytes) -> str:
    entries, _ = _vector(content, 0, 2)
    if not entries or entries[0] != 0:  # RFC 6066 §3: host_name is the only type
        return ""
    name, _ = _vector(entries, 1, 2)
    return str(name, "ascii").rstrip(".").lower()


def _alpn(content: bytes) -> tuple[bytes, ...]:
    names, _ = _vector(content, 0, 2)
    found: list[bytes] = []
    at = 0
    while at < len(names):
        name, at = _vector(names, at, 1)
        found.append(name)
    return tuple(found)


def _identities(content: bytes) -> tuple[bytes, ...]:
    identities, _ = _vector(content, 0, 2)
    found: list[bytes] = []
    at = 0
    while at < len(identities) and len(found) < MAX_TICKETS:
        ticket, at = _vector(identities, at, 2)
        at += 4  # obfuscated_ticket_age
        found.append(ticket[:TICKET_NAME])
    return tuple(found)
