"""The part that holds certificates: files that change, the local CA, disks that are full."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from OpenSSL import SSL

from appliance import files
from appliance.parts.certificates import RETRY, Certificates
from appliance.settings import CertificateFiles, Settings, Site, Tls
from appliance.settings.tls import SUITES
from appliance.tls.authority import Authority
from appliance.tls.contexts import RefusedError
from appliance.tls.credential import key_pem
from appliance.tls.errors import CredentialError
from appliance.tls.hello import Hello
from tests.tls.rig import Rig, client_context

if TYPE_CHECKING:
    from appliance.content import Content
    from appliance.net.transport import Stack

NOW = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)
AUTHORITY = Authority.make(["example.org"], NOW)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Callable[..., Certificates]:
    def build(
        *files: CertificateFiles,
        url: str = "http://example.org",
        ciphers: tuple[str, ...] = (),
        keylog: Path | None = None,
    ) -> Certificates:
        settings = Settings(
            site=Site(base_url=url),
            tls=Tls(state=tmp_path / "state", ciphers=ciphers, keylog=keylog),
            certificate=files,
        )
        return Certificates(settings, clock=clock)

    return build


def put(folder: Path, when: dt.datetime, stamp: int) -> CertificateFiles:
    """Write a new certificate, with a modification time of its own."""
    made = AUTHORITY.issue(["example.org"], when)
    chain, key = folder / "chain.pem", folder / "key.pem"
    key.write_bytes(key_pem(made.key))
    key.chmod(0o600)
    chain.write_bytes(made.pem())
    for path in (chain, key):
        os.utime(path, (stamp, stamp))
    return CertificateFiles(chain=chain, key=key)


def status(certificates: Certificates) -> dict[str, Any]:
    certificates.save_status()
    text = certificates.store.path("status.json").read_text()
    return json.loads(text)["certificates"][0]  # type: ignore[no-any-return]


def test_a_first_run(make: Callable[..., Certificates], tmp_path: Path) -> None:
    """RFC 5280 §6: the leaf verifies by the CA on disk, which is for its owner alone."""
    certificates = make()
    [credential] = certificates.credentials()
    folder = tmp_path / "state/tls"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    verifier = PolicyBuilder().store(Store([authority])).time(NOW)
    verifier.build_server_verifier(x509.DNSName("example.org")).verify(credential.leaf, [])
    assert {"example.org", "localhost", "127.0.0.1", "10.0.0.2"} <= set(credential.names)


def test_the_ca_is_constrained(make: Callable[..., Certificates]) -> None:
    """RFC 5280 §4.2.1.10: it can vouch for our names and for nothing else."""
    authority = make().authority
    assert authority is not None
    assert authority.permits(["example.org", "www.example.org", "localhost", "127.0.0.1"])
    assert not authority.permits(["example.com"])
    assert not authority.permits(["notexample.org"])
    assert not authority.permits(["192.0.2.1"])
    constraints = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical


def test_the_ca_is_kept_and_the_leaf_is_not(make: Callable[..., Certificates]) -> None:
    first, second = make(), make()
    assert first.authority is not None
    assert second.authority is not None
    assert first.authority.certificate == second.authority.certificate
    assert first.credentials()[0].leaf != second.credentials()[0].leaf


def test_other_names_want_another_ca(make: Callable[..., Certificates]) -> None:
    first = make()
    second = make(url="http://example.net")
    assert first.authority is not None
    assert second.authority is not None
    assert first.authority.certificate != second.authority.certificate
    assert any("trust it again" in note for note in second.notes())


def test_the_leaf_renews_itself(make: Callable[..., Certificates], clock: Clock) -> None:
    """After two thirds of its life, on every listener, without a new accept context."""
    certificates = make()
    contexts = certificates.contexts("https", (b"http/1.1",))
    first = contexts.credentials[0].leaf
    clock.now += dt.timedelta(days=4)
    certificates.look()
    assert contexts.credentials[0].leaf == first
    clock.now += dt.timedelta(days=1)
    certificates.look()
    assert contexts.credentials[0].leaf != first
    assert contexts.credentials[0].not_after > clock.now + dt.timedelta(days=6)


def test_a_clock_that_went_back(make: Callable[..., Certificates], clock: Clock) -> None:
    """A year before the CA was made: what works stays, and the reason names the clock."""
    certificates = make()
    first = certificates.credentials()
    clock.now -= dt.timedelta(days=365)
    certificates.look()
    assert certificates.credentials() == first
    assert "machine's clock" in certificates.held()[0].error
    clock.now = NOW + dt.timedelta(days=6)
    certificates.look()
    assert certificates.held()[0].error == ""
    assert certificates.credentials() != first


def test_a_state_directory_that_cannot_be_written(
    make: Callable[..., Certificates], tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file")
    certificates = make()
    assert not certificates.ready
    assert any("HTTPS is off" in note and "state" in note for note in certificates.notes())


@pytest.mark.parametrize("told", [False, True])
def test_a_state_directory_that_is_mended_later(
    make: Callable[..., Certificates],
    tmp_path: Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    told: bool,
) -> None:
    """HTTPS is off until then and no longer, by the clock or at once when told to reload."""
    (tmp_path / "state").write_text("a file")
    certificates = make()
    contexts = certificates.contexts("https", (b"h2",))
    noticed: list[bool] = []
    certificates.on_change = lambda: noticed.append(certificates.ready)
    clock.now += dt.timedelta(seconds=RETRY)
    certificates.look()
    assert not certificates.ready
    assert caplog.messages == []  # the reason is the one that the banner told
    (tmp_path / "state").unlink()
    clock.now += dt.timedelta(seconds=RETRY - 1)
    certificates.look()
    assert not certificates.ready
    if told:
        certificates.reload(cast("Content", None))
    else:
        clock.now += dt.timedelta(seconds=1)
        certificates.look()
    assert certificates.ready
    assert noticed == [True]
    assert contexts.choose(Hello("example.org"))
    assert status(certificates)["error"] is None
    place = tmp_path / "state/tls/ca.pem"
    assert caplog.messages == [f"HTTPS is on: the local CA is there, {place}"]


def test_another_reason_is_told(
    make: Callable[..., Certificates],
    tmp_path: Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of a spoilt authority that its owner has taken away while the disk became read-only."""
    made = make()
    made.store.path("ca.pem").write_text("spoilt")
    certificates = make()
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_text("a file")
    clock.now += dt.timedelta(seconds=RETRY)
    certificates.look()
    [line] = caplog.messages
    assert line.startswith("HTTPS is still off, for want of a local CA: ")


