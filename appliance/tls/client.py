"""The client's side of TLS: whom to believe, and for which name.

Imports pyOpenSSL and this package.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from OpenSSL import SSL

from appliance.tls.contexts import CIPHERS, PARTIAL_WRITE
from appliance.tls.engine import expect_name
from appliance.tls.errors import TlsError


def client_context(ca_file: Path | None = None, protocols: Sequence[bytes] = ()) -> SSL.Context:
    """A context that verifies by the authorities in a PEM file, or else by the system's.

    Raises TlsError when the file cannot be used.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)  # RFC 8996
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(PARTIAL_WRITE)
    context.set_verify(SSL.VERIFY_PEER)
    if ca_file is None:
        context.set_default_verify_paths()
    else:
        try:
            context.load_verify_locations(str(ca_file))
        except SSL.Error as exc:
            raise TlsError(f"{ca_file}: no certificates of authorities can be read") from exc
    if protocols:
        context.set_alpn_protos(list(protocols))
    return context


def client_connection(context: SSL.Context, name: str) -> SSL.Connection:
    """A connection to be handed to a ClientStream; the peer has to be `name`, a host or address.

    Raises TlsError for a name that is none.
    """
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
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
