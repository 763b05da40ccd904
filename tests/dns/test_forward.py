"""Updates that a secondary hands on to the primary (RFC 2136 §6)."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import pytest

from appliance.dns import (
    DnsDatagramProtocol,
    DnsStreamProtocol,
    Extensions,
    Grant,
    Keys,
    LoadedZones,
    Zone,
    grant,
    key,
    load_zones,
)
from appliance.dns.authority import Authority, Options
from appliance.dns.conversation import TransferProtocol
from appliance.dns.forward import MAX_ANSWER, PATIENCE, ForwardProtocol
from appliance.dns.policy import Policy, rule
from appliance.dns.secondary import Primary, Trust
from appliance.dns.service import Service
from appliance.dns.transfer import Grants
from appliance.dns.updates import FORWARDED, Updates
from tests.dns.programs import installed
from tests.dns.test_interop_secondaries import until
from tests.dns.util import zone
from tests.ports import free_port

ORIGIN = b"\7example\4test\0"
SECRET = b"0123456789abcdef0123456789abcdef"
RING = {dns.name.from_text("upd."): dns.tsig.Key("upd.", SECRET)}
CLIENT = ("192.0.2.9", 4000)
NEAR = [grant("192.0.2.0/24")]


class Clock(asyncio.SelectorEventLoop):
    """A loop that never waits: when nothing is ready, it is the time of the next timer."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            # The first may be one that was cancelled: asyncio would wait for the next in earnest.
            timers = (timer for timer in self._scheduled if not timer.cancelled())  # type: ignore[attr-defined]
            self.now = max(self.now, min((timer.when() for timer in timers), default=self.now))
        super()._run_once()  # type: ignore[misc]


def run(scenario: Coroutine[Any, Any, None]) -> float:
    """Run it in virtual time; the seconds that it took."""
    loop = Clock()
    try:
        loop.run_until_complete(scenario)
        return loop.now
    finally:
        loop.close()


def update(name: str = "new", ring: Any = RING, **how: Any) -> dns.update.UpdateMessage:
    message = dns.update.UpdateMessage("example.test.", keyring=ring, **how)
    message.add(name, 60, "A", "192.0.2.7")
    return message


class Wire(asyncio.Transport):
    """To a primary that answers as a function says, at once."""

    def __init__(self, protocol: Any, answer: Callable[[bytes], bytes | None]) -> None:
        super().__init__()
        self.protocol = protocol
        self.answer = answer
        self.aborted = False

    def write(self, data: Any) -> None:
        assert len(data) == 2 + int.from_bytes(data[:2], "big")
        found = self.answer(bytes(data[2:]))
        if found is not None:
            for octet in len(found).to_bytes(2, "big") + found:
                asyncio.get_running_loop().call_soon(self.protocol.data_received, bytes((octet,)))

    def abort(self) -> None:
        self.aborted = True