def test_one_worker_makes_the_authority_that_all_find(
    make: Callable[..., Certificates], tmp_path: Path, clock: Clock
) -> None:
    """Two that made one each would have clients trust the wrong one."""
    (tmp_path / "state").write_text("a file")
    first, second = make(), make()
    second.makes = False
    (tmp_path / "state").unlink()
    clock.now += dt.timedelta(seconds=RETRY)
    second.look()
    assert not second.ready
    first.look()
    second.look()
    assert first.authority is not None
    assert second.authority is not None
    assert first.authority.certificate == second.authority.certificate


def test_a_spoilt_ca_is_not_replaced(make: Callable[..., Certificates], tmp_path: Path) -> None:
    """It may be trusted somewhere: the owner decides."""
    make()
    (tmp_path / "state/tls/ca.pem").write_text("spoilt")
    certificates = make()
    assert not certificates.ready
    assert any("remove it to have a new one" in note for note in certificates.notes())


def test_files_are_watched(make: Callable[..., Certificates], tmp_path: Path, clock: Clock) -> None:
    files = put(tmp_path, NOW, 1)
    certificates = make(files)
    contexts = certificates.contexts("https", ())
    first = contexts.credentials
    certificates.look()
    assert contexts.credentials is first
    put(tmp_path, NOW, 2)
    certificates.look()
    assert contexts.credentials != first


