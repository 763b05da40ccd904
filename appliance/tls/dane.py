"""TLSA records of a certificate: what DNS tells of it (RFC 6698, RFC 7671).

Imports cryptography and this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DANE_EE: Final = 3
"""Certificate usage: this key, whoever signed for it (RFC 7671 §5.1)."""
SPKI: Final = 1
SHA2_256: Final = 1


def tlsa(certificate: x509.Certificate) -> str:
    """The data of a record `3 1 1`: true for as long as the key is, whoever certifies it."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{DANE_EE} {SPKI} {SHA2_256} {hashlib.sha256(key).hexdigest()}"


def owner(name: str, port: int) -> str:
    """The name of the record for a TCP service (RFC 6698 §3), with a dot at its end."""
    return f"_{port}._tcp.{name.rstrip('.')}."


def record_lines(certificate: x509.Certificate, names: Iterable[str], port: int) -> list[str]:
    """Records in master-file form for those names of a certificate that can have one."""
    data = tlsa(certificate)
    return [f"{owner(name, port)} 3600 IN TLSA {data}" for name in names if _plain(name)]


def _plain(name: str) -> bool:
    return not name.startswith("*.") and not name.replace(".", "").replace(":", "").isdigit()
