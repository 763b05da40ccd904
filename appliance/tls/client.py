"""The client's side of TLS: whom to believe, and for which name.

Imports pyOpenSSL and this package.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from appliance.tls.contexts import CIPHERS, PARTIAL_WRITE
from appliance.tls.engine import expect_name
from appliance.tls.errors import TlsError

Judge = Callable[[SSL.Connection], None]
"""Looks at a connection whose handshake is done; raises TlsError if it is not to be used."""


def client_context(
    ca_file: Path | None = None,
    protocols: Sequence[bytes] = (),
    *,
    verify: bool = True,
    tls13: bool = False,
) -> SSL.Context:
    """A context that verifies by the authorities in a PEM file, or else by the system's.

    Without `verify` any certificate will do, so that a judge has to look at it; `tls13`: nothing
    older. Raises TlsError when the file cannot be used.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # RFC 8996: TLS 1.2 at least.
    context.set_min_proto_version(SSL.TLS1_3_VERSION if tls13 else SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(PARTIAL_WRITE)
    context.set_verify(SSL.VERIFY_PEER if verify else SSL.VERIFY_NONE)
    if verify and ca_file is None:
        context.set_default_verify_paths()
    elif verify:
        try:
            context.load_verify_locations(str(ca_file))
        except SSL.Error as exc:
            raise TlsError(f"{ca_file}: no certificates of authorities can be read") from exc
    if protocols:
        context.set_alpn_protos(list(protocols))
    return context


def client_connection(context: SSL.Context, name: str) -> SSL.Connection:
    """A connection to be handed to a ClientStream; the peer has to be `name`, a host or address.

    An empty name asks for none. Raises TlsError for a name that is none.
    """
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if not name:
        return connection
    try:
        address = ipaddress.ip_address(name).packed
    except ValueError:
        try:
            connection.set_tlsext_host_name(name.encode("ascii"))  # RFC 6066 §3: never an address
        except UnicodeEncodeError as exc:
            raise TlsError(f"{name!r} is no host name; use its A-label form") from exc
        address = b""
    expect_name(connection, name, address=address)
    return connection


def pinned(pins: Collection[bytes]) -> Judge:
    """A judge who wants the peer's key to be one of these: SHA-256 of its subjectPublicKeyInfo."""

    def judge(connection: SSL.Connection) -> None:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise TlsError("the peer has no certificate")
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if hashlib.sha256(key).digest() not in pins:
            raise TlsError("the peer's key is not one of those that are pinned")

    return judge


def speaks(protocol: bytes) -> Judge:
    """A judge who wants this protocol to be agreed on (RFC 7301)."""

    def judge(connection: SSL.Connection) -> None:
        if connection.get_alpn_proto_negotiated() != protocol:
            raise TlsError(f"the peer did not agree on the protocol {protocol.decode()!r} (ALPN)")

    return judge
