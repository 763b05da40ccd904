"""AXFR and IXFR to secondaries (RFC 5936, RFC 1995), with dnspython as one."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import dns.edns
import dns.message
import dns.name
import dns.query
import dns.rdatatype
import dns.tsig
import dns.versioned
import dns.xfr
import dns.zone
import pytest

from appliance.dns import Catalog, DnsStreamProtocol, Zone, names
from appliance.dns.edns import PADDING_BLOCK, Extensions
from appliance.dns.protocol import MAX_TRANSFERS
from appliance.dns.serial import difference
from appliance.dns.transfer import (
    CONCURRENT,
    HISTORY_VERSIONS,
    MESSAGE,
    History,
    Transfers,
    grant,
)
from appliance.dns.tsig import Keys, key
from tests.dns.test_protocol import FakeLoop, FakeTransport, framed
from tests.dns.util import DATA, question

SECRET = b"0123456789abcdef0123456789abcdef"
KEY = dns.tsig.Key(dns.name.from_text("xfr.example."), SECRET, "hmac-sha256")
PEER = ("192.0.2.9", 5)


def version(serial: int, *lines: str) -> Zone:
    head = f"$ORIGIN x.test.\n$TTL 60\n@ SOA a. b. {serial} 7200 1800 1209600 300\n@ NS a.\n"
    return Zone.from_text(head + "\n".join(lines) + "\n")


BIG = version(5, "$GENERATE 1-3000 Host-$ A 192.0.2.1", "z CNAME Host-2")


def catalog(zone: Zone, transfers: Transfers | None = None) -> Catalog:
    if transfers is None:
        transfers = Transfers(default=[grant("192.0.2.0/24")])
    keys = Keys([key("xfr.example.", "hmac-sha256", SECRET)])
    return Catalog([zone], transfers=transfers, extensions=Extensions(keys=keys), eager=100)


def messages(one: Catalog, query: bytes, peer: Any = PEER, transport: str = "tcp") -> list[bytes]:
    found = one.stream(query, transport=transport, peer=peer)
    assert found is not None
    return [found] if isinstance(found, bytes) else list(found)


def rcode(answers: list[bytes]) -> int:
    assert len(answers) == 1
    return answers[0][3] & 15


def ixfr(serial: int, **how: Any) -> dns.message.QueryMessage:
    query = dns.message.make_query("x.test.", "IXFR", **how)
    soa = f"x.test. 60 IN SOA a. b. {serial} 7200 1800 1209600 300".split(maxsplit=4)
    query.find_rrset(query.authority, dns.name.from_text("x.test."), 1, 6, create=True).add(
        dns.rdata.from_text("IN", "SOA", soa[4]), 60
    )
    return query


def received(
    query: dns.message.QueryMessage, answers: list[bytes], old: Zone | None = None
) -> dns.zone.Zone:
    """What dnspython's secondary has after these messages; it judges their form and signatures."""
    manager = dns.versioned.Zone("x.test." if old is None else names.to_text(old.origin))
    if old is not None:
        with manager.writer(True) as txn:
            for node, rrset in old:
                for rdata in rrset.rdatas:
                    txn.add(
                        dns.name.from_text(names.to_text(node.owner)).relativize(manager.origin),
                        rrset.ttl,
                        dns.rdata.from_wire(1, rrset.rtype, rdata, 0, len(rdata)),
                    )
    rdtype = query.question[0].rdtype
    serial = old.serial if old is not None else None
    context = None
    with dns.xfr.Inbound(manager, rdtype, serial) as inbound:
        done = False
        for answer in answers:
            assert not done
            message = dns.message.from_wire(
                answer,
                keyring=query.keyring,
                request_mac=query.mac,
                xfr=True,
                origin=manager.origin,
                tsig_ctx=context,
                multi=True,
                one_rr_per_rrset=rdtype == dns.rdatatype.IXFR,
            )
            context = message.tsig_ctx
            done = inbound.process_message(message)
        assert done
    return manager


