"""[dns] of appliance.toml as a name server, and the query log."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from appliance.config import ConfigError, load
from appliance.content import load_content
from appliance.dns import names
from appliance.parts.authority import Authority
from appliance.parts.dns_options import OptionsError, options
from appliance.parts.query_log import QueryLog
from tests.dns.util import corner, question

SECRET = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def made(folder: Path, text: str) -> Any:
    """The options that a [dns] section leads to."""
    path = folder / "appliance.toml"
    path.write_text('[net]\nlink = "tap:t0"\n' + text)
    return options(load(path))


def test_defaults_give_nothing_away(tmp_path: Path) -> None:
    found = made(tmp_path, "")
    assert not found.policy
    assert not found.transfers.allows(b"\1x\0", "192.0.2.1", None)
    assert found.notifier is None
    assert found.chaos == {}
    assert found.state is None
    assert found.limiter is not None
    assert found.extensions.cookies is not None


@pytest.mark.parametrize(
    "form", [SECRET, f'key "k.example" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n']
)
def test_neighbours(tmp_path: Path, form: str) -> None:
    (tmp_path / "k.key").write_text(form)
    found = made(
        tmp_path,
        """\
[dns]
version = "v"
[[dns.key]]
name = "k.example"
file = "k.key"
[[dns.secondary]]
address = "192.0.2.53"
key = "k.example"
zones = ["a.example"]
[[dns.secondary]]
networks = ["198.51.100.0/24"]
[[dns.secondary]]
networks = ["203.0.113.64/26"]
tls = true
[[dns.primary]]
address = "192.0.2.54"
zones = ["b.example"]
[[dns.update]]
key = "k.example"
names = ["*.dyn"]
types = ["TXT"]
""",
    )
    a, b = names.from_text("a.example."), names.from_text("b.example.")
    secret = names.from_text("k.example.")
    allows = found.transfers.allows
    assert allows(a, "203.0.113.1", secret)
    assert not allows(a, "203.0.113.1", None)
    assert not allows(b, "203.0.113.1", secret)
    assert allows(b, "198.51.100.7", None)
    assert not allows(b, "203.0.113.65", None)
    assert allows(b, "203.0.113.65", None, tls=True)
    assert [one.address for one in found.secondaries[b]] == ["192.0.2.54"]
    assert found.policy.allows(secret, a, names.from_text("x.dyn.a.example."), 16)
    assert not found.policy.allows(secret, a, names.from_text("x.dyn.a.example."), 1)
    assert found.chaos[names.from_text("version.bind.")] == b"\1v"
    assert found.state == tmp_path / "state" / "dns"


def test_a_bad_key_is_told_without_its_octets(tmp_path: Path) -> None:
    text = '[[dns.key]]\nname = "k"\nfile = "k.key"\n'
    with pytest.raises(OptionsError, match="cannot be read"):
        made(tmp_path, text)
    for content in ("c2hvcnQ=", "!!!not base64!!!"):
        (tmp_path / "k.key").write_text(content)
        with pytest.raises(OptionsError) as caught:
            made(tmp_path, text)
        assert content not in str(caught.value)


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_query_log(tmp_path: Path, form: str) -> None:
    catalog = corner()

    class Inner:
        current = catalog

    async def scenario() -> None:
        log = QueryLog(Inner(), tmp_path / "log", form, 1.0, lambda _line: None)
        log.current.answer(question("ns1.corner.test."), peer=("192.0.2.7", 5))
        log.current.stream(question("no.corner.test.", "MX"), peer=("192.0.2.7", 5))
        log.current.answer(b"short", peer=("192.0.2.7", 5))
        await log.close()

    asyncio.run(scenario())
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 3
    if form == "json":
        first = json.loads(lines[0])
        assert (first["name"], first["type"], first["rcode"]) == (
            "ns1.corner.test.",
            "A",
            "noerror",
        )
        assert json.loads(lines[2])["rcode"] == "none"
    else:
        assert lines[0].split()[1:6] == ["192.0.2.7", "udp", "ns1.corner.test.", "A", "noerror"]
        assert lines[1].split()[2:6] == ["tcp", "no.corner.test.", "MX", "noerror"]
    assert catalog.counters.logged == 3
    assert catalog.counters.by_type() == {"A": 1, "MX": 1}


class OnlyCatalog:
    """What a query log stands before."""

    def __init__(self) -> None:
        self.current = corner()


def test_the_query_log_goes_on_in_a_new_file_when_its_own_was_renamed(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = QueryLog(OnlyCatalog(), tmp_path / "log", "text", 1.0, lambda _line: None)
        log.current.answer(question("ns1.corner.test."))
        (tmp_path / "log").rename(tmp_path / "log.1")
        log.reopen()
        log.current.answer(question("no.corner.test."))
        await log.close()

    asyncio.run(scenario())
    assert "ns1.corner.test." in (tmp_path / "log.1").read_text()
    assert "no.corner.test." in (tmp_path / "log").read_text()


def test_a_query_log_on_a_full_disk_is_told_once_and_ends_like_any(tmp_path: Path) -> None:
    said: list[str] = []

    async def scenario() -> None:
        log = QueryLog(OnlyCatalog(), Path("/dev/full"), "text", 1.0, said.append)
        log.current.answer(question("ns1.corner.test."))
        log.reopen()  # writes at once, or tries to
        log.current.answer(question("ns1.corner.test."))
        await log.close()

    asyncio.run(scenario())
    assert said == ["error: the query log /dev/full: No space left on device; lines are lost"]


def test_whose_updates_are_forwarded(tmp_path: Path) -> None:
    """RFC 2136 §6: nobody's, unless the settings say so."""
    (tmp_path / "k.key").write_text(SECRET)
    assert not made(tmp_path, "").forward
    found = made(
        tmp_path,
        """\
[[dns.key]]
name = "k.example"
file = "k.key"
[[dns.forward]]
key = "k.example"
zones = ["a.example"]
[[dns.forward]]
networks = ["198.51.100.0/24"]
""",
    ).forward
    a, b = names.from_text("a.example."), names.from_text("b.example.")
    secret = names.from_text("k.example.")
    assert found
    assert found.allows(a, "203.0.113.1", secret)
    assert not found.allows(b, "203.0.113.1", secret)
    assert found.allows(b, "198.51.100.7", None)
    assert found.allows(a, "198.51.100.7", None)


