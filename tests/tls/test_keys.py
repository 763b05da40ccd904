from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from appliance.tls.dane import owner, tlsa
from appliance.tls.keys import ALGORITHMS, SOFTWARE, TsigKey, make_tls_key, stanza
from appliance.tls.store import Store

NOW = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)
# Each server's own check of its settings, with the file to be checked at the end.
CHECKS = {
    "nsd": ["nsd-checkconf"],
    "knot": ["knotc", "-c"],
    "bind": ["named-checkconf"],
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_secrets_differ_and_are_not_shown(algorithm: str) -> None:
    """RFC 8945 §6: as long as the digest."""
    one, two = (TsigKey.make("transfer.example.org.", algorithm) for _ in range(2))
    assert one.secret != two.secret
    assert one.secret not in repr(one)
    assert one.line().startswith(f"{algorithm}:transfer.example.org:")


@pytest.mark.interop
@pytest.mark.parametrize("software", SOFTWARE)
def test_their_own_checkers_like_the_stanza(software: str, tmp_path: Path) -> None:
    program = CHECKS[software][0]
    if not shutil.which(program):
        if os.environ.get("CI"):
            pytest.fail(f"needs {program}")
        pytest.skip(f"needs {program}")
    key = TsigKey.make("transfer.example.org")
    text = stanza(software, key, ["example.org.", "2.0.192.in-addr.arpa"], "192.0.2.1")
    path = tmp_path / "other.conf"
    path.write_text(text)
    words = [*CHECKS[software], str(path), *(["conf-check"] if software == "knot" else [])]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr


def test_other_software_is_refused() -> None:
    with pytest.raises(ValueError, match="djbdns"):
        stanza("djbdns", TsigKey.make("a."), ["example.org"], "192.0.2.1")
    with pytest.raises(ValueError, match="hmac-md5"):
        TsigKey.make("a.", "hmac-md5")


def test_a_tls_key(tmp_path: Path) -> None:
    """RFC 2986 for the authority, RFC 7671 §5.1 for DNS; the key is for its owner alone."""
    made = make_tls_key(Store(tmp_path / "keys"), "web", ["example.org", "*.example.org"], NOW)
    request = x509.load_pem_x509_csr(made.request)
    assert request.is_signature_valid
    assert request.public_key() == made.credential.leaf.public_key()
    data = tlsa(made.credential.leaf)
    assert made.tlsa == (f"_443._tcp.example.org. 3600 IN TLSA {data}",)
    assert data.startswith("3 1 1 ")
    assert len(data) == 6 + 64
    assert (tmp_path / "keys/web.key").stat().st_mode & 0o777 == 0o600
    assert owner("example.org.", 853) == "_853._tcp.example.org."