def content(zone: dns.zone.Zone | Zone) -> set[tuple[str, int, int, bytes]]:
    """Every record, names in lower case."""
    if isinstance(zone, Zone):
        return {
            (names.to_text(node.name), rrset.rtype, rrset.ttl, rdata)
            for node, rrset in zone
            for rdata in rrset.rdatas
        }
    return {
        (
            name.derelativize(zone.origin).to_text().lower(),
            int(rdataset.rdtype),
            rdataset.ttl,
            rdata.to_wire(origin=zone.origin),
        )
        for name, rdataset in zone.iterate_rdatasets()
        for rdata in rdataset
    }


@pytest.mark.parametrize("edns", [False, 0])
@pytest.mark.parametrize("signed", [False, True])
def test_rfc5936_2_2_axfr(edns: int | bool, signed: bool) -> None:
    """RFC 5936 §2.2, RFC 8945 §5.3.1: SOA to SOA, all messages signed if the query was."""
    query = dns.message.make_query("x.test.", "AXFR", use_edns=edns)
    if signed:
        query.use_tsig(KEY)
    one = catalog(BIG)
    answers = messages(one, query.to_wire())
    assert len(answers) > 3
    assert all(len(answer) <= MESSAGE + 200 for answer in answers)
    assert content(received(query, answers)) == content(BIG)
    assert one.counters.transfers == 1
    for answer in answers:
        message = dns.message.from_wire(answer, keyring=False, xfr=True)
        assert (message.edns == 0) == (edns is not False)
        assert (message.tsig is not None) == signed


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("transport", "pads"), [("tls", True), ("tls", False), ("tcp", True)])
def test_rfc8467_4_1_transfers_are_padded(transport: str, pads: bool, signed: bool) -> None:
    """Under TLS and for clients that pad: with their signatures, multiples of 468 octets."""
    options = [dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(20))] if pads else []
    query = dns.message.make_query("x.test.", "AXFR", use_edns=0, options=options)
    if signed:
        query.use_tsig(KEY)
    found = messages(catalog(BIG), query.to_wire(), transport=transport)
    assert content(received(query, found)) == content(BIG)
    assert len(found) > 2
    padded = [len(message) % PADDING_BLOCK == 0 for message in found]
    assert all(padded) if transport == "tls" and pads else not any(padded)


def test_every_odd_record_is_transferred() -> None:
    zone = Zone.from_file(DATA / "corner.zone")
    query = dns.message.make_query("corner.test.", "AXFR")
    answers = messages(catalog(zone), query.to_wire())
    got = dns.zone.Zone("corner.test.", relativize=False)
    rows = [
        rrset
        for answer in answers
        for rrset in dns.message.from_wire(answer, xfr=True, one_rr_per_rrset=True).answer
    ]
    assert rows[0].rdtype == rows[-1].rdtype == dns.rdatatype.SOA
    for rrset in rows[:-1]:
        got.find_rdataset(rrset.name, rrset.rdtype, create=True).add(rrset[0], rrset.ttl)
    assert content(got) == content(zone)
    # The case is the zone owner's, whatever case was asked.
    shouted = messages(catalog(zone), question("CORNER.TEST.", "AXFR"))
    owners = {str(rrset.name) for rrset in dns.message.from_wire(shouted[0], xfr=True).answer}
    assert "Mail.corner.test." in owners


V1 = version(1, "a A 192.0.2.1", "b A 192.0.2.2", "c TXT same")
V2 = version(2, "a A 192.0.2.1", "a A 192.0.2.9", "c TXT same")
V3 = version(3, "a 90 A 192.0.2.1", "a 90 A 192.0.2.9", "c TXT same", "d MX 1 a")


def with_history() -> Transfers:
    transfers = Transfers(default=[grant("192.0.2.0/24")])
    transfers.changed(difference(V1, V2))
    transfers.changed(difference(V2, V3))
    return transfers


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("old", [V1, V2])
def test_rfc1995_4_ixfr(old: Zone, signed: bool) -> None:
    """RFC 1995 §4: the differences one after the other."""
    query = ixfr(old.serial)
    if signed:
        query.use_tsig(KEY)
    answers = messages(catalog(V3, with_history()), query.to_wire())
    assert content(received(query, answers, old)) == content(V3)
    rows = dns.message.from_wire(answers[0], keyring=False, one_rr_per_rrset=True).answer
    soas = [rrset[0].serial for rrset in rows if rrset.rdtype == dns.rdatatype.SOA]
    assert soas == ([3, 1, 2, 2, 3, 3] if old is V1 else [3, 2, 3, 3])


