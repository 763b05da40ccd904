"""Primaries under TLS (RFC 9103), in virtual time: who is believed, and what is said of others."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from appliance.config import ConfigError, load
from appliance.dns import Catalog, DnsStreamProtocol, LoadedZones, Transfers, Zone, grant, names
from appliance.dns.authority import Authority as Server
from appliance.dns.authority import Options
from appliance.dns.secondary import Primary, Trust
from appliance.dns.service import Service
from appliance.parts.dns_options import OptionsError, options
from appliance.parts.primaries import SecurePrimaries
from appliance.tls.authority import Authority, self_signed
from appliance.tls.contexts import Contexts
from appliance.tls.credential import Credential
from appliance.tls.dane import tlsa
from appliance.tls.errors import TlsError
from appliance.tls.protocol import TlsServer
from tests.dns.test_forward import run

# OpenSSL judges by the real clock.
TODAY = dt.datetime.now(dt.UTC)
AUTHORITY = Authority.make(["primary.test", "192.0.2.53"], TODAY)
NAME = "ns1.primary.test"
CREDENTIAL = AUTHORITY.issue((NAME, "192.0.2.53"), TODAY)
ADDRESS = "192.0.2.53"


def pin_of(credential: Credential) -> bytes:
    return bytes.fromhex(tlsa(credential.leaf).split()[-1])


class End(asyncio.Transport):
    """One end of a stream without a network."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.protocol: Any = None
        self.other: End
        self.over = self.ended = False

    def write(self, data: Any) -> None:
        if not self.over:
            asyncio.get_running_loop().call_soon(self.other.hear, bytes(data))

    def hear(self, data: bytes) -> None:
        if not self.over:
            self.protocol.data_received(data)

    def write_eof(self) -> None:
        self.ended = True
        asyncio.get_running_loop().call_soon(self.other.hear_end)

    def hear_end(self) -> None:
        if not self.over:
            self.protocol.eof_received()

    def close(self) -> None:
        if not self.ended:
            self.write_eof()
        self.abort()

    def abort(self) -> None:
        if not self.over:
            self.over = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)
            asyncio.get_running_loop().call_soon(self.other.hear_end)

    def is_closing(self) -> bool:
        return self.over

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class There:
    """A primary; `connect` is the only way to it."""

    def __init__(self, credential: Credential = CREDENTIAL, alpn: tuple[bytes, ...] = (b"dot",)):
        self.contexts = Contexts([credential], protocols=alpn, service="dot", now=0.0)
        self.listener = TlsServer(self.contexts, self.protocol)
        self.asked = bytearray()
        self.reached: list[tuple[str, int]] = []
        self.catalog: Catalog | None = None

    def protocol(self, _alpn: str | None) -> asyncio.Protocol:
        there = self

        class Holder:
            current = self.catalog

        class Listening(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                there.asked += data

        return Listening() if self.catalog is None else DnsStreamProtocol(Holder(), kind="tls")

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        self.reached.append((host, port))
        here, there = End(), End()
        here.other, there.other = there, here
        here.protocol, there.protocol = factory(), self.listener()
        there.protocol.connection_made(there)
        here.protocol.connection_made(here)
        return here, here.protocol


class Silent(There):
    """Takes connections, and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.listener = asyncio.Protocol  # type: ignore[assignment]


class Asking(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.write(b"a zone's name")


def reach(there: There, trust: Trust) -> There:
    """Dial, and say something to whoever is there."""

    async def scenario() -> None:
        dial = SecurePrimaries(there.connect)
        stream, protocol = await dial(Asking, Primary(ADDRESS, 853, None, trust))
        assert isinstance(protocol, Asking)
        await asyncio.sleep(1)
        stream.close()
        await asyncio.sleep(10)

    run(scenario())
    return there


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(AUTHORITY.pem())
    return path


def test_rfc9103_7_5_a_primary_shows_its_name(ca: Path) -> None:
    """By its authentication domain name, its address, and with its key pinned besides."""
    for trust in (
        Trust(NAME, ca), Trust(ADDRESS, ca), Trust(NAME, ca, frozenset([pin_of(CREDENTIAL)])),
    ):  # fmt: skip
        there = reach(There(), trust)
        assert there.asked == b"a zone's name"
        assert there.listener.counters.tls13 == 1
        assert there.listener.counters.ragged == 0
        assert there.reached == [(ADDRESS, 853)]


def test_rfc7858_4_2_a_key_may_be_pinned_instead() -> None:
    """Whoever signed for it, and whatever it is called; one of several is enough."""
    alone = self_signed(["whatever.example"], TODAY)
    there = reach(There(alone), Trust(pins=frozenset([bytes(32), pin_of(alone)])))
    assert there.asked == b"a zone's name"


OLD = AUTHORITY.issue((NAME,), TODAY - dt.timedelta(days=60))


@pytest.mark.parametrize(
    ("there", "name", "pins", "words"),
    [
        (There(), "ns2.primary.test", (), "with ns2.primary.test: .*failed: hostname mismatch"),
        (There(), "192.0.2.54", (), "IP address mismatch"),
        (There(self_signed([NAME], TODAY)), NAME, (), "certificate verify failed: self-signed"),
        (There(OLD), NAME, (), "certificate has expired"),
        (There(), NAME, (bytes(32),), "not one of those that are pinned"),
        (There(), "", (bytes(32),), "TLS handshake: the peer's key is not"),
        (There(alpn=()), NAME, (), r"did not agree on the protocol 'dot' \(ALPN\)"),
        (There(alpn=(b"h2",)), NAME, (), "alert no application protocol"),
        (Silent(), NAME, (), "handshake with .* took too long"),
    ],
)  # fmt: skip
def test_nobody_else_is_told_a_zones_name(
    ca: Path, there: There, name: str, pins: tuple[bytes, ...], words: str
) -> None:
    """RFC 9103 §7.1, §7.5: no fallback, whatever is wrong, and the error says what it is."""
    with pytest.raises(TlsError, match=words):
        reach(there, Trust(name, ca, frozenset(pins)))
    assert not there.asked


def test_rfc9103_7_2_nothing_older_than_tls13_will_do(
    ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from OpenSSL import SSL

    monkeypatch.setattr(SSL.Context, "set_min_proto_version", _at_most_tls12)
    there = There()
    monkeypatch.undo()
    with pytest.raises(TlsError, match="protocol version"):
        reach(there, Trust(NAME, ca))
    assert not there.asked


def _at_most_tls12(context: Any, _version: int) -> None:
    from OpenSSL import SSL

    context.set_max_proto_version(SSL.TLS1_2_VERSION)


def test_errors_name_the_step(tmp_path: Path, ca: Path) -> None:
    there = There()

    async def refused(*_where: Any) -> Any:
        raise ConnectionRefusedError("the connection was refused")

    there.connect = refused  # type: ignore[method-assign]
    with pytest.raises(ConnectionError, match="no TCP connection for TLS: the connection was"):
        reach(there, Trust(NAME, ca))
    with pytest.raises(TlsError, match=r"gone\.pem: No such file"):
        reach(There(), Trust(NAME, tmp_path / "gone.pem"))


def test_authorities_are_read_again_when_their_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(Authority.make(["primary.test"], TODAY).pem())
    primary = Primary(ADDRESS, 853, None, Trust(NAME, path))

    async def scenario() -> None:
        dial = SecurePrimaries(There().connect)
        with pytest.raises(TlsError):
            await dial(Asking, primary)
        path.write_bytes(AUTHORITY.pem())
        stream, _ = await dial(Asking, primary)
        stream.close()
        await asyncio.sleep(10)

    run(scenario())


class Patient(asyncio.Protocol):
    """Closes when it has heard something, since tickets have come before that."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"who is there")

    def data_received(self, data: bytes) -> None:
        self.transport.close()


class Talking(There):
    def protocol(self, _alpn: str | None) -> asyncio.Protocol:
        class Answering(Patient):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                self.transport.write(b"I am")

        return Answering()


@pytest.mark.parametrize("pinned", [False, True])
def test_sessions_with_primaries_are_resumed(ca: Path, pinned: bool) -> None:
    """RFC 8446 §2.2; judged like others, by the certificate that was shown at first."""
    there = Talking()
    trust = Trust("" if pinned else NAME, None if pinned else ca, frozenset([pin_of(CREDENTIAL)]))

    async def scenario() -> None:
        dial = SecurePrimaries(there.connect)
        for resumed in (0, 1, 2):
            await dial(Patient, Primary(ADDRESS, 853, None, trust))
            await asyncio.sleep(10)
            assert there.listener.counters.resumed == resumed
        # Another who is to be believed for another reason is another primary.
        await dial(Patient, Primary(ADDRESS, 853, None, Trust(ADDRESS, ca)))
        await asyncio.sleep(10)
        assert there.listener.counters.resumed == 2
        assert there.listener.counters.handshakes == 4

    run(scenario())


@pytest.mark.parametrize("change", ["authorities", "expired"])
def test_sessions_that_are_not_resumed(ca: Path, change: str) -> None:
    there = Talking()
    primary = Primary(ADDRESS, 853, None, Trust(NAME, ca))

    async def scenario() -> None:
        dial = SecurePrimaries(there.connect)
        await dial(Patient, primary)
        await asyncio.sleep(10)
        if change == "authorities":
            os.utime(ca, (1, 1))
        else:
            kept = dial._sessions[primary]
            dial._sessions[primary] = kept._replace(end=TODAY - dt.timedelta(seconds=1))
        await dial(Patient, primary)
        await asyncio.sleep(10)
        assert (there.listener.counters.resumed, there.listener.counters.handshakes) == (0, 2)

    run(scenario())


def test_a_zone_comes_over_tls_and_from_nowhere_else(ca: Path) -> None:
    """The whole way, in the clear for none of it, with close_notify at its end."""
    zone = Zone.from_text("$ORIGIN x.test.\n$TTL 60\n@ SOA ns h 7 7200 1800 1209600 300\n@ NS ns\n")
    there = There()
    there.catalog = Catalog([zone], transfers=Transfers(default=[grant("192.0.2.0/24")]))
    said: list[str] = []
    origin = names.from_text("x.test.")
    clock = 0.0

    def serving(trust: Trust, secure: SecurePrimaries | None) -> tuple[Server, Service]:
        server = Server(
            Options(secondaries={origin: (Primary(ADDRESS, 853, None, trust),)}),
            random=Random(1), say=said.append, clock=lambda: clock,
        )  # fmt: skip
        server.begin(LoadedZones((), ()))

        async def in_the_clear(*_where: Any) -> Any:
            raise AssertionError("asked in the clear")

        return server, Service(server, random=Random(2), connect=in_the_clear, secure=secure)

    async def follow(trust: Trust, secure: SecurePrimaries | None) -> Server:
        server, service = serving(trust, secure)
        await service.begin()
        for _ in range(1000):
            if said or server.current.zones.by_origin:
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(10)
        await service.end()
        return server

    async def scenario() -> None:
        server = await follow(Trust(NAME, ca), SecurePrimaries(there.connect))
        assert server.current.zones.by_origin[origin].serial == 7
        assert not said
        assert there.listener.counters.ragged == 0
        await follow(Trust("ns2.primary.test", ca), SecurePrimaries(there.connect))
        assert said[0].startswith("warning: x.test from 192.0.2.53 port 853: TLS handshake with")
        said.clear()
        await follow(Trust(NAME, ca), None)
        assert "there is no TLS here" in said[0]

    run(scenario())


# -- settings --


def settings(folder: Path, lines: str) -> Any:
    path = folder / "appliance.toml"
    zones = 'zones = ["x.test"]\n'
    path.write_text(f'[[dns.primary]]\naddress = "192.0.2.53"\n{zones}{lines}')
    return options(load(path)).secondaries[names.from_text("x.test.")][0]


def test_a_primary_under_tls_in_the_settings(tmp_path: Path, ca: Path) -> None:
    """RFC 9103 §7.3: port 853, unless another is agreed on."""
    pin = base64.b64encode(pin_of(CREDENTIAL)).decode()
    assert settings(tmp_path, "") == Primary("192.0.2.53", 53)
    assert settings(tmp_path, 'tls = true\ntls_name = "NS1.primary.test."\n') == Primary(
        "192.0.2.53", 853, None, Trust("ns1.primary.test")
    )
    found = settings(
        tmp_path,
        f'port = 8853\ntls = true\ntls_name = "2001:DB8::1"\ntls_ca_file = "{ca.name}"\n'
        f'tls_pins = ["{pin}"]\n',
    )
    trust = Trust("2001:db8::1", ca, frozenset([pin_of(CREDENTIAL)]))
    assert found == Primary("192.0.2.53", 8853, None, trust)


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        (
            "tls = true",
            1,
            "tls_name = .*: must be a name beside tls = true, unless there are tls_pins",
        ),
        ('tls_name = "ns1.x.test"', 4, "tls_name = .* must be beside tls = true"),
        ('tls = true\ntls_name = "no name"', 5, 'tls_name = "no name": must be whom'),
        ('tls = true\ntls_pins = ["abcd"]', 5, "tls_pins = .*a list of keys: SHA-256"),
        ('tls = true\ntls_pins = ["abcd="]', 5, "tls_pins = .*a list of keys: SHA-256"),
        (
            f'tls = true\ntls_pins = ["{"A" * 43}="]\ntls_ca_file = "f"',
            6,
            "must be beside a tls_name",
        ),
        ('tls = "yes"', 4, 'tls = "yes": must be true or false'),
    ],
)
def test_settings_that_prove_nobody_are_refused(
    tmp_path: Path, lines: str, line: int, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        settings(tmp_path, lines + "\n")
    assert [problem.line for problem in caught.value.problems] == [line]


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_authorities_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(OptionsError, match=r"ca\.pem: tls_ca_file cannot be read: "):
        settings(tmp_path, 'tls = true\ntls_name = "ns1.x.test"\ntls_ca_file = "ca.pem"\n')
