"""One TLS connection of OpenSSL on memory BIOs: octets in, octets out, no I/O (RFC 8446, RFC 5246).

pyOpenSSL makes contexts and connections, and does the handshakes. For every record after that its
methods cost more than OpenSSL's own work: `DirectEngine` calls the same functions of OpenSSL
through the same binding with one buffer for all connections (5.1 against 2.1 µs of CPU for a
request of 100 octets and an answer of 1,200). Where that binding looks different, `Engine` does it
by the methods that everybody has; tests hold the two to the same behaviour.

After every exception `take` has to be asked: the alert that tells the peer lies in the BIO.
All engines of a process belong to one thread. Imports pyOpenSSL and this package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL

from appliance.tls.errors import TlsError, TruncatedError

RECORD: Final = 16 * 1024
"""Octets of plain text in a full record: RFC 8446 §5.1."""
CHUNK: Final = 64 * 1024
"""Octets encrypted before the BIO is emptied: 100 MB in one piece ran at a third of the speed."""
_OVERHEAD: Final = 4 * 64 + 5 * 1024
"""Octets that CHUNK may grow by: four records' headers and tags, and a message of OpenSSL's own."""
_ROOM: Final = CHUNK + _OVERHEAD

_lib: Any = None
_ffi: Any = None
try:
    from OpenSSL import _util

    _lib, _ffi = _util.lib, _util.ffi
    _BUFFER: Any = _ffi.new("char[]", _ROOM)
    _OCTETS: Any = _ffi.buffer(_BUFFER)
    _BIO_read, _BIO_write = _lib.BIO_read, _lib.BIO_write
    _SSL_read, _SSL_write, _SSL_get_error = _lib.SSL_read, _lib.SSL_write, _lib.SSL_get_error
    _SSL_do_handshake = _lib.SSL_do_handshake
    _WANT_READ: int = _lib.SSL_ERROR_WANT_READ
    _ZERO_RETURN: int = _lib.SSL_ERROR_ZERO_RETURN
    _BIO_get_mem_data, _NULL = _lib.BIO_get_mem_data, _ffi.NULL
    _SSL_get0_alpn_selected = _lib.SSL_get0_alpn_selected
    _NAME: Any = _ffi.new("unsigned char **")
    _LENGTH: Any = _ffi.new("unsigned int *")
    _lib.SSL_set_bio, _lib.BIO_new, _lib.BIO_s_mem  # noqa: B018
    _lib.SSL_get_verify_result, _lib.X509_verify_cert_error_string  # noqa: B018
    DIRECT: bool = all(
        hasattr(SSL.Connection(SSL.Context(SSL.TLS_METHOD), None), name)
        for name in ("_ssl", "_into_ssl", "_from_ssl")
    )
except (ImportError, AttributeError):
    DIRECT = False


def reason_of(error: Exception) -> str:
    """The short text in an exception of pyOpenSSL: what happened, without what varies."""
    if isinstance(error, SSL.SysCallError):
        return "ended without close_notify"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        # A list of (library, function, reason); the last one is the outermost.
        first = error.args[0]
        if isinstance(first, list):
            return str(first[0][-1]) or "unknown"
        return str(first)
    return str(error) or type(error).__name__


def explained(error: Exception, connection: SSL.Connection) -> str:
    """`reason_of`, and what was wrong with the peer's certificate if that was the reason."""
    reason = reason_of(error)
    if DIRECT and reason == "certificate verify failed":
        found = _lib.SSL_get_verify_result(connection._ssl)
        words: bytes = _ffi.string(_lib.X509_verify_cert_error_string(found))
        reason = f"{reason}: {words.decode()}"
    return reason


def resumed(connection: SSL.Connection) -> bool | None:
    """Whether the handshake took up an earlier session; None where nobody can tell."""
    return None if not DIRECT else bool(_lib.SSL_session_reused(connection._ssl))


