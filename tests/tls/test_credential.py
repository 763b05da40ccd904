from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.tls.authority import Authority, self_signed
from appliance.tls.credential import (
    Credential,
    covers,
    judge,
    key_pem,
    new_key,
    read_files,
)
from appliance.tls.errors import CredentialError

NOW = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)
AUTHORITY = Authority.make(["example.org"], NOW)


def write(folder: Path, credential: Credential, key: bytes | None = None) -> tuple[Path, Path]:
    chain, secret = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(credential.pem())
    secret.write_bytes(key_pem(credential.key) if key is None else key)
    return chain, secret


def refused(chain: Path, key: Path | None, now: dt.datetime = NOW) -> str:
    with pytest.raises(CredentialError) as caught:
        read_files(chain, key, now)
    return str(caught.value)


def test_a_good_pair(tmp_path: Path) -> None:
    made = AUTHORITY.issue(["example.org", "*.example.org"], NOW)
    found = read_files(*write(tmp_path, made), NOW)
    assert found.names == ("example.org", "*.example.org")
    assert found.leaf == made.leaf
    assert found.key_type == "P-256"
    assert found.issuer == "appliance local CA (example.org)"


def test_one_file_for_both(tmp_path: Path) -> None:
    made = AUTHORITY.issue(["example.org"], NOW)
    both = tmp_path / "both.pem"
    both.write_bytes(made.pem() + key_pem(made.key))
    assert read_files(both, None, NOW).leaf == made.leaf


def test_a_root_at_the_end_is_left_out(tmp_path: Path) -> None:
    """RFC 8446 §4.4.2: the trust anchor may be omitted."""
    made = AUTHORITY.issue(["example.org"], NOW)
    chain, key = write(tmp_path, made)
    chain.write_bytes(made.pem() + AUTHORITY.pem())
    assert read_files(chain, key, NOW).chain == made.chain


def test_another_key(tmp_path: Path) -> None:
    made = AUTHORITY.issue(["example.org"], NOW)
    said = refused(*write(tmp_path, made, key_pem(new_key())))
    assert said.startswith(str(tmp_path / "chain.pem"))
    assert "do not belong together" in said


def test_expired_and_not_yet_valid(tmp_path: Path) -> None:
    """The text of the latter names this machine's clock: that may be what is wrong."""
    files = write(tmp_path, AUTHORITY.issue(["example.org"], NOW))
    assert "expired on 2026-05-11" in refused(*files, NOW + dt.timedelta(days=8))
    early = refused(*files, NOW - dt.timedelta(days=400))
    assert "not valid before" in early
    assert "by this machine's clock" in early


def test_a_clock_five_minutes_behind_will_do(tmp_path: Path) -> None:
    files = write(tmp_path, AUTHORITY.issue(["example.org"], NOW))
    read_files(*files, NOW - dt.timedelta(minutes=64))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no PEM certificate"),
        (b"garbage", "no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a PEM cert"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB", "not a PEM certificate"),
        (bytes(2_000_000), "more than"),
    ],
)
def test_chains_that_are_none(tmp_path: Path, content: bytes, reason: str) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(content)
    assert reason in refused(chain, None)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    said = refused(tmp_path / "nothing.pem", None)
    assert "nothing.pem: No such file" in said
    assert refused(tmp_path, None).endswith("Is a directory")


def test_keys_that_cannot_be_used(tmp_path: Path) -> None:
    made = AUTHORITY.issue(["example.org"], NOW)
    locked = made.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    assert "is encrypted" in refused(*write(tmp_path, made, locked))
    assert "no PEM private key" in refused(*write(tmp_path, made, b"nothing"))
    assert "no PEM private key" in refused(tmp_path / "chain.pem", None)
    small = key_pem(rsa.generate_private_key(65537, 1024))
    assert "at least 2048" in refused(*write(tmp_path, made, small))
    odd = key_pem(ec.generate_private_key(ec.SECP256K1()))
    assert "secp256k1" in refused(*write(tmp_path, made, odd))


def test_chains_out_of_order(tmp_path: Path) -> None:
    made = AUTHORITY.issue(["example.org"], NOW)
    chain, key = write(tmp_path, made)
    stranger = Authority.make(["example.org"], NOW)
    chain.write_bytes(made.pem() + stranger.pem())
    assert "out of order" in refused(chain, key)


def test_for_clients_only(tmp_path: Path) -> None:
    """RFC 5280 §4.2.1.12."""
    use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    made = self_signed(["example.org"], NOW, extensions=[(use, False)])
    assert "serverAuth" in refused(*write(tmp_path, made))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("example.org", "example.org", True), ("*.example.org", "www.example.org", True),
        ("*.example.org", "example.org", False), ("*.example.org", "a.b.example.org", False),
        ("*.0.0.1", "127.0.0.1", False), ("127.0.0.1", "127.0.0.1", True),
    ],
)  # fmt: skip
def test_wildcards(pattern: str, name: str, expected: bool) -> None:
    """RFC 9525 §6.3."""
    assert covers(pattern, name) is expected


RSA_WITH = bytes.fromhex("2a864886f70d0101")
"""RFC 8017 §A.2.4: what comes behind it is 4 for MD5, 5 for SHA-1, 11 for SHA-256."""


@pytest.mark.parametrize(("number", "name"), [(4, "MD5"), (5, "SHA-1")])
def test_rfc8446_4_4_2_4_signatures_that_nobody_takes(number: int, name: str) -> None:
    """The signature of one that is its own root counts for nothing."""
    key = rsa.generate_private_key(65537, 2048)
    for issuer in ("somebody", "example.org"):
        subject, by = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
            for name in ("example.org", issuer)
        )
        alternative = x509.SubjectAlternativeName([x509.DNSName("example.org")])
        builder = x509.CertificateBuilder(by, subject, key.public_key(), 7, NOW, NOW)
        made = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
        assert judge([made], key, NOW, source="").leaf == made
        octets = made.public_bytes(serialization.Encoding.DER)
        old = x509.load_der_x509_certificate(
            octets.replace(RSA_WITH + b"\x0b", RSA_WITH + bytes((number,)))
        )
        if issuer == "example.org":
            assert judge([old], key, NOW, source="").leaf == old
            continue
        with pytest.raises(CredentialError, match=rf"'example\.org' is signed with {name}, which"):
            judge([old], key, NOW, source="")
