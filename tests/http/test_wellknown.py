"""security.txt by RFC 9116."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from appliance.http.site import load_site
from appliance.http.wellknown import Security
from tests.http.fakes import NOW, Client

TODAY = dt.date(2014, 2, 2)


def test_rfc9116_the_file() -> None:
    """RFC 9116 §2.5: one Expires, contacts in their order, Canonical over https."""
    security = Security(
        contact=["mailto:a@example.org", "https://example.org/report"],
        policy=["https://example.org/policy"],
        languages=["en", "de"],
    )
    assert security.faults(TODAY) == []
    assert security.text("https://example.org/", TODAY).decode().splitlines() == [
        "Contact: mailto:a@example.org",
        "Contact: https://example.org/report",
        "Expires: 2014-08-01T00:00:00Z",
        "Policy: https://example.org/policy",
        "Preferred-Languages: en, de",
        "Canonical: https://example.org/.well-known/security.txt",
    ]
    assert b"Canonical" not in security.text("http://localhost/", TODAY)


@pytest.mark.parametrize(
    ("security", "words"),
    [
        (Security(contact=[]), "at least one contact"),
        (Security(contact=["a@example.org"]), "is no URI"),
        (Security(contact=["mailto:a b"]), "is no URI"),
        (Security(contact=["mailto:a\nExpires: x"]), "is no URI"),
        (Security(contact=["http://example.org"]), "has to be https"),
        (Security(contact=["mailto:a@b"], expires=TODAY), "expired"),
    ],
)
def test_rfc9116_faults(security: Security, words: str) -> None:
    """RFC 9116 §2.5.3, §2.5.5: what would make the file useless is told."""
    (fault,) = security.faults(TODAY)
    assert words in fault


def test_it_is_served_unless_the_site_has_its_own(tmp_path: Path) -> None:
    security = Security(contact=["mailto:a@example.org"])
    loaded = load_site(tmp_path, theme=tmp_path / "_theme", now=NOW, security=security)
    reply = Client(site=loaded.site).ask("GET /.well-known/security.txt")
    assert b"Contact: mailto:a@example.org\n" in reply.body
    # RFC 9116 §3: text/plain with UTF-8.
    assert reply["content-type"] == "text/plain; charset=utf-8"
    (tmp_path / ".well-known").mkdir()
    (tmp_path / ".well-known" / "security.txt").write_text("own")
    loaded = load_site(tmp_path, theme=tmp_path / "_theme", now=NOW, security=security)
    assert Client(site=loaded.site).ask("GET /.well-known/security.txt").body == b"own"
    assert loaded.problems == ()


def test_faulty_settings_are_problems(tmp_path: Path) -> None:
    loaded = load_site(
        tmp_path, theme=tmp_path / "_theme", now=NOW, security=Security(contact=["x"])
    )
    assert [p.severity for p in loaded.problems] == ["error"]
    assert Client(site=loaded.site).ask("GET /.well-known/security.txt").status == 404