class Rig:
    """A secondary of ours, and what its primaries hear and say."""

    def __init__(
        self,
        grants: list[Grant] | None = None,
        *,
        keys: Keys | None = None,
        addresses: tuple[str, ...] = ("198.51.100.1",),
        answer: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self.heard: list[bytes] = []
        self.asked: list[str] = []
        self.wires: list[Wire] = []
        self.down: set[str] = set()
        self.said: list[str] = []
        self.answers: list[bytes] = []
        self.primary = Authority(
            Options(
                extensions=Extensions(keys=Keys([key("upd.", "hmac-sha256", SECRET)])),
                policy=Policy([rule("upd.", None, ["*"], [])]),
            ),
            random=Random(1),
        )
        self.answer = answer or self.primary_says
        self.server = Authority(
            Options(
                extensions=Extensions(keys=keys or Keys()),
                forward=Grants(default=NEAR if grants is None else grants),
                secondaries={ORIGIN: tuple(Primary(one) for one in addresses)},
            ),
            random=Random(1),
            say=self.said.append,
        )
        self.server.begin(LoadedZones((zone("x A 192.0.2.1", "other.test."),), ()))
        self.service = Service(self.server, random=Random(1), connect=self.connect)
        self.server.updates.hand_on = self.service._hand_on

    async def connect(self, factory: Any, address: str, _port: int) -> tuple[Any, Any]:
        self.asked.append(address)
        if address in self.down:
            await asyncio.sleep(1000)
        protocol = factory()
        wire = Wire(protocol, self.hear)
        self.wires.append(wire)
        protocol.connection_made(wire)
        return wire, protocol

    def hear(self, message: bytes) -> bytes | None:
        self.heard.append(message)
        return self.answer(message)

    def primary_says(self, message: bytes) -> bytes | None:
        """The primary has no such zone, and says so under its signature."""
        answers: list[bytes] = []
        self.primary.update(message, ("198.51.100.2", 1), answers.append)
        return answers[0]

    def send(self, message: dns.update.UpdateMessage | bytes, peer: Any = CLIENT) -> bytes:
        wire = message if isinstance(message, bytes) else message.to_wire()
        assert self.server.current.answer(wire, peer=peer) is None  # it is answered later
        self.service.update(wire, peer, self.answers.append)
        return wire

    async def settled(self) -> None:
        while self.service._tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    def rcodes(self) -> list[str]:
        return [dns.rcode.to_text(dns.rcode.Rcode(one[3] & 15)) for one in self.answers]


def test_octets_go_through_unchanged_both_ways() -> None:
    """RFC 2136 §6, RFC 8945: the client's key is known to the primary alone."""

    async def scenario() -> None:
        rig = Rig()
        message = update()
        wire = rig.send(message)
        assert rig.answers == []
        await rig.settled()
        assert rig.heard == [wire]
        [answer] = rig.answers
        found = dns.message.from_wire(answer, keyring=RING, request_mac=message.mac)
        assert found.had_tsig
        assert found.rcode() == dns.rcode.NOTAUTH  # the primary's word, not ours
        assert rig.wires[0].aborted
        assert rig.server.counters.updates_forwarded == 1
        assert rig.server.updates._forwarded.count == 0

    run(scenario())


def test_whose_updates_are_handed_on() -> None:
    """RFC 2136 §3.1.2: a secondary may refuse to forward."""
    known = Keys([key("upd.", "hmac-sha256", SECRET)])
    wrong = {dns.name.from_text("upd."): dns.tsig.Key("upd.", SECRET[::-1])}
    keyed = [grant("192.0.2.0/24", "upd.")]
    for grants, keys, ring, peer, forwarded in (
        (NEAR, None, RING, CLIENT, True),
        (NEAR, None, None, CLIENT, False),  # no signature: the primary would trust our address
        (NEAR, None, RING, ("203.0.113.1", 1), False),
        (keyed, known, RING, CLIENT, True),
        (keyed, known, RING, ("203.0.113.1", 1), False),
        (keyed, known, wrong, CLIENT, False),
        (keyed, None, RING, CLIENT, False),
    ):

        async def scenario() -> None:
            rig = Rig(grants, keys=keys)  # noqa: B023
            rig.send(update(ring=ring), peer)  # noqa: B023
            await rig.settled()
            assert len(rig.heard) == forwarded  # noqa: B023
            assert rig.rcodes() == ["NOTAUTH" if forwarded else "REFUSED"]  # noqa: B023

        run(scenario())


def test_only_zones_that_we_are_secondary_for() -> None:
    async def scenario() -> None:
        rig = Rig()
        for name in ("other.test.", "nowhere.test."):
            message = dns.update.UpdateMessage(name, keyring=RING)
            message.add("a", 60, "A", "192.0.2.7")
            rig.send(message)
        await rig.settled()
        assert rig.heard == []
        assert rig.rcodes() == ["NOTAUTH", "NOTAUTH"]  # BADKEY: such a key is not ours

    run(scenario())


def test_nothing_is_forwarded_unless_it_is_set() -> None:
    """Without any rule, UPDATE has nobody to take it: NOTIMP (RFC 2136 §3.1.2, RFC 8906 §3.1.4)."""
    rig = Rig([])
    answer = rig.server.current.answer(update().to_wire(), peer=CLIENT)
    assert answer is not None
    assert answer[3] & 15 == dns.rcode.NOTIMP


def test_a_repeated_message_is_handed_on_once() -> None:
    """A client over UDP repeats itself; the primary need not do the same thing twice."""

    async def scenario() -> None:
        rig = Rig()
        wire = rig.send(update())
        rig.send(wire)
        rig.send(wire, ("192.0.2.10", 4000))  # somebody else
        await rig.settled()
        assert rig.heard == [wire, wire]
        assert len(rig.answers) == 3

    run(scenario())


def test_a_primary_that_is_reached_over_tls_alone_is_followed_by_the_next() -> None:
    """Where there is no TLS."""

    async def scenario() -> None:
        rig = Rig()
        secondary = rig.server.secondaries[ORIGIN]
        secondary.primaries = (Primary("192.0.2.2", tls=Trust("ns.test")), *secondary.primaries)
        rig.send(update())
        await rig.settled()
        assert rig.rcodes() == ["NOTAUTH"]
        assert "192.0.2.2 port 53: there is no TLS here" in rig.said[0]

    run(scenario())


def test_a_primary_that_cannot_be_reached_is_followed_by_the_next() -> None:
    async def scenario() -> None:
        rig = Rig(addresses=("198.51.100.1", "198.51.100.2"))
        rig.down = {"198.51.100.1"}
        rig.send(update())
        await rig.settled()
        assert rig.asked == ["198.51.100.1", "198.51.100.2"]
        assert rig.rcodes() == ["NOTAUTH"]
        assert "example.test" in rig.said[0]

    assert PATIENCE <= run(scenario()) < PATIENCE + 1


@pytest.mark.parametrize("spoilt", ["silence", "another", "query", "long", "short"])
def test_no_sound_answer_is_servfail(spoilt: str) -> None:
    """It may have been done all the same, so that no other primary is asked (RFC 2136 §6)."""

    def answer(message: bytes) -> bytes | None:
        head = message[:2] + b"\xa8" + bytes(9)
        return {
            "silence": None,
            "another": bytes((head[0] ^ 1,)) + head[1:],
            "query": head[:2] + b"\x80" + head[3:],
            "long": head + bytes(MAX_ANSWER),
            "short": head[:11],
        }[spoilt]

    async def scenario() -> None:
        rig = Rig(addresses=("198.51.100.1", "198.51.100.2"), answer=answer)
        rig.send(update())
        await rig.settled()
        assert rig.rcodes() == ["SERVFAIL"]
        assert rig.asked == ["198.51.100.1"]
        assert len(rig.said) == 1

    assert run(scenario()) < PATIENCE + 1


def test_at_most_so_many_at_once() -> None:
    async def scenario() -> None:
        rig = Rig(answer=lambda _message: None)
        for number in range(FORWARDED + 3):
            rig.send(update(f"n{number}"))
        assert rig.rcodes() == ["SERVFAIL"] * 3
        await rig.settled()
        assert len(rig.heard) == FORWARDED
        assert rig.rcodes() == ["SERVFAIL"] * (FORWARDED + 3)
        rig.send(update("again"))
        await rig.settled()
        assert len(rig.heard) == FORWARDED + 1

    run(scenario())


def test_a_whole_update_at_a_primary_of_ours(tmp_path: Path) -> None:
    """What is handed on is done, and acknowledged under the client's key."""
    (tmp_path / "zones").mkdir()
    (tmp_path / "zones" / "example.test.zone").write_text(
        "$TTL 60\n@ SOA ns1 h 1 7200 1800 1209600 300\n@ NS ns1\nns1 A 192.0.2.53\n"
    )

    async def scenario() -> None:
        primary = Authority(
            Options(
                extensions=Extensions(keys=Keys([key("upd.", "hmac-sha256", SECRET)])),
                policy=Policy([rule("upd.", None, ["*"], [])]),
                state=tmp_path / "state",
            ),
            random=Random(1),
        )
        primary.begin(load_zones(tmp_path / "zones"))

        def answer(message: bytes) -> bytes | None:
            answers: list[bytes] = []
            primary.update(message, ("198.51.100.2", 1), answers.append)
            batch = primary.commit()
            assert batch is not None
            Updates.sync(batch)
            primary.committed(batch, failed=False)
            return answers[0]

        rig = Rig(answer=answer)
        message = update()
        rig.send(message)
        await rig.settled()
        found = dns.message.from_wire(rig.answers[0], keyring=RING, request_mac=message.mac)
        assert found.rcode() == dns.rcode.NOERROR
        served: Zone = primary.current.zones.by_origin[ORIGIN]
        assert b"\3new" + ORIGIN in served.nodes
        for kept in primary.kept.values():
            assert kept.journal is not None
            kept.journal.close()

    run(scenario())


@pytest.mark.parametrize("kind", ["forward", "transfer"])
def test_a_stream_that_ends_when_nobody_waits_any_more(kind: str) -> None:
    """At the end of a service, or of its patience; nothing is left for asyncio to complain of."""
    complaints: list[Any] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, what: complaints.append(what)
        )
        protocol = ForwardProtocol(b"") if kind == "forward" else TransferProtocol()
        if isinstance(protocol, TransferProtocol):
            protocol.connection_made(asyncio.Transport())
            protocol._transport = SimpleNamespace(write=bytes)  # type: ignore[assignment]
            protocol.begin(SimpleNamespace(start=bytes))  # type: ignore[arg-type]
        protocol.connection_lost(None)
        del protocol
        gc.collect()

    run(scenario())
    assert complaints == []


