"""Keys that a deployment needs, and what the other side of each has to know.

A TSIG key (RFC 8945) is for transfers to a secondary or for updates: the appliance keeps its file,
owner-only, and the secondary's operator gets a stanza for the name server that runs there. A TLS
key and its certificate signing request go to a certificate authority; DANE wants a record.

No file is written here but through a Store. Imports cryptography and this package.
"""

from __future__ import annotations

import base64
import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from appliance.tls.authority import self_signed
from appliance.tls.credential import Credential, key_pem, new_key
from appliance.tls.dane import record_lines
from appliance.tls.store import Store

ALGORITHMS: Final = {"hmac-sha256": 32, "hmac-sha384": 48, "hmac-sha512": 64}
"""Octets of a key for each algorithm: those of the digest (RFC 8945 §6; RFC 2104 §3)."""
SOFTWARE: Final = ("nsd", "knot", "bind")


@dataclass(frozen=True)
class TsigKey:
    """A shared secret; it is not shown when the object is printed."""

    name: str  # a domain name, as "transfer.example.org"
    algorithm: str
    secret: str = field(repr=False)  # base64

    @classmethod
    def make(cls, name: str, algorithm: str = "hmac-sha256") -> TsigKey:
        """A new random key; ValueError for an algorithm that is none of ALGORITHMS."""
        if algorithm not in ALGORITHMS:
            raise ValueError(f"{algorithm}: one of {', '.join(ALGORITHMS)} is wanted")
        octets = secrets.token_bytes(ALGORITHMS[algorithm])
        return cls(name.rstrip("."), algorithm, base64.b64encode(octets).decode())

    def line(self) -> str:
        """`algorithm:name:secret`, as dig, kdig and nsupdate take it (-y)."""
        return f"{self.algorithm}:{self.name}:{self.secret}"


def stanza(software: str, key: TsigKey, zones: Sequence[str], address: str, port: int = 53) -> str:
    """What a secondary's NSD, Knot or BIND needs to take zones from us with a key.

    Raises ValueError for other software.
    """
    names = [zone.rstrip(".") for zone in zones]
    if software == "nsd":
        return _nsd(key, names, f"{address}@{port}", address)
    if software == "knot":
        return _knot(key, names, f"{address}@{port}")
    if software == "bind":
        return _bind(key, names, address, port)
    raise ValueError(f"{software}: one of {', '.join(SOFTWARE)} is wanted")


def _nsd(key: TsigKey, zones: Sequence[str], primary: str, address: str) -> str:
    """nsd.conf(5)."""
    lines = [
        "key:",
        f'    name: "{key.name}"',
        f"    algorithm: {key.algorithm}",
        f'    secret: "{key.secret}"',
    ]
    for zone in zones:
        lines += [
            "zone:",
            f'    name: "{zone}"',
            f'    zonefile: "{zone}.zone"',
            f"    allow-notify: {address} {key.name}",
            f"    request-xfr: {primary} {key.name}",
        ]
    return "\n".join(lines) + "\n"


def _knot(key: TsigKey, zones: Sequence[str], primary: str) -> str:
    """knot.conf(5)."""
    lines = [
        "key:",
        f"  - id: {key.name}",
        f"    algorithm: {key.algorithm}",
        f"    secret: {key.secret}",
        "remote:",
        "  - id: appliance",
        f"    address: {primary}",
        f"    key: {key.name}",
        "acl:",
        "  - id: appliance-notify",
        f"    address: {primary.partition('@')[0]}",
        f"    key: {key.name}",
        "    action: notify",
        "zone:",
    ]
    for zone in zones:
        lines += [
            f"  - domain: {zone}",
            "    master: appliance",
            "    acl: appliance-notify",
        ]
    return "\n".join(lines) + "\n"


def _bind(key: TsigKey, zones: Sequence[str], address: str, port: int) -> str:
    """BIND 9's named.conf."""
    lines = [
        f'key "{key.name}" {{',
        f"    algorithm {key.algorithm};",
        f'    secret "{key.secret}";',
        "};",
    ]
    for zone in zones:
        lines += [
            f'zone "{zone}" {{',
            "    type secondary;",
            f'    file "{zone}.zone";',
            f'    primaries port {port} {{ {address} key "{key.name}"; }};',
            f'    allow-notify {{ key "{key.name}"; }};',
            "};",
        ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class TlsKey:
    """A key that waits for its certificate: the request to hand in, and DNS records meanwhile."""

    request: bytes  # PEM, RFC 2986
    tlsa: tuple[str, ...]  # records that will be true with every certificate for this key
    credential: Credential  # self-signed, until there is another


def make_tls_key(store: Store, name: str, names: Sequence[str], now: dt.datetime) -> TlsKey:
    """Make a key for these host names and put it into the store, owner-only, as NAME.key.

    `now` is the time of day, UTC. Raises CredentialError when it cannot be written.
    """
    key = new_key()
    store.write(f"{name}.key", key_pem(key))
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    made = self_signed(names, now, days=90, key=key)
    store.write(f"{name}.pem", made.pem(), public=True)
    return TlsKey(request, tuple(record_lines(made.leaf, names, 443)), made)
