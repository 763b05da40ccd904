"""The keeper of ACME's certificate and what it lays over zones, without an authority."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path
from typing import Any

import dns.message
import pytest

from appliance.dns import Catalog, Zone
from appliance.parts.acme import FIRST_WAIT, LONGEST_WAIT, TLSA_TTL, Keeper
from appliance.parts.certificates import Certificates
from appliance.parts.holder import Holder
from appliance.parts.overlay import Overlay
from appliance.settings import Acme, Settings, Site, Tls
from appliance.tls.acme import AcmeError, Proof
from appliance.tls.authority import self_signed
from appliance.tls.credential import Credential, key_pem
from appliance.tls.dane import tlsa

NOW = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)
TEXT = """\
$ORIGIN example.org.
$TTL 300
@ SOA ns1 root 7 7200 3600 604800 60
@ NS ns1
ns1 A 192.0.2.1
@ CAA 0 issue "good.example"
wild CAA 0 issuewild "other.example"
nobody CAA 0 issue ";"
_acme-challenge.fixed TXT "the zone's own"
"""


class Clock:
    now = NOW

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def overlay() -> Overlay:
    return Overlay(Holder(Catalog([Zone.from_text(TEXT)])))


@pytest.fixture
def keeper(tmp_path: Path, overlay: Overlay, clock: Clock) -> Keeper:
    return build(tmp_path, overlay, clock)


def build(folder: Path, overlay: Overlay, clock: Clock) -> Keeper:
    settings = Settings(
        site=Site(base_url="http://example.org"),
        tls=Tls(state=folder / "state"),
        acme=Acme(directory="https://ca.example/dir", names=("example.org",), tlsa=True),
    )
    return Keeper(settings, Certificates(settings, clock=clock), overlay)


def ask(overlay: Overlay, name: str, kind: str) -> list[str]:
    return sorted(str(rdata) for rdata in overlay.lookup(name, kind))


def serial(overlay: Overlay) -> int:
    return int(overlay.lookup("example.org.", "SOA")[0].serial)  # type: ignore[attr-defined]


# -- records that come and go --


def test_proofs_come_and_go(overlay: Overlay) -> None:
    """RFC 8555 §8.4: two proofs at one place, for a name and its wildcard."""
    before = serial(overlay)
    overlay.publish("_acme-challenge.example.org.", "TXT", 5, ['"one"', '"two"'])
    assert ask(overlay, "_acme-challenge.example.org.", "TXT") == ['"one"', '"two"']
    assert serial(overlay) > before
    overlay.withdraw("_acme-challenge.example.org.", "TXT")
    assert ask(overlay, "_acme-challenge.example.org.", "TXT") == []
    overlay.withdraw("_acme-challenge.example.org.", "TXT")


def test_what_the_zone_had_comes_back(overlay: Overlay) -> None:
    name = "_acme-challenge.fixed.example.org."
    overlay.publish(name, "TXT", 5, ['"a proof"'])
    overlay.publish(name, "TXT", 5, ['"another"'])
    assert ask(overlay, name, "TXT") == ['"another"']
    overlay.withdraw(name, "TXT")
    assert ask(overlay, name, "TXT") == ['"the zone\'s own"']


def test_a_reload_hides_nothing_for_long() -> None:
    holder = Holder(Catalog([Zone.from_text(TEXT)]))
    told: list[Any] = []
    overlay = Overlay(holder, told.append)
    overlay.publish("_acme-challenge.example.org.", "TXT", 5, ['"one"'])
    holder.current = Catalog([Zone.from_text(TEXT)])
    overlay.lay()
    assert ask(overlay, "_acme-challenge.example.org.", "TXT") == ['"one"']
    overlay.lay()
    assert len(told) == 2  # secondaries hear of each version, and of no other


def test_other_peoples_names_are_refused(overlay: Overlay) -> None:
    with pytest.raises(LookupError, match="in no zone of ours"):
        overlay.publish("_acme-challenge.example.net.", "TXT", 5, ['"one"'])
    with pytest.raises(ValueError, match="TLSA"):
        overlay.publish("_443._tcp.example.org.", "TLSA", 5, ["3 1 1 xyz"])


def test_workers_hear_of_proofs_that_are_there(keeper: Keeper, overlay: Overlay) -> None:
    """RFC 8555 §8.4: the authority asks whichever of them, as soon as it has been told to."""
    seen: list[tuple[bool, list[str]]] = []
    name = "_acme-challenge.example.org."
    keeper.on_proofs = lambda shown: seen.append((shown, ask(overlay, name, "TXT")))
    proof = Proof("dns-01", "example.org", "token", "one")
    asyncio.run(keeper._show([proof]))
    asyncio.run(keeper._hide([proof]))
    assert seen[0] == (True, ['"one"'])
    assert [shown for shown, _ in seen] == [True, False]


# -- CAA --


@pytest.mark.parametrize(
    ("name", "identity", "allowed"),
    [
        ("example.org", "good.example", True), ("example.org", "bad.example", False),
        ("deep.below.example.org", "good.example", True), ("ns1.example.org", "bad.example", False),
        ("*.example.org", "good.example", True), ("*.wild.example.org", "other.example", True),
        ("*.wild.example.org", "good.example", False), ("wild.example.org", "bad.example", True),
        ("nobody.example.org", "good.example", False),
    ],
)  # fmt: skip
def test_caa(keeper: Keeper, name: str, identity: str, allowed: bool) -> None:
    """RFC 8659 §3, §4: the closest records towards the root, wildcards by issuewild first."""
    work = keeper._check([name], [identity])
    if allowed:
        asyncio.run(work)
        return
    with pytest.raises(AcmeError, match=f"CAA for .*{identity}"):
        asyncio.run(work)


# -- failures --


def fail(keeper: Keeper, error: Exception) -> float:
    """Seconds until the next try."""
    now = keeper._certificates.now()
    keeper._failed(error, now)
    assert keeper.held.renew is not None
    return (keeper.held.renew - now).total_seconds()


def test_failures_wait_longer_and_survive_restarts(
    keeper: Keeper, tmp_path: Path, overlay: Overlay, clock: Clock
) -> None:
    waits = [fail(keeper, AcmeError("order", "no")) for _ in range(15)]
    assert all(0.8 * FIRST_WAIT * 2**n <= w <= 1.2 * FIRST_WAIT * 2**n
               for n, w in enumerate(waits[:8]))  # fmt: skip
    assert waits[-1] <= 1.2 * LONGEST_WAIT
    again = build(tmp_path, overlay, clock)
    assert again.held.renew is not None
    assert again.held.renew > NOW + dt.timedelta(hours=19)
    assert again.held.error == "order: no"


def test_a_rate_limit_is_respected(keeper: Keeper) -> None:
    """RFC 8555 §6.6: Retry-After."""
    assert fail(keeper, AcmeError("order", "rateLimited: too many", wait=7200.0)) == 7200.0


def test_a_rate_limit_for_ever_is_one_for_a_week(keeper: Keeper) -> None:
    assert fail(keeper, AcmeError("order", "later", wait=float("inf"))) == 7 * 86400.0


def test_failures_for_years(keeper: Keeper) -> None:
    """Every day, for longer than a float has room for what is doubled each time."""
    keeper._failures = 2000
    assert fail(keeper, AcmeError("order", "no")) <= 1.2 * LONGEST_WAIT


def test_a_clock_that_ran_ahead_puts_nothing_off(
    keeper: Keeper, tmp_path: Path, overlay: Overlay, clock: Clock
) -> None:
    """A machine without a clock is years off until it asks for the time, and orders in vain."""
    clock.now = NOW + dt.timedelta(days=3650)
    fail(keeper, AcmeError("order", "the authority's certificate has expired"))
    clock.now = NOW
    for again in (keeper, build(tmp_path, overlay, clock)):
        assert again._due(NOW) == NOW


def test_a_clock_that_was_set_finds_what_was_kept(
    tmp_path: Path, overlay: Overlay, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not ordered anew: authorities count."""
    kept = self_signed(["example.org"], NOW)
    build(tmp_path, overlay, clock)._certificates.store.write(
        "acme/certificate.pem", key_pem(kept.key) + kept.pem()
    )
    clock.now = NOW - dt.timedelta(days=20_000)
    keeper = build(tmp_path, overlay, clock)
    assert not keeper._certificates.ready
    fail(keeper, AcmeError("order", "the authority's certificate is not valid yet"))
    clock.now = NOW
    new: list[int] = []
    keeper.on_new = lambda: new.append(1)
    asyncio.run(keeper._look())
    assert not keeper.orders
    assert keeper.held.credential is not None
    assert keeper.held.credential.fingerprint == kept.fingerprint
    assert (keeper.held.error, keeper._failures, new) == ("", 0, [1])