# ---- With other people's primaries.

TEXT = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def knot(directory: Path, port: int, ours: int) -> list[str]:
    (directory / "knot.conf").write_text(f"""\
server:
  listen: 127.0.0.1@{port}
  rundir: {directory}
database:
  storage: {directory}/db
key:
  - id: upd
    algorithm: hmac-sha256
    secret: {TEXT}
remote:
  - id: ours
    address: 127.0.0.1@{ours}
acl:
  - id: update
    key: upd
    action: update
  - id: transfer
    address: 127.0.0.1
    action: transfer
zone:
  - domain: example.test
    storage: {directory}
    file: example.test
    notify: ours
    acl: [update, transfer]
""")
    return ["knotd", "-c", f"{directory}/knot.conf"]


def bind(directory: Path, port: int, ours: int) -> list[str]:
    (directory / "named.conf").write_text(f"""\
options {{
  directory "{directory}"; pid-file none; session-keyfile none; recursion no;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  dnssec-validation no; notify explicit; notify-delay 0;
}};
controls {{}};
key "upd" {{ algorithm hmac-sha256; secret "{TEXT}"; }};
zone "example.test" {{
  type master; file "example.test"; allow-transfer {{ 127.0.0.1; }};
  allow-update {{ key upd; }}; also-notify {{ 127.0.0.1 port {ours}; }};
}};
""")
    return ["named", "-g", "-c", f"{directory}/named.conf"]