def test_rfc1995_4_ixfr_falls_back_to_the_whole() -> None:
    """RFC 1995 §4: without the history the whole zone is the answer."""
    for transfers in (None, with_history()):
        query = ixfr(77 if transfers is None else 0)
        zone = V3 if transfers is not None else version(90, "a A 192.0.2.1")
        answers = messages(catalog(zone, transfers), query.to_wire())
        old = version(query.authority[0][0].serial)
        assert content(received(query, answers, old)) == content(zone)
    no_soa = dns.message.make_query("x.test.", "IXFR")
    rows = dns.message.from_wire(messages(catalog(V3), no_soa.to_wire())[0], xfr=True).answer
    assert len(rows) > 3


@pytest.mark.parametrize("serial", [3, 4, (1 << 31) + 2])
def test_rfc1995_2_a_client_that_is_up_to_date_gets_the_soa(serial: int) -> None:
    """RFC 1995 §2."""
    answers = messages(catalog(V3, with_history()), ixfr(serial).to_wire())
    (only,) = dns.message.from_wire(answers[0]).answer
    assert (only.rdtype, only[0].serial) == (dns.rdatatype.SOA, 3)


def test_rfc1995_2_ixfr_over_udp_sends_to_the_stream() -> None:
    """RFC 1995 §2: an answer that does not fit is the SOA alone."""
    answer = catalog(V3, with_history()).answer(ixfr(1).to_wire(), peer=PEER)
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert [rrset.rdtype for rrset in message.answer] == [dns.rdatatype.SOA]
    refused = catalog(V3, with_history()).answer(ixfr(1).to_wire(), peer=("198.51.100.1", 5))
    assert refused is not None
    assert refused[3] & 15 == dns.rcode.REFUSED


def test_who_may_have_a_zone() -> None:
    """RFC 5936 §2.2.1: REFUSED by policy, NOTAUTH of what is no zone of ours."""
    transfers = Transfers(
        {"X.test": [grant("192.0.2.0/24", "XFR.example."), grant("2001:db8::/32")], "y.test": []},
        default=[grant("0.0.0.0/0")],
    )
    one = catalog(V3, transfers)
    plain = question("x.test.", "AXFR")
    query = dns.message.make_query("x.test.", "AXFR")
    query.use_tsig(KEY)
    signed = query.to_wire()
    assert rcode(messages(one, plain)) == dns.rcode.REFUSED
    assert rcode(messages(one, signed)) == dns.rcode.NOERROR
    assert rcode(messages(one, plain, ("2001:db8::5", 5, 0, 0))) == dns.rcode.NOERROR
    assert rcode(messages(one, signed, ("198.51.100.1", 5))) == dns.rcode.REFUSED
    assert rcode(messages(one, plain, None)) == dns.rcode.REFUSED
    assert rcode(messages(one, question("sub.x.test.", "AXFR"))) == dns.rcode.NOTAUTH
    assert rcode(messages(one, question("y.test.", "IXFR"))) == dns.rcode.NOTAUTH
    wrong = dns.message.make_query("x.test.", "AXFR")
    wrong.use_tsig(dns.tsig.Key(KEY.name, SECRET[::-1], KEY.algorithm))
    assert rcode(messages(one, wrong.to_wire())) == dns.rcode.NOTAUTH
    assert rcode(messages(one, plain + b"x", ("2001:db8::5", 5))) == dns.rcode.FORMERR
    assert rcode(messages(Catalog([V3]), plain)) == dns.rcode.REFUSED
    assert transfers.allows(b"\x01z\0", "203.0.113.1", None)
    with pytest.raises(ValueError, match="network"):
        grant("somewhere")


def test_rfc9103_11_a_zone_may_be_for_tls_alone() -> None:
    """And for what §7.1 and §7.2 ask of every transfer under TLS."""
    strict = catalog(V3, Transfers(default=[grant("192.0.2.0/24", tls=True)]))
    either = catalog(V3, Transfers(default=[grant("192.0.2.0/24")]))
    for query in (question("x.test.", "AXFR"), ixfr(1).to_wire()):
        given = [
            [
                rcode(messages(one, query, transport=kind)) == 0
                for kind in ("tcp", "tls-queries", "tls")
            ]
            for one in (strict, either)
        ]
        assert given == [[False, False, True], [True, False, True]]
    ordinary = question("x.test.", "SOA")
    assert rcode(messages(strict, ordinary, transport="tls-queries")) == 0  # RFC 7858 has them all