@pytest.mark.parametrize("kept", ["[]", "3", '{"failures": 1, "error": "", "not_before": 7}'])
def test_failures_that_were_kept_and_are_spoilt(
    tmp_path: Path, overlay: Overlay, clock: Clock, kept: str
) -> None:
    folder = tmp_path / "state/tls/acme"
    folder.mkdir(parents=True)
    (folder / "failures.json").write_text(kept)
    keeper = build(tmp_path, overlay, clock)
    assert "what was kept cannot be used" in keeper.held.error
    assert keeper._due(NOW) == NOW


def test_it_is_looked_after_whatever_happens(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No error ends the renewals of years to come."""
    rounds: list[float] = []

    async def look() -> None:
        raise ZeroDivisionError

    async def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(keeper, "_look", look)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keeper._look_after())
    assert rounds == [60.0, 60.0]
    assert "not looked after this time" in caplog.text


def test_records_are_laid_again_whatever_happens(
    keeper: Keeper, overlay: Overlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[float] = []

    def lay() -> None:
        raise ZeroDivisionError

    async def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(overlay, "lay", lay)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keeper._lay_again())
    assert len(rounds) == 3


@pytest.mark.parametrize(
    ("said", "waited"), [(None, 6 * 3600), (7200, 7200), (1, 60), (10**6, 86400)]
)
def test_rfc9773_4_3_2_it_is_asked_again_when_the_authority_says(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, said: float | None, waited: float
) -> None:
    """Within a minute and a day; and after six hours if that failed (§4.3.3)."""
    keeper.held.credential = self_signed(["example.org"], NOW)
    keeper.held.renew = NOW + dt.timedelta(days=30)

    class Orders:
        def renewal(self, _credential: Credential) -> tuple[None, dt.datetime]:
            if said is None:
                raise AcmeError("renewal information", "no answer")
            asked.append(1)
            return None, dt.datetime.now(dt.UTC) + dt.timedelta(seconds=said)

    async def scenario() -> None:
        keeper._loop = loop = asyncio.get_running_loop()
        await keeper._ask_when()
        assert abs(keeper._ask_at - loop.time() - waited) < 30
        before = len(asked)
        await keeper._look()
        assert len(asked) == before

    async def sleep(_seconds: float) -> None:
        """An hour."""

    asked: list[int] = []
    monkeypatch.setattr(keeper, "_orders", lambda _directory: Orders())
    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(scenario())


def test_a_failed_renewal_touches_nothing(keeper: Keeper) -> None:
    working = self_signed(["example.org"], NOW)
    keeper.held.credential = working
    contexts = keeper._certificates.contexts("https", ())
    fail(keeper, OSError(28, "No space left on device"))
    keeper._certificates.changed()
    assert keeper.held.credential is working
    assert contexts.credentials[0] is working
    assert "No space left" in keeper.held.error


def test_a_full_disk_while_renewing(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old certificate is served and stays on the disk; with room again it is renewed."""
    old, new = (self_signed(["example.org"], NOW) for _ in range(2))
    store = keeper._certificates.store
    store.write("acme/certificate.pem", old.pem())
    keeper.held.credential = old

    async def obtained(_work: Any) -> Credential:
        return new

    async def soon(_seconds: float) -> None:
        """TLSA records have their time at once."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeper, "_in_thread", obtained)
    monkeypatch.setattr(asyncio, "sleep", soon)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert not asyncio.run(keeper.renew())
    assert keeper.held.credential is old
    assert "certificate.pem: No space left on device; what was there stays" in keeper.held.error
    assert store.read("acme/certificate.pem") == old.pem()
    assert keeper.held.renew is not None
    assert keeper.held.renew > NOW
    assert asyncio.run(keeper.renew())
    assert keeper.held.credential is new
    assert keeper.held.error == ""


def test_what_was_kept_and_is_spoilt(tmp_path: Path, overlay: Overlay, clock: Clock) -> None:
    folder = tmp_path / "state/tls/acme"
    folder.mkdir(parents=True)
    (folder / "certificate.pem").write_text("spoilt")
    keeper = build(tmp_path, overlay, clock)
    assert keeper.held.credential is None
    assert "what was kept cannot be used" in keeper.held.error
    assert keeper.held.renew == NOW


# -- TLSA --


def test_a_new_key_is_told_before_it_is_used(
    keeper: Keeper, overlay: Overlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 7671 §8.1."""
    old, new = (self_signed(["example.org"], NOW) for _ in range(2))
    keeper.held.credential = old
    keeper._publish_tlsa([old])
    seen: list[tuple[float, list[str], Any]] = []

    async def sleep(seconds: float) -> None:
        records = ask(overlay, "_443._tcp.example.org.", "TLSA")
        seen.append((seconds, records, keeper.held.credential))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(keeper._take_into_use(new))
    [(seconds, records, used)] = seen
    assert seconds >= 2 * TLSA_TTL
    assert records == sorted([tlsa(old.leaf), tlsa(new.leaf)])
    assert used is old
    assert keeper.held.credential is new
    assert ask(overlay, "_443._tcp.example.org.", "TLSA") == [tlsa(new.leaf)]


def test_answers_carry_the_overlay(overlay: Overlay) -> None:
    """What is laid over a zone is answered like the rest of it, and denied when it is gone."""
    overlay.publish("new.example.org.", "A", 5, ["192.0.2.77"])
    query = dns.message.make_query("NEW.example.org", "A")
    reply = dns.message.from_wire(overlay._catalog.current.answer(query.to_wire()) or b"")
    assert "192.0.2.77" in reply.to_text()


def test_the_authority_says_when(tmp_path: Path) -> None:
    """RFC 9773 §4.1: a time within the window that it suggests, and no order before it is due."""
    import json

    from appliance.tls.acme import Authority as Wanted
    from appliance.tls.acme import Orders
    from appliance.tls.authority import Authority
    from appliance.tls.store import Store

    now = dt.datetime.now(dt.UTC)
    credential = Authority.make(["example.org"], now).issue(["example.org"], now)
    start, end = now + dt.timedelta(days=2), now + dt.timedelta(days=3)
    asked: list[str] = []
    base = "https://ca.example"
    places = {name: f"{base}/{name}" for name in ("newNonce", "newAccount", "newOrder")}
    window = {"start": start.isoformat(), "end": end.isoformat()}

    def send(method: str, url: str, fields: Any, body: bytes) -> Any:
        asked.append(f"{method} {url}")
        told: Any = {"status": "valid"}
        if url.endswith("/dir"):
            told = {**places, "renewalInfo": f"{base}/ari"}
        elif "/ari/" in url:
            told = {"suggestedWindow": window}
        headers = [("Content-Type", "application/json"), ("Replay-Nonce", "bm9uY2U")]
        status = 201 if url.endswith("newAccount") else 200
        return status, [*headers, ("Location", f"{base}/account")], json.dumps(told).encode()

    orders = Orders(Wanted(f"{base}/dir", agree=True), Store(tmp_path), send)
    when, again = orders.renewal(credential)
    assert when is not None
    assert start <= when <= end
    assert again > now
    assert any("/ari/" in line for line in asked)
    assert not any("newOrder" in line for line in asked)