SERVERS = {"knotd": knot, "named": bind}


@pytest.mark.interop
@pytest.mark.parametrize("program", SERVERS)
def test_an_update_by_way_of_us(program: str, tmp_path: Path) -> None:
    """RFC 2136 §6: the primary takes it, the client knows its answer, and the change comes back."""
    installed(program)
    directory = tmp_path / "primary"
    (directory / "db").mkdir(parents=True)
    (directory / "example.test").write_text(
        "$TTL 60\n@ SOA ns1 h 1 7200 1800 1209600 300\n@ NS ns1\nns1 A 192.0.2.53\n"
    )
    for path in (tmp_path, directory, directory / "db", directory / "example.test"):
        path.chmod(0o777)

    async def scenario() -> None:
        port, ours = free_port(), free_port()
        server = Authority(
            Options(
                forward=Grants(default=[grant("127.0.0.0/8")]),
                secondaries={ORIGIN: (Primary("127.0.0.1", port),)},
            ),
            random=Random(),
        )
        server.begin(LoadedZones((), ()))
        service = Service(server, random=Random())
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220
                SERVERS[program](directory, port, ours), stdout=log, stderr=log
            )
        loop = asyncio.get_running_loop()
        streams = await loop.create_server(lambda: DnsStreamProtocol(service), "127.0.0.1", ours)
        end, _ = await loop.create_datagram_endpoint(
            lambda: DnsDatagramProtocol(service), local_addr=("127.0.0.1", ours)
        )
        await service.begin()

        def has(name: bytes) -> bool:
            found = server.current.zones.by_origin.get(ORIGIN)
            return found is not None and name + ORIGIN in found.nodes

        async def there() -> bool:
            for one in server.secondaries.values():
                one.ask_now(server.clock())
                server.stir(one)
            return has(b"\3ns1")

        async def both() -> bool:
            return has(b"\3one") and has(b"\3two")

        try:
            await until(there)
            for name, ask in (("one", dns.query.udp), ("two", dns.query.tcp)):
                message = update(name)
                # dnspython judges the answer's signature, which is the primary's.
                answer = await asyncio.to_thread(
                    ask,
                    message,
                    "127.0.0.1",
                    port=ours,
                    timeout=10,
                )
                assert answer.rcode() == dns.rcode.NOERROR
                assert answer.had_tsig
            await until(both)
            assert server.counters.updates_forwarded == 2
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            end.close()
            streams.close()
            await service.end()
            await asyncio.sleep(0.01)

    try:
        asyncio.run(scenario())
    except BaseException:
        print((tmp_path / "log").read_text()[-4000:])  # noqa: T201
        raise
