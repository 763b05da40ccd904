"""A certificate chain and its private key: read, judged before they are used, and described.

Whatever is wrong is found here, with a text that says which file and why, so that a bad renewal
never replaces what works. Trust is not judged: that is the clients' business.

Imports cryptography and this package.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.tls.errors import CredentialError

# Said to be an alias, since mypyc reads this where the library and its types are absent.
Key: TypeAlias = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

MAX_FILE: Final = 1024 * 1024
"""Octets of a PEM file that are read; a chain of four has 8 KB."""
MAX_CHAIN: Final = 10
"""Certificates of a chain: OpenSSL's clients look at no more (SSL_CTX_set_verify_depth)."""
MIN_RSA: Final = 2048
"""Bits of an RSA key: CA/Browser Forum Baseline Requirements §6.1.5; OpenSSL's level 2 as well."""
SKEW: Final = dt.timedelta(minutes=5)
"""What this machine's clock may be behind that of an authority which has just signed."""
CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""Curves that RFC 8446 §4.2.3 has signature schemes for."""


@dataclass(frozen=True)
class Credential:
    """A chain, leaf first, with the leaf's key; made by `judge`, so both are known to fit."""

    chain: tuple[x509.Certificate, ...]
    key: Key
    names: tuple[str, ...]  # DNS names in lower case, wildcards as they are, then addresses
    source: str  # where it came from, for people

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that names us."""
        return self.chain[0]

    @property
    def not_before(self) -> dt.datetime:
        """Valid from, UTC."""
        return self.leaf.not_valid_before_utc

    @property
    def not_after(self) -> dt.datetime:
        """Valid until, UTC."""
        return self.leaf.not_valid_after_utc

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the leaf, in hexadecimal."""
        return hashlib.sha256(self.leaf.public_bytes(serialization.Encoding.DER)).hexdigest()

    @property
    def issuer(self) -> str:
        """Who signed the leaf, in a few words."""
        name = self.leaf.issuer
        for oid in (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME):
            found = name.get_attributes_for_oid(oid)
            if found:
                return str(found[0].value)
        return name.rfc4514_string()

    @property
    def key_type(self) -> str:
        """The kind of key, like "P-256" or "RSA 2048"."""
        return describe_key(self.key)

    def pem(self) -> bytes:
        """The chain as PEM, leaf first."""
        return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in self.chain)


def describe_key(key: Key) -> str:
    """The kind of a private key, like "P-256" or "RSA 2048"."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(
            key.curve.name, key.curve.name
        )
    if isinstance(key, rsa.RSAPrivateKey):
        return f"RSA {key.key_size}"
    return "Ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "Ed448"


def key_pem(key: Key) -> bytes:
    """A private key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key: the fastest to sign with that every client takes."""
    return ec.generate_private_key(ec.SECP256R1())


def read_files(chain: Path, key: Path | None, now: dt.datetime) -> Credential:
    """Read a credential from PEM files; the key may lie in the chain's file.

    `now` is UTC. Raises CredentialError with file and reason.
    """
    certificates = _read(chain)
    secret = certificates if key is None else _read(key)
    try:
        parsed = read_chain(certificates)
    except CredentialError as exc:
        raise CredentialError(f"{chain}: {exc}") from None
    try:
        loaded = read_key(secret)
    except CredentialError as exc:
        raise CredentialError(f"{key or chain}: {exc}") from None
    try:
        return judge(parsed, loaded, now, source=str(chain))
    except CredentialError as exc:
        raise CredentialError(f"{chain}: {exc}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise CredentialError(f"{path}: {exc.strerror or exc}") from exc
    if len(data) > MAX_FILE:
        raise CredentialError(f"{path}: more than {MAX_FILE} octets, which is no certificate")
    return data


def read_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Every certificate of a PEM text, in its order; CredentialError when there is none."""
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise CredentialError("no PEM certificate in it")
    try:
        chain = tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as exc:
        raise CredentialError(f"not a PEM certificate, or cut short: {_first(exc)}") from exc
    if len(chain) > MAX_CHAIN:
        raise CredentialError(f"{len(chain)} certificates; a chain has at most {MAX_CHAIN}")
    return chain