@pytest.mark.parametrize("table", ["[[dns.forward]]\n", '[[dns.forward]]\nkey = "no.example"\n'])
def test_a_forward_for_nobody(tmp_path: Path, table: str) -> None:
    with pytest.raises(ConfigError, match=r"dns\.forward"):
        made(tmp_path, table)


def test_a_look_at_the_zones_that_fails_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever went wrong, the next edit is served."""
    (tmp_path / "zones").mkdir()
    (tmp_path / "site").mkdir()
    path = tmp_path / "appliance.toml"
    path.write_text("[tls]\nport = 0\ndot_port = 0\n")
    settings = load(path)
    authority = Authority(settings, load_content(settings))
    looks: list[int] = []

    def fails(*_: object, **__: object) -> None:
        looks.append(1)
        raise MemoryError if len(looks) < 3 else asyncio.CancelledError

    monkeypatch.setattr("appliance.dns.loading.load_zones", fails)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(authority._watch(0.001))
    assert len(looks) == 3
    assert caplog.text.count("the zones are not looked at this time") == 2


def test_a_query_log_is_not_for_everybody(tmp_path: Path) -> None:
    """As the access log: who asked for what is in it."""
    catalog = corner()

    class Inner:
        current = catalog

    path = tmp_path / "log"

    async def scenario() -> None:
        before = os.umask(0)
        try:
            log = QueryLog(Inner(), path, "text", 1.0, lambda _line: None)
            assert path.stat().st_mode & 0o777 == 0o640
            path.rename(tmp_path / "log.1")
            log.reopen()
            await log.close()
            assert path.stat().st_mode & 0o777 == 0o640
        finally:
            os.umask(before)

    asyncio.run(scenario())
