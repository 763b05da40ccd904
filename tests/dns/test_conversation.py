"""Conversations with primaries: how streams are made, kept and used again (RFC 9103 §6.3)."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from random import Random
from typing import Any

import dns.message
import pytest

from appliance.dns import Catalog, Zone, names
from appliance.dns.conversation import (
    KEEP,
    LONGEST,
    MAX_WAITING,
    SILENCE,
    Conversations,
    TransferProtocol,
)
from appliance.dns.edns import Extensions
from appliance.dns.errors import WireError
from appliance.dns.incoming import Incoming, UpToDate, Whole
from appliance.dns.secondary import Primary, Trust
from appliance.dns.transfer import Transfers, grant
from tests.dns.test_forward import run

TEXT = "$ORIGIN {name}\n$TTL 60\n@ SOA ns h 7 7200 1800 1209600 300\n@ NS ns\nns A 192.0.2.1\n"
ZONES = ("x.test.", "y.test.")
THERE, ELSEWHERE = Primary("192.0.2.53"), Primary("192.0.2.54")
SECURE = Primary("192.0.2.53", 853, None, Trust("ns.test"))


class Wire(asyncio.Transport):
    """To a primary that answers with what `host` says, in the next turn."""

    def __init__(self, host: Host, protocol: TransferProtocol) -> None:
        super().__init__()
        self.host, self.protocol = host, protocol
        self.closed = self.aborted = False

    def write(self, data: Any) -> None:
        asyncio.get_running_loop().call_soon(self.host.hear, self, bytes(data)[2:])

    def say(self, message: bytes) -> None:
        if not self.closed:
            self.protocol.data_received(len(message).to_bytes(2, "big") + message)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.host.ends.append(asyncio.get_running_loop().time())
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def is_closing(self) -> bool:
        return self.closed


class Host:
    """A primary of ZONES and its streams."""

    def __init__(self, keepalive: float | None = 30.0) -> None:
        transfers = Transfers(default=[grant("192.0.2.0/24")])
        self.catalog = Catalog(
            [Zone.from_text(TEXT.format(name=name)) for name in ZONES],
            transfers=transfers,
            extensions=Extensions(keepalive=keepalive),
        )
        self.wires: list[Wire] = []
        self.ends: list[float] = []
        self.heard: Callable[[Wire, bytes], bool] = lambda _wire, _query: True
        self.conversations = Conversations(self.reach)

    async def reach(self, factory: Any, _primary: Primary) -> tuple[Any, Any]:
        protocol = factory()
        self.wires.append(Wire(self, protocol))
        protocol.connection_made(self.wires[-1])
        return self.wires[-1], protocol

    def hear(self, wire: Wire, query: bytes) -> None:
        if wire.closed or not self.heard(wire, query):
            return
        found = self.catalog.stream(query, transport="tls", peer=("192.0.2.9", 7))
        assert found is not None
        for message in [found] if isinstance(found, bytes) else found:
            wire.say(message)

    async def ask(
        self, name: str = ZONES[0], serial: int | None = None, primary: Primary = THERE
    ) -> Incoming:
        def make() -> Incoming:
            return Incoming(
                names.from_text(name), serial, random=Random(1), wall=lambda: 0.0,
                padded=primary.tls is not None,
            )  # fmt: skip

        return await self.conversations.converse(primary, make)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_rfc9103_6_3_1_a_stream_serves_several_zones() -> None:
    """SHOULD: SOA, AXFR and IXFR, one zone after another."""
    host = Host()

    async def scenario() -> None:
        for name in ZONES:
            assert isinstance((await host.ask(name)).result, Whole)
            assert isinstance((await host.ask(name, 6)).result, Whole)
            assert (await host.ask(name, 7)).result == UpToDate(7)
        assert len(host.wires) == 1
        await host.ask(primary=ELSEWHERE)
        assert len(host.wires) == 2
        await host.ask()
        assert len(host.wires) == 2
        host.conversations.close()
        assert [wire.closed for wire in host.wires] == [True, True]

    run(scenario())


def test_conversations_at_once_have_streams_of_their_own() -> None:
    host = Host()

    async def scenario() -> None:
        await asyncio.gather(*(host.ask(name) for name in ZONES))
        assert len(host.wires) == 2
        await asyncio.gather(*(host.ask(name) for name in ZONES))
        assert len(host.wires) == 2
        assert not any(wire.closed for wire in host.wires)

    run(scenario())


@pytest.mark.parametrize(
    ("primary", "keepalive", "seconds"),
    [
        (THERE, 20.0, KEEP),  # in the clear nothing is asked about it
        (SECURE, None, KEEP),
        (SECURE, 20.0, 20.0),
        (SECURE, 600.0, LONGEST),
        (SECURE, 0.0, 0.0),
    ],
)
def test_rfc7828_how_long_a_stream_waits(
    primary: Primary, keepalive: float | None, seconds: float
) -> None:
    """RFC 7828 §3.4: a timeout of 0 asks for its end; RFC 9103 §6.3.4: without any, a few."""
    host = Host(keepalive)

    async def scenario() -> None:
        await host.ask(primary=primary)
        began = now()
        await asyncio.sleep(2 * LONGEST)
        assert [end - began for end in host.ends] == pytest.approx([seconds])
        assert not host.wires[0].aborted

    run(scenario())


def test_rfc7828_3_2_1_the_option_of_a_query_is_empty() -> None:
    host = Host()
    asked: list[bytes] = []
    host.heard = lambda _wire, query: not asked.append(query)  # type: ignore[func-returns-value]

    async def scenario() -> None:
        await host.ask(primary=SECURE)

    run(scenario())
    assert len(asked) == 2
    for query in asked:
        options = dns.message.from_wire(query).options
        assert [option.otype for option in options] == [11, 12]
        assert options[0].to_wire() == b""
        assert len(query) % 128 == 0


@pytest.mark.parametrize("silent", [False, True])
def test_rfc7766_6_2_4_a_stream_that_went_away_is_no_failure(silent: bool) -> None:
    """Closed as we ask, or lost to some box on the way: the same is asked over another."""
    host = Host()

    async def scenario() -> None:
        await host.ask()

        def gone(wire: Wire, _query: bytes) -> bool:
            if wire is host.wires[0] and not silent:
                wire.protocol.eof_received()
            return wire is not host.wires[0]

        host.heard = gone
        assert (await host.ask(serial=7)).result == UpToDate(7)
        assert len(host.wires) == 2
        assert host.wires[0].aborted
        assert now() == pytest.approx(SILENCE if silent else 0.0, abs=0.1)

    run(scenario())


def test_what_a_primary_has_said_is_not_asked_again() -> None:
    host = Host()

    async def scenario() -> None:
        await host.ask()
        with pytest.raises(WireError, match=r"no such zone|says"):
            await host.ask("z.test.")
        assert len(host.wires) == 1
        assert host.wires[0].aborted

    run(scenario())


def test_a_stream_that_the_primary_closed_is_not_used() -> None:
    host = Host()

    async def scenario() -> None:
        await host.ask()
        host.wires[0].close()
        await asyncio.sleep(0.1)
        await host.ask()
        assert len(host.wires) == 2

    run(scenario())


def test_words_that_nobody_asked_for_end_a_stream() -> None:
    host = Host()

    async def scenario() -> None:
        await host.ask()
        host.wires[0].say(b"news")
        assert host.wires[0].aborted
        await host.ask()
        assert len(host.wires) == 2

    run(scenario())


def test_a_stream_that_waits_holds_no_zone() -> None:
    """What was transferred last went when the next conversation ended: for some, a day later."""
    host = Host()

    async def scenario() -> None:
        found = await host.ask()
        assert isinstance(found.result, Whole)
        held = weakref.ref(found)
        del found
        assert held() is None
        assert not host.wires[0].closed

    run(scenario())


def test_streams_that_wait_are_bounded() -> None:
    host = Host()

    async def scenario() -> None:
        for number in range(MAX_WAITING + 3):
            await host.ask(primary=Primary(f"192.0.2.{number}"))
        assert [wire.closed for wire in host.wires] == [True] * 3 + [False] * MAX_WAITING

    run(scenario())


def test_rfc9103_7_9_1_messages_without_records_are_passed_over() -> None:
    """A secondary MUST bear a transfer with messages of nothing but OPT."""
    host = Host()

    async def scenario() -> None:
        def heard(wire: Wire, query: bytes) -> bool:
            if query[-4:] != b"\0\xfc\0\1":
                return True
            empty = dns.message.make_response(dns.message.from_wire(query))
            empty.use_edns(0, options=[dns.edns.GenericOption(12, bytes(100))])
            first, *more = host.catalog.stream(query, transport="tls", peer=("192.0.2.9", 7))  # type: ignore[misc]
            for message in (empty.to_wire(), first, *more):
                wire.say(message)
            return False

        host.heard = heard
        assert isinstance((await host.ask()).result, Whole)

    run(scenario())