def read_key(pem: bytes) -> Key:
    """The first private key of a PEM text; CredentialError when it cannot be used."""
    start = pem.find(b"-----BEGIN ")
    while start >= 0 and b"PRIVATE KEY-----" not in pem[start : pem.find(b"\n", start) + 1]:
        start = pem.find(b"-----BEGIN ", start + 1)
    if start < 0:
        raise CredentialError("no PEM private key in it")
    try:
        key = serialization.load_pem_private_key(pem[start:], password=None)
    except TypeError as exc:
        raise CredentialError("the private key is encrypted; store it without a password") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise CredentialError(f"not a private key: {_first(exc)}") from exc
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA:
            raise CredentialError(
                f"an RSA key of {key.key_size} bits; at least {MIN_RSA} are wanted"
            )
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if not isinstance(key.curve, CURVES):
            raise CredentialError(f"a key on {key.curve.name}, which TLS has no name for")
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return key
    raise CredentialError("a key that TLS cannot sign with; P-256 or RSA will do")


def judge(
    chain: Sequence[x509.Certificate], key: Key, now: dt.datetime, *, source: str
) -> Credential:
    """A credential, if a server could use it now; CredentialError says why it could not.

    `now` is UTC. A root at the end of the chain is left out: clients have it or do not (RFC 8446
    §4.4.2).
    """
    leaf = chain[0]
    if leaf.public_key() != key.public_key():
        raise CredentialError("certificate and private key do not belong together")
    if now > leaf.not_valid_after_utc:
        raise CredentialError(f"expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if now + SKEW < leaf.not_valid_before_utc:
        raise CredentialError(
            f"not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; "
            f"it is {now:%Y-%m-%d %H:%M} by this machine's clock"
        )
    if _is_authority(leaf) and len(chain) > 1:
        raise CredentialError("begins with a CA certificate; the server's own has to be first")
    _check_purpose(leaf)
    # The last of several may be known to clients by another signature.
    for certificate in chain[:-1] or chain:
        _check_signature(certificate)
    names = names_of(leaf)
    if not names:
        raise CredentialError("names no host: it has no subjectAltName (RFC 9525 §6)")
    kept = list(chain)
    for lower, upper in itertools.pairwise(chain):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature) as exc:
            raise CredentialError(
                f"out of order: {_subject(lower)} is not issued by {_subject(upper)}"
            ) from exc
        if now > upper.not_valid_after_utc:
            raise CredentialError(
                f"{_subject(upper)} of the chain expired on {upper.not_valid_after_utc:%Y-%m-%d}"
            )
    if len(kept) > 1 and kept[-1].subject == kept[-1].issuer:
        kept.pop()
    return Credential(tuple(kept), key, names, source)


def names_of(leaf: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and addresses that a certificate is for; the subject does not count."""
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except ValueError as exc:
        raise CredentialError(f"an extension cannot be read: {_first(exc)}") from exc
    names = [name.lower().rstrip(".") for name in extension.get_values_for_type(x509.DNSName)]
    return (*names, *(str(ip) for ip in extension.get_values_for_type(x509.IPAddress)))


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate covers a host's name or address (RFC 9525 §6.3)."""
    if pattern == name:
        return True
    if not pattern.startswith("*."):
        return False
    first, dot, rest = name.partition(".")
    return bool(first and dot) and rest == pattern[2:] and not _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _check_purpose(leaf: x509.Certificate) -> None:
    """RFC 5280 §4.2.1.12: where the extension is, serverAuth has to be in it."""
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(
        uses
    ):
        raise CredentialError("not for servers: its extended key usage lacks serverAuth")


def _check_signature(certificate: x509.Certificate) -> None:
    """RFC 8446 §4.4.2.4: who gets such a certificate is to end the handshake."""
    if certificate.subject == certificate.issuer:
        return  # believed for itself, if at all
    algorithm = certificate.signature_hash_algorithm
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        name = algorithm.name.upper().replace("SHA1", "SHA-1")
        raise CredentialError(
            f"{_subject(certificate)} is signed with {name}, which clients do not take any more"
        )


def _subject(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return repr(str(found[0].value)) if found else certificate.subject.rfc4514_string() or "it"


def _first(exc: Exception) -> str:
    """The first line of an exception: cryptography explains at length."""
    line = (str(exc).splitlines() or [type(exc).__name__])[0]
    # It sends people who have no more than a file to a page for those who write programs.
    return re.sub(r" See https://\S+ for more details\.", "", line)[:200]