@pytest.mark.parametrize(
    ("version_name", "alpn", "given"),
    [("TLSv1.3", "dot", True), ("TLSv1.2", "dot", False), ("TLSv1.3", None, False)],
)
def test_rfc9103_7_a_zone_is_given_to_tls13_that_selected_dot(
    monkeypatch: pytest.MonkeyPatch, version_name: str, alpn: str | None, given: bool
) -> None:
    here = stream(monkeypatch, BIG, "tls")
    information = {"tls_version": version_name, "alpn": alpn, "peername": PEER}
    here.transport.get_extra_info = information.get
    here.protocol._kind = "tls"
    here.protocol.connection_made(here.transport)
    here.protocol.data_received(framed(question("x.test.", "AXFR")))
    while here.soon:
        here.turn()
    assert (len(here.transport.sent) > 1000) == given
    assert here.protocol._holder.current.counters.tls_queries == 1


def test_transfers_at_once_are_bounded() -> None:
    transfers = Transfers(default=[grant("192.0.2.0/24")])
    one = catalog(BIG, transfers)
    query = question("x.test.", "AXFR")
    started: list[Iterator[bytes]] = []
    for _ in range(CONCURRENT):
        found = one.stream(query, peer=PEER)
        assert isinstance(found, Iterator)
        next(found)
        started.append(found)
    assert transfers.active == CONCURRENT
    # RFC 9103 §6.3.3: a client that may have the zone is to try again.
    assert rcode(messages(one, query)) == dns.rcode.SERVFAIL
    assert rcode(messages(one, query, ("198.51.100.1", 5))) == dns.rcode.REFUSED
    started.pop().close()  # type: ignore[attr-defined]
    assert len(messages(one, query)) > 1
    del started
    assert transfers.active == 0


def test_the_history_is_bounded_and_unbroken() -> None:
    history = History()
    zones = [version(serial, f"a A 192.0.2.{serial % 250}") for serial in range(1, 30)]
    for old, new in pairwise(zones):
        history.add(difference(old, new))
    assert [one.old_serial for one in history.since(27, 29) or []] == [27, 28]
    assert history.since(27, 30) is None
    assert history.since(99, 29) is None
    history.add(difference(version(50), version(51)))
    assert len(history.differences) == 1
    for serial in range(51, 51 + HISTORY_VERSIONS + 5):
        history.add(difference(version(serial), version(serial + 1)))
    assert len(history.differences) == HISTORY_VERSIONS


def stream(monkeypatch: pytest.MonkeyPatch, zone: Zone, kind: str = "tcp") -> Any:
    loop = FakeLoop()
    soon: list[Any] = []
    loop.call_soon = soon.append  # type: ignore[attr-defined]
    monkeypatch.setattr("appliance.dns.protocol.asyncio.get_running_loop", lambda: loop)
    transport = FakeTransport(PEER)
    if kind == "tls":
        information = {"peername": PEER, "alpn": "dot", "tls_version": "TLSv1.3"}
        monkeypatch.setattr(transport, "get_extra_info", information.get)
    transfers = Transfers(default=[grant("192.0.2.0/24")])
    protocol = DnsStreamProtocol(SimpleNamespace(current=catalog(zone, transfers)), kind=kind)
    transport.protocol = protocol
    protocol.connection_made(transport)

    def turn() -> None:
        work, soon[:] = list(soon), []
        for call in work:
            call()

    return SimpleNamespace(
        loop=loop, transport=transport, protocol=protocol, soon=soon, turn=turn, transfers=transfers
    )


def sizes(data: bytes) -> list[int]:
    out = []
    while data:
        length = int.from_bytes(data[:2], "big")
        out.append(length)
        data = data[2 + length :]
    return out