def expect_name(connection: SSL.Connection, name: str, *, address: bytes = b"") -> None:
    """Let the handshake fail unless the certificate is for this name (RFC 9525), or address.

    `address` is 4 or 16 octets. Raises TlsError where this OpenSSL offers no way.
    """
    try:
        ssl = connection._ssl
        parameters = _lib.SSL_get0_param(ssl)
        if address:
            done = _lib.X509_VERIFY_PARAM_set1_ip(parameters, address, len(address))
        else:
            octets = name.encode("ascii")
            # X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS of x509v3.h: RFC 9525 §6.3.
            _lib.X509_VERIFY_PARAM_set_hostflags(parameters, 0x4)
            done = _lib.X509_VERIFY_PARAM_set1_host(parameters, octets, len(octets))
    except (AttributeError, UnicodeEncodeError) as exc:
        raise TlsError(f"cannot verify the name {name!r}") from exc
    if done != 1:
        raise TlsError(f"cannot verify the name {name!r}")


class Engine:
    """A connection by pyOpenSSL's own methods."""

    __slots__ = ("connection",)

    def __init__(self, connection: SSL.Connection) -> None:
        """Take over a connection without a socket, its role already set."""
        self.connection = connection

    def feed(self, data: bytes) -> None:
        """Take octets from the peer."""
        self.connection.bio_write(data)

    def handshake(self) -> bool:
        """Go on with the handshake as far as there are octets; True when it is done.

        Raises TlsError; `take` then has the alert.
        """
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        except Exception as exc:  # those of callbacks come through here too
            raise TlsError(explained(exc, self.connection)) from exc
        return True

    def protocol(self) -> str | None:
        """What ALPN agreed on (RFC 7301), if anything."""
        return self.connection.get_alpn_proto_negotiated().decode("ascii") or None

    def unread(self) -> bool:
        """Whether octets of the peer's wait for `read`; True where nobody can tell."""
        return True

    def read(self) -> bytes | None:
        """The content of the next record; b"" at the peer's close_notify, None when more must come.

        Raises TlsError for records that are no good.
        """
        try:
            return self.connection.recv(RECORD)
        except SSL.WantReadError:
            return None
        except SSL.ZeroReturnError:
            return b""
        except SSL.Error as exc:
            raise TlsError(reason_of(exc)) from exc

    def decrypt(self, data: bytes) -> bytes | None:
        """`feed` and `read`."""
        self.feed(data)
        return self.read()

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt at most CHUNK octets into as few records as they need."""
        try:
            self.connection.sendall(data)
        except SSL.Error as exc:
            raise TlsError(reason_of(exc)) from exc

    def take(self) -> bytes:
        """Octets for the peer; b"" when there are none."""
        try:
            data = self.connection.bio_read(_ROOM)
        except SSL.WantReadError:
            return b""
        if len(data) < _ROOM:
            return data
        return data + self.take()

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """`write` and `take`."""
        self.write(data)
        return self.take()

    def close(self) -> None:
        """Say close_notify; what the peer still sends can be read."""
        try:
            self.connection.shutdown()
        except SSL.Error:
            pass  # the handshake is not done, or has failed: there is nobody to say it to

    def shrink(self, *, both: bool) -> None:
        """Give back what the BIOs have grown by, of what arrives only if `both`; they are empty."""


class DirectEngine(Engine):
    """A connection whose records go through OpenSSL's functions without a detour."""

    __slots__ = ("_in", "_out", "_ssl")

    def __init__(self, connection: SSL.Connection) -> None:
        super().__init__(connection)
        self._ssl = connection._ssl
        self._in = connection._into_ssl
        self._out = connection._from_ssl

    def feed(self, data: bytes) -> None:
        """Take octets from the peer."""
        _BIO_write(self._in, data, len(data))

    def handshake(self) -> bool:
        """As Engine.handshake."""
        done = _SSL_do_handshake(self._ssl)
        if done == 1:
            return True
        if _SSL_get_error(self._ssl, done) == _WANT_READ:
            return False
        try:
            self.connection._raise_ssl_error(self._ssl, done)
        except Exception as exc:  # those of callbacks come through here too
            raise TlsError(explained(exc, self.connection)) from exc
        raise TlsError("OpenSSL gave no reason")

    def protocol(self) -> str | None:
        """As Engine.protocol."""
        _SSL_get0_alpn_selected(self._ssl, _NAME, _LENGTH)
        size: int = _LENGTH[0]
        if not size:
            return None
        name: bytes = _ffi.buffer(_NAME[0], size)[:]
        return name.decode("ascii")

    def unread(self) -> bool:
        """As Engine.unread: OpenSSL takes no more out of the BIO than the record that it reads."""
        return bool(_BIO_get_mem_data(self._in, _NULL))

    def read(self) -> bytes | None:
        """As Engine.read."""
        size = _SSL_read(self._ssl, _BUFFER, RECORD)
        if size > 0:
            return _OCTETS[:size]  # type: ignore[no-any-return]
        return self._why(size)

    def decrypt(self, data: bytes) -> bytes | None:
        """As Engine.decrypt."""
        _BIO_write(self._in, data, len(data))
        size = _SSL_read(self._ssl, _BUFFER, RECORD)
        if size > 0:
            return _OCTETS[:size]  # type: ignore[no-any-return]
        return self._why(size)

    def _why(self, size: int) -> bytes | None:
        error = _SSL_get_error(self._ssl, size)
        if error == _WANT_READ:
            return None
        if error == _ZERO_RETURN:
            return b""
        self._raise(size)
        return None

    def _raise(self, size: int) -> None:
        """Turn OpenSSL's queue of errors, which pyOpenSSL empties, into a TlsError."""
        try:
            self.connection._raise_ssl_error(self._ssl, size)
        except SSL.SysCallError as exc:
            raise TruncatedError(reason_of(exc)) from exc
        except SSL.Error as exc:
            raise TlsError(reason_of(exc)) from exc
        raise TlsError("OpenSSL gave no reason")

    def write(self, data: bytes | memoryview) -> None:
        """As Engine.write."""
        source = data if type(data) is bytes else _ffi.from_buffer(data)
        size = _SSL_write(self._ssl, source, len(data))
        if size != len(data):
            self._raise(size)

    def take(self) -> bytes:
        """As Engine.take."""
        size = _BIO_read(self._out, _BUFFER, _ROOM)
        if size <= 0:
            return b""
        data: bytes = _OCTETS[:size]
        return data if size < _ROOM else data + self.take()

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """As Engine.encrypt, for bytes or a view."""
        source = data if type(data) is bytes else _ffi.from_buffer(data)
        size = _SSL_write(self._ssl, source, len(data))
        if size != len(data):
            self._raise(size)
        size = _BIO_read(self._out, _BUFFER, _ROOM)
        octets: bytes = _OCTETS[:size]
        return octets if size < _ROOM else octets + self.take()

    def shrink(self, *, both: bool) -> None:
        """As Engine.shrink: a memory BIO keeps the largest size that it ever had."""
        out = _lib.BIO_new(_lib.BIO_s_mem())
        into = _lib.BIO_new(_lib.BIO_s_mem()) if both else self._in
        _lib.SSL_set_bio(self._ssl, into, out)  # frees those that are replaced
        self.connection._into_ssl = self._in = into
        self.connection._from_ssl = self._out = out


def engine(connection: SSL.Connection) -> Engine:
    """The fastest engine there is for this pyOpenSSL."""
    return DirectEngine(connection) if DIRECT else Engine(connection)


def _alpn(connection: SSL.Connection) -> str | None:
    return connection.get_alpn_proto_negotiated().decode("ascii") or None


def _server_name(connection: SSL.Connection) -> str | None:
    name = connection.get_servername()
    return None if name is None else name.decode("ascii", "replace")


INFORMATION: Final[dict[str, Callable[[SSL.Connection], Any]]] = {
    "alpn": _alpn,
    "tls_version": lambda connection: connection.get_protocol_version_name(),
    "cipher": lambda connection: connection.get_cipher_name(),
    "server_name": _server_name,
    "resumed": resumed,
    "peercert": lambda connection: connection.get_peer_certificate(as_cryptography=True),
}
"""What asyncio's `get_extra_info` tells of a connection, by name."""