def test_bad_files_leave_the_old_certificate(
    make: Callable[..., Certificates], tmp_path: Path, clock: Clock
) -> None:
    files = put(tmp_path, NOW, 1)
    certificates = make(files)
    contexts = certificates.contexts("https", ())
    first = contexts.credentials
    key = files.key
    assert key is not None
    right = key.read_bytes()
    key.write_bytes(key_pem(AUTHORITY.issue(["example.org"], NOW).key))
    certificates.look()
    assert contexts.credentials == first
    assert "do not belong together" in status(certificates)["error"]
    key.write_bytes(right)
    os.utime(key, (3, 3))
    certificates.look()
    assert status(certificates)["error"] is None


def test_bad_files_at_the_start_are_told(make: Callable[..., Certificates], tmp_path: Path) -> None:
    certificates = make(CertificateFiles(chain=tmp_path / "absent.pem"))
    assert not certificates.ready
    assert any("absent.pem" in note for note in certificates.notes())


def test_a_key_that_others_can_read_is_told(
    make: Callable[..., Certificates], tmp_path: Path
) -> None:
    files = put(tmp_path, NOW, 1)
    assert files.key is not None
    files.key.chmod(0o644)
    assert any("everybody can read" in note for note in make(files).notes())


def test_a_full_disk_keeps_what_was_there(
    make: Callable[..., Certificates], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make().store
    store.write("acme/certificate.pem", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CredentialError, match=r"No space left on device; what was there stays"):
        store.write("acme/certificate.pem", b"new")
    assert store.read("acme/certificate.pem") == b"old"
    assert os.listdir(store.path("acme")) == ["certificate.pem"]


def test_what_a_killed_process_left_is_in_nobodys_way_and_goes(
    make: Callable[..., Certificates], tmp_path: Path
) -> None:
    """In a container each process has the number of the one before."""
    store = make().store
    left = [files.place_beside(store.path(name)) for name in ("ca.key", "acme/account.key")]
    store.write("acme/account.key", b"old")
    for one in left:
        one.write_bytes(b"half a key")
    store.write("acme/account.key", b"new")
    assert store.read("acme/account.key") == b"new"
    left[1].write_bytes(b"half a key")
    make()
    assert not any(one.exists() for one in left)


def test_files_that_are_mended_later_are_offered(
    make: Callable[..., Certificates], tmp_path: Path
) -> None:
    """Nobody has to start anew for a certificate that was bad at the start."""
    files = CertificateFiles(chain=tmp_path / "chain.pem", key=tmp_path / "key.pem")
    certificates = make(files)
    contexts = certificates.contexts("https", (b"h2",))
    with pytest.raises(RefusedError, match="no certificate"):
        contexts.choose(Hello("example.org"))
    certificates.look()
    put(tmp_path, NOW, 1)
    certificates.look()
    assert certificates.ready
    assert contexts.choose(Hello("example.org"))


@pytest.mark.parametrize("told", [False, True])
def test_files_are_tried_again_when_it_was_the_clock(
    make: Callable[..., Certificates], tmp_path: Path, clock: Clock, told: bool
) -> None:
    """A machine learns the time a moment after its start; no file changes by that."""
    files = put(tmp_path, NOW, 1)  # good from an hour before that on, less five minutes
    clock.now = NOW - dt.timedelta(minutes=65, seconds=10)
    certificates = make(files)
    assert "by this machine's clock" in certificates.held()[0].error
    clock.now += dt.timedelta(seconds=30)
    certificates.look()
    assert not certificates.ready
    if told:
        certificates.reload(cast("Content", None))
    else:
        clock.now += dt.timedelta(seconds=31)
        certificates.look()
    assert certificates.ready
    assert certificates.held()[0].error == ""


@pytest.mark.asyncio
async def test_whoever_begins_late_looks_at_once(
    make: Callable[..., Certificates], clock: Clock
) -> None:
    """A worker is forked from what its supervisor made: weeks ago, perhaps."""
    certificates = make()
    [old] = certificates.credentials()
    clock.now += dt.timedelta(days=30)
    await certificates.begin(cast("Stack", None))
    [new] = certificates.credentials()
    assert old.not_after < clock.now < new.not_after
    await certificates.end()


def test_services_share_keys_and_no_sessions(
    make: Callable[..., Certificates], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8446 §4.6.1: what is in a ticket says where it is good, not its key."""
    certificates = make()
    web, dot = (certificates.contexts(name, ()) for name in ("https", "dot"))
    assert web.choose(Hello()).accept is dot.choose(Hello()).accept
    for tls12 in (False, True):
        context = client_context(tls12=tls12)
        first = Rig(monkeypatch, offered=web).shake(context=context)
        session = first.client.get_session()
        for offered, resumes in ((dot, 0), (web, 1)):
            again = Rig(monkeypatch, offered=offered, loop=first.loop)
            again.shake(context=context, session=session)
            assert (again.server.counters.handshakes, again.server.counters.resumed) == (1, resumes)


GCM, CBC = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA"


@pytest.mark.parametrize(
    ("ciphers", "offered", "agreed"),
    [
        ((), "DEFAULT", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ((), CBC, None),  # RFC 9325 §4.2 recommends none of these
        ((GCM, CBC), "DEFAULT", GCM),
        ((GCM, CBC), f"{CBC}:{GCM}", GCM),  # our order decides
        ((GCM, CBC), CBC, CBC),
        ((CBC,), GCM, None),
    ],
)
def test_suites_of_tls_12_are_those_of_the_settings(
    make: Callable[..., Certificates],
    monkeypatch: pytest.MonkeyPatch,
    ciphers: tuple[str, ...],
    offered: str,
    agreed: str | None,
) -> None:
    context = client_context(tls12=True)
    context.set_cipher_list(offered.encode())
    rig = Rig(monkeypatch, offered=make(ciphers=ciphers).contexts("https", ()))
    if agreed is None:
        with pytest.raises(SSL.Error, match="handshake failure"):
            rig.shake(context=context)
        return
    rig.shake(context=context)
    assert rig.client.get_cipher_name() == agreed
    assert rig.client.get_protocol_version_name() == "TLSv1.2"


@pytest.mark.parametrize(
    ("path", "why"),
    [("/dev/full", "No space left on device"), ("/nowhere/keys", "No such file or directory")],
)
def test_keys_of_sessions_that_cannot_be_written_are_told_once(
    make: Callable[..., Certificates],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    path: str,
    why: str,
) -> None:
    certificates = make(keylog=Path(path))
    rig = Rig(monkeypatch, offered=certificates.contexts("https", ()))
    rig.shake()
    asyncio.run(certificates.end())
    assert rig.client.get_protocol_version_name() == "TLSv1.3"
    assert caplog.messages == [f"tls.keylog {path}: {why}; keys of sessions are lost"]
    assert capsys.readouterr().err == ""  # where cffi tells of exceptions in callbacks


def test_a_refused_renewal_is_told_to_who_asks(
    make: Callable[..., Certificates], tmp_path: Path
) -> None:
    """`appliance tls` reads the file; its status is 1 if there is an error."""
    files = put(tmp_path, NOW, 1)
    certificates = make(files)
    certificates.save_status()
    files.chain.write_text("no certificate")
    certificates.look()
    text = certificates.store.path("status.json").read_text()
    assert "no PEM certificate" in json.loads(text)["certificates"][0]["error"]


def test_every_suite_that_may_be_named_exists() -> None:
    for suite in SUITES:
        context = client_context(tls12=True)
        context.set_cipher_list(suite.encode())
        assert suite in SSL.Connection(context, None).get_cipher_list()