def test_a_stream_sends_a_transfer_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get their turn, queries behind it too (RFC 7766 §6.2.1.1), at the peer's speed."""
    here = stream(monkeypatch, BIG)
    query = question("x.test.", "AXFR")
    after = question("host-7.x.test.")
    here.transport.reads = False
    here.protocol.data_received(framed(query, after))
    assert here.transport.writes == 2
    assert bytes(here.transport.sent)[2:4] == after[:2]
    first = len(here.transport.sent)
    assert first < 100_000
    rounds = 0
    while here.soon or here.transport.waiting > here.transport.high:
        here.turn()
        here.loop.advance(4)  # slow, but not idle
        if here.transport.waiting > here.transport.high:
            here.transport.drain()
        rounds += 1
    assert rounds > 1
    assert here.transport.reading
    assert not here.transport.closed
    assert here.transfers.active == 0
    lengths = sizes(bytes(here.transport.sent))
    assert len(lengths) > 5


@pytest.mark.parametrize(("kind", "writes"), [("tcp", 2), ("tls", 6)])
def test_under_tls_each_message_is_a_write(
    monkeypatch: pytest.MonkeyPatch, kind: str, writes: int
) -> None:
    """So that records end where messages do; NSD 4.6 waits for the stream's end otherwise."""
    here = stream(monkeypatch, version(5, "$GENERATE 1-3600 Host-$ A 192.0.2.1"), kind)
    here.protocol.data_received(framed(question("x.test.", "AXFR")))
    while here.soon:
        here.turn()
    assert len(sizes(bytes(here.transport.sent))) == 6
    assert here.transport.writes == writes


def test_a_stream_takes_few_transfers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for behind them waits, and is answered in the end."""
    here = stream(monkeypatch, BIG)
    query, after = question("x.test.", "AXFR"), question("host-7.x.test.")
    here.protocol.data_received(framed(*[query] * MAX_TRANSFERS, after))
    assert not here.transport.reading
    assert here.transfers.active == 1
    assert after[:2] != bytes(here.transport.sent)[2:4]
    while here.soon:
        here.turn()
    assert here.transport.reading
    assert here.transfers.active == 0
    sent = bytes(here.transport.sent)
    seen = 0
    while sent:
        length = int.from_bytes(sent[:2], "big")
        seen += sent[2:4] == after[:2]
        sent = sent[2 + length :]
    assert seen == 1


def test_a_transfer_ends_with_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    here = stream(monkeypatch, BIG)
    here.protocol.data_received(framed(question("x.test.", "AXFR")))
    assert here.transfers.active == 1
    here.protocol.connection_lost(None)
    assert here.transfers.active == 0
    here.turn()


def test_eof_behind_a_transfer_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    here = stream(monkeypatch, BIG)
    here.protocol.data_received(framed(question("x.test.", "AXFR")))
    assert here.protocol.eof_received() is True
    while here.soon:
        here.turn()
    assert here.transport.closed == "closed"
    assert here.transfers.active == 0


def test_dnspythons_own_client_over_loopback() -> None:
    async def scenario() -> tuple[dns.zone.Zone, dns.zone.Zone]:
        loop = asyncio.get_running_loop()
        transfers = Transfers(default=[grant("127.0.0.0/8", "xfr.example.")])
        transfers.changed(difference(V1, V2))
        transfers.changed(difference(V2, V3))
        holder = SimpleNamespace(current=catalog(V3, transfers))
        server = await loop.create_server(lambda: DnsStreamProtocol(holder), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        whole = dns.versioned.Zone("x.test.")
        steps = dns.versioned.Zone("x.test.")

        def client() -> None:
            axfr, _ = dns.xfr.make_query(whole, keyring=KEY)
            dns.query.inbound_xfr("127.0.0.1", whole, axfr, port=port, lifetime=10)
            with steps.writer(True) as txn:
                for node, rrset in V1:
                    owner = dns.name.from_text(names.to_text(node.owner)).relativize(steps.origin)
                    for rdata in rrset.rdatas:
                        txn.add(
                            owner,
                            rrset.ttl,
                            dns.rdata.from_wire(1, rrset.rtype, rdata, 0, len(rdata)),
                        )
            query, _ = dns.xfr.make_query(steps, keyring=KEY)
            dns.query.inbound_xfr("127.0.0.1", steps, query, port=port, lifetime=10)

        await loop.run_in_executor(None, client)
        server.close()
        await server.wait_closed()
        return whole, steps

    whole, steps = asyncio.run(scenario())
    assert content(whole) == content(V3)
    assert content(steps) == content(V3)
    assert ipaddress.ip_address("127.0.0.1").is_loopback
