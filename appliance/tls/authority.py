"""The local certificate authority of a first run: HTTPS at once, for whoever chooses to trust it.

It is made once and kept, owner-only, under the state directory. It is constrained to the names of
this appliance (RFC 5280 §4.2.1.10), so that trusting it risks nothing else; what it issues lives
for days and is renewed by itself. Nothing here touches a trust store.

Imports cryptography and this package; the clock is an argument.
"""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.tls.credential import Credential, new_key, read_chain, read_key
from appliance.tls.errors import CredentialError

CA_DAYS: Final = 3650
"""Life of the authority: trusting it is done by hand, and seldom."""
LEAF_DAYS: Final = 7
"""Life of what it issues: a stolen key is of use for a week at most."""
BACKDATE: Final = dt.timedelta(hours=1)
"""Clocks of clients that are behind ours still find it valid."""


class Authority:
    """A certificate and the key that signs with it; `names` are the domains it may issue for."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @classmethod
    def make(cls, names: Sequence[str], now: dt.datetime) -> Authority:
        """A new authority for these domains (with everything below them) and addresses."""
        key = new_key()
        subject = _common_name(f"appliance local CA ({names[0]})")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + dt.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.NameConstraints([_subtree(name) for name in names], None), critical=True
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def read(cls, certificate: bytes, key: bytes, now: dt.datetime) -> Authority:
        """An authority from PEM; CredentialError when it cannot be used (any more)."""
        found, secret = read_chain(certificate)[0], read_key(key)
        if not isinstance(secret, ec.EllipticCurvePrivateKey):
            raise CredentialError("not the kind of key that this appliance makes")
        if found.public_key() != secret.public_key():
            raise CredentialError("certificate and private key do not belong together")
        authority = cls(found, secret)
        authority.check(now)
        return authority

    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def check(self, now: dt.datetime) -> None:
        """Raise CredentialError unless it may issue now; a clock that is wrong shows here."""
        found = self.certificate
        if now > found.not_valid_after_utc:
            raise CredentialError(f"expired on {found.not_valid_after_utc:%Y-%m-%d}")
        if now < found.not_valid_before_utc:
            raise CredentialError(
                f"not valid before {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; "
                f"it is {now:%Y-%m-%d %H:%M} by this machine's clock"
            )

    def permits(self, names: Sequence[str]) -> bool:
        """Whether the constraints let it issue for all of these."""
        try:
            value = self.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            return True
        return all(
            any(_within(name, tree) for tree in value.permitted_subtrees or ()) for name in names
        )

    def issue(
        self, names: Sequence[str], now: dt.datetime, *, days: float = LEAF_DAYS
    ) -> Credential:
        """A new key and a certificate for these names and addresses."""
        key = new_key()
        # RFC 5280 §4.1.2.5: no longer than who signs it.
        end = min(now + dt.timedelta(days=days), self.certificate.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            # Nobody judges by it (RFC 9525 §2), but GnuTLS's tools want to show one.
            .subject_name(_common_name(names[0]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(list(map(_name, names))), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        return Credential((certificate,), key, tuple(names), "local CA")


def self_signed(
    names: Sequence[str],
    now: dt.datetime,
    *,
    days: float = LEAF_DAYS,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Credential:
    """A credential that vouches for itself: for probes, tests and RFC 8737 §3."""
    key = key or new_key()
    subject = _common_name(names[0])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(list(map(_name, names))), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Credential((builder.sign(key, hashes.SHA256()),), key, tuple(names), "self-signed")


@functools.cache
def throwaway() -> Credential:
    """A credential for talking to ourselves only; its dates do not matter."""
    return self_signed(["probe.invalid"], dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def _common_name(text: str) -> x509.Name:
    """A subject of one commonName, of at most 64 characters (RFC 5280, appendix A.1)."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subtree(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_network(name))
    except ValueError:
        return x509.DNSName(name.removeprefix("*."))


def _within(name: str, tree: x509.GeneralName) -> bool:
    """RFC 5280 §4.2.1.10: a DNS name is within a tree that it equals or ends with."""
    if isinstance(tree, x509.IPAddress):
        try:
            return ipaddress.ip_network(name).subnet_of(tree.value)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            return False
    bare = name.removeprefix("*.")
    return isinstance(tree, x509.DNSName) and (
        bare == tree.value or bare.endswith(f".{tree.value}")
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
