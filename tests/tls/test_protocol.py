from __future__ import annotations

import asyncio
import datetime as dt
from copy import copy
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from OpenSSL import SSL

from appliance.tls.authority import self_signed
from appliance.tls.contexts import TICKET_SECONDS, Contexts, Tickets
from appliance.tls.errors import TlsError
from appliance.tls.hello import MAX_HELLO
from appliance.tls.limits import Limits
from appliance.tls.outgoing import REST, SMALL_RECORD, SMALL_UNTIL
from appliance.tls.protocol import HTTP_TEXT, ServerStream
from appliance.tls.stream import MAX_LINGER
from tests.tls.rig import CREDENTIAL, NOW, App, Rig, client_context, contexts

ALERT = 21


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def records(data: bytes) -> list[tuple[int, int]]:
    """(content type, length) of each record."""
    found = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        found.append((data[at], length))
        at += 5 + length
    assert at == len(data)
    return found


@pytest.mark.parametrize("tls12", [False, True])
def test_octets_both_ways(rig: Rig, tls12: bool) -> None:
    """RFC 8446, RFC 5246: a handshake, then plain octets above."""
    rig.shake(tls12=tls12, alpn=[b"http/1.1"])
    rig.say(b"a question")
    assert rig.app.received == b"a question"
    rig.app.transport.write(b"an answer")
    assert rig.hear() == b"an answer"
    assert rig.app.alpn == "http/1.1"
    counters = rig.server.counters
    assert (counters.handshakes, counters.tls12, counters.tls13) == (1, int(tls12), int(not tls12))
    assert rig.server.handshaking == {}


def test_the_hybrid_group_is_kept(rig: Rig) -> None:
    """RFC 8446 §4.2.7; the default list of OpenSSL begins with X25519MLKEM768."""
    rig.shake()
    assert rig.client.get_group_name() == "X25519MLKEM768"


def test_one_octet_at_a_time(rig: Rig) -> None:
    """Segments have no boundaries that TLS may rely on."""
    client = rig.open()
    for _ in range(6):
        try:
            client.do_handshake()
        except SSL.WantReadError:
            pass
        for octet in rig.out():
            rig.give(bytes((octet,)))
        if answer := rig.below.take():
            client.bio_write(answer)
    client.sendall(b"slowly")
    for octet in rig.out():
        rig.give(bytes((octet,)))
    assert rig.app.received == b"slowly"


def test_speaking_in_the_segment_that_ends_the_handshake(rig: Rig) -> None:
    """RFC 8446 §2: application data may follow Finished at once."""
    client = rig.open()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    rig.exchange()
    client.do_handshake()
    client.sendall(b"already")
    rig.give(rig.out())
    assert rig.app.received == b"already"


@pytest.mark.parametrize("offer", [[b"h2", b"http/1.1"], [b"http/1.1", b"h2"]])
def test_the_servers_order_of_protocols_decides(rig: Rig, offer: list[bytes]) -> None:
    """RFC 7301 §3.2."""
    rig.shake(alpn=offer)
    assert rig.app.alpn == "h2"


def test_no_protocol_in_common_is_fatal(rig: Rig) -> None:
    """RFC 7301 §3.2: no_application_protocol."""
    with pytest.raises(SSL.Error, match="no application protocol"):
        rig.shake(alpn=[b"smtp"])
    assert rig.below.eof_written


def test_without_alpn_there_is_none(rig: Rig) -> None:
    assert rig.shake().app.alpn is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.org", 0), ("EXAMPLE.org", 0), ("www.example.org", 0), ("other.test", 1),
        ("unknown.invalid", 0), ("a.b.example.org", 0), (None, 0),
    ],
)  # fmt: skip
def test_the_name_chooses_the_certificate(
    monkeypatch: pytest.MonkeyPatch, name: str | None, expected: int
) -> None:
    """RFC 6066 §3; names that nobody knows get the first certificate, and are counted."""
    other = self_signed(["other.test"], NOW)
    offered = contexts(CREDENTIAL, other)
    rig = Rig(monkeypatch, offered=offered).shake(name=name)
    shown = rig.client.get_peer_certificate(as_cryptography=True)
    assert shown == (CREDENTIAL, other)[expected].leaf
    assert offered.unknown_names == (name in ("unknown.invalid", "a.b.example.org"))


@pytest.mark.parametrize(
    ("name", "told"),
    [("example.org", True), ("www.example.org", True), ("unknown.invalid", False), (None, False)],
)
def test_rfc6066_3_a_server_says_that_it_went_by_the_name(
    rig: Rig, name: str | None, told: bool
) -> None:
    """SHALL, by an empty extension; in TLS 1.2 it can be seen from outside."""
    rig.open(name=name, tls12=True)
    with pytest.raises(SSL.WantReadError):
        rig.client.do_handshake()
    rig.give(rig.out())
    hello = rig.below.take()[5:]
    assert hello[0] == 2  # ServerHello
    at = 38 + 1 + hello[38] + 3  # behind session id, suite and compression
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    found = {}
    while at < end:
        kind, length = (int.from_bytes(hello[at + n : at + n + 2], "big") for n in (0, 2))
        found[kind] = hello[at + 4 : at + 4 + length]
        at += 4 + length
    assert found.get(0) == (b"" if told else None)


def test_new_certificates_leave_connections_and_tickets_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 8446 §2.2: a ticket of before the change resumes after it."""
    offered = contexts()
    first = Rig(monkeypatch, offered=offered)
    context = client_context()
    first.shake(context=context)
    session = first.client.get_session()
    offered.replace([self_signed(["example.org"], NOW)])
    first.say(b"still here")
    assert first.app.received == b"still here"
    second = Rig(monkeypatch, server=first.server, loop=first.loop)
    second.shake(context=context, session=session)
    assert second.server.counters.resumed == 1
    second.say(b"again")
    assert second.app.received == b"again"


@pytest.mark.parametrize("tls12", [False, True])
@pytest.mark.parametrize(("turns", "resumes"), [(0, 1), (1, 1), (2, 0)])
def test_ticket_keys_turn(
    monkeypatch: pytest.MonkeyPatch, turns: int, resumes: int, tls12: bool
) -> None:
    """RFC 5077 §5.5: keys change; the last ones are taken for one more period."""
    offered = contexts()
    first = Rig(monkeypatch, offered=offered)
    context = client_context(tls12=tls12)
    first.shake(context=context)
    session = first.client.get_session()
    for n in range(turns):
        assert not offered.turn((n + 1) * TICKET_SECONDS - 1)
        assert offered.turn((n + 1) * TICKET_SECONDS)
    second = Rig(monkeypatch, server=first.server, loop=first.loop)
    second.shake(context=context, session=session)
    assert second.server.counters.resumed == resumes
    assert second.server.counters.handshakes == 2


def forked(offered: Contexts) -> Contexts:
    """What a worker has that was forked off: the same contexts, turned by itself."""
    worker = copy(offered)
    worker._tickets = copy(offered._tickets)
    worker._tickets._ahead = copy(offered._tickets._ahead)
    return worker


@pytest.mark.parametrize("tls12", [False, True])
@pytest.mark.parametrize(
    ("one", "other", "resumes"),
    [
        ([1], [1], True),
        ([1, 2, 3], [1, 2, 3], True),
        ([1, 2, 3], [3], True),  # it was asleep meanwhile
        ([2], [2, 3], True),  # those of before are good
        ([2], [1], True),  # the other has not looked at the clock yet
        ([1], [3], False),
        ([5], [5], False),  # beyond what was made before the fork
    ],
)
def test_workers_have_the_same_ticket_keys_after_they_turned(
    monkeypatch: pytest.MonkeyPatch, one: list[int], other: list[int], resumes: bool, tls12: bool
) -> None:
    """RFC 5077 §5.5, in processes that were forked: by the clock that they have in common."""
    tickets = Tickets(None, 100.0, ahead=4)
    offered = Contexts(
        [CREDENTIAL], protocols=[b"h2", b"http/1.1"], service="test", now=100.0, tickets=tickets
    )
    workers = [forked(offered), forked(offered)]
    for worker, turns in zip(workers, (one, other), strict=True):
        for turn in turns:
            assert worker.turn(100.0 + turn * TICKET_SECONDS + 5)
            assert not worker.turn(100.0 + (turn + 1) * TICKET_SECONDS - 5)
    context = client_context(tls12=tls12)
    first = Rig(monkeypatch, offered=workers[0]).shake(context=context)
    session = first.client.get_session()
    second = Rig(monkeypatch, offered=workers[1], loop=first.loop)
    second.shake(context=context, session=session)
    assert second.server.counters.resumed == resumes


def test_keys_of_an_idle_day_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = contexts()
    first = Rig(monkeypatch, offered=offered)
    context = client_context()
    first.shake(context=context)
    session = first.client.get_session()
    assert offered.turn(2 * TICKET_SECONDS)
    second = Rig(monkeypatch, server=first.server, loop=first.loop)
    second.shake(context=context, session=session)
    assert second.server.counters.resumed == 0


# -- closing --


def test_close_says_close_notify_and_waits_for_the_peer(rig: Rig) -> None:
    """RFC 8446 §6.1; RFC 9112 §9.6: no reset may destroy the last answer."""
    rig.shake()
    app = rig.app
    app.transport.write(b"last words")
    app.transport.close()
    assert rig.below.eof_written
    assert not rig.below.closed
    assert rig.hear() == b"last words"
    assert rig.client.get_shutdown() == SSL.RECEIVED_SHUTDOWN
    rig.give(b"anything that was on its way")
    rig.stream.eof_received()
    assert rig.below.closed
    rig.lost()
    assert app.lost == [None]


def test_a_peer_that_does_not_close_is_not_waited_for(rig: Rig) -> None:
    rig.shake().app.transport.close()
    rig.loop.advance(4.9)
    assert not rig.below.aborted
    rig.loop.advance(0.2)
    assert rig.below.aborted


@pytest.mark.parametrize("tls12", [False, True])
def test_a_peer_that_reads_slowly_gets_all_before_the_end(rig: Rig, tls12: bool) -> None:
    """RFC 9112 §9.6: the moment to close begins when the peer has the last of it."""
    app = rig.shake(tls12=tls12).app
    app.transport.write(bytes(200_000))
    app.transport.close()
    assert rig.below.eof_written
    for _ in range(14):
        rig.loop.advance(4.9)
        assert not rig.below.aborted
        del rig.below.sent[:16_000]
    assert not rig.below.sent
    rig.loop.advance(10.1)
    assert rig.below.aborted
    assert rig.server.lingering == {}


def test_those_who_read_slowly_share_a_timer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is waited for anew stands behind those that began meanwhile."""
    other = Rig(monkeypatch, server=rig.server, loop=rig.loop)
    rig.shake().app.transport.write(bytes(100_000))
    rig.app.transport.close()
    rig.loop.advance(1)
    other.shake().app.transport.close()
    del rig.below.sent[:50_000]
    rig.loop.advance(4.1)
    assert list(rig.server.lingering) == [other.stream, rig.stream]
    rig.loop.advance(1)
    assert other.below.aborted
    assert not rig.below.aborted
    rig.loop.advance(4)
    assert rig.below.aborted


def test_a_reader_of_what_waits_is_judged_by_what_it_takes(rig: Rig) -> None:
    app = rig.shake().app
    rig.below.room = 20_000
    app.transport.write(bytes(500_000))
    app.transport.close()
    rig.below.take()
    for _ in range(4):
        rig.loop.advance(25)
        assert not rig.below.aborted
        rig.below.take()
    rig.loop.advance(61)
    assert rig.below.aborted


def test_a_peer_that_goes_on_talking_is_reset(rig: Rig) -> None:
    rig.shake().app.transport.close()
    for _ in range(MAX_LINGER // 65536 + 1):
        rig.give(bytes(65536))
    assert rig.below.aborted


@pytest.mark.parametrize("tls12", [False, True])
def test_the_peers_close_notify_is_answered(rig: Rig, tls12: bool) -> None:
    """RFC 8446 §6.1, RFC 5246 §7.2.1."""
    rig.shake(tls12=tls12)
    app = rig.app
    rig.client.shutdown()
    rig.give(rig.out())
    assert app.eof
    assert rig.below.closed
    rig.hear()
    assert rig.client.get_shutdown() == SSL.RECEIVED_SHUTDOWN | SSL.SENT_SHUTDOWN


def test_half_closed_in_tls_13(rig: Rig) -> None:
    """RFC 8446 §6.1: close_notify ends one direction; the answer to the last question comes."""
    rig.shake()
    app = rig.app
    app.keep_open = True
    rig.client.sendall(b"question")
    rig.client.shutdown()
    rig.give(rig.out())
    assert app.eof
    assert app.received == b"question"
    assert not rig.below.closed
    app.transport.write(b"answer")
    app.transport.close()
    assert rig.hear() == b"answer"
    assert rig.below.closed


def test_tls_12_cannot_stay_half_open(rig: Rig) -> None:
    """RFC 5246 §7.2.1: close_notify is answered at once."""
    rig.shake(tls12=True)
    app = rig.app
    app.keep_open = True
    assert not app.transport.can_write_eof()
    with pytest.raises(NotImplementedError):
        app.transport.write_eof()
    rig.client.shutdown()
    rig.give(rig.out())
    assert rig.below.closed


def test_our_half_close(rig: Rig) -> None:
    """RFC 8446 §6.1: after write_eof() octets still come in, and the peer's end ends it all."""
    rig.shake()
    app = rig.app
    app.transport.write(b"all I had to say")
    app.transport.write_eof()
    assert rig.below.eof_written
    assert not app.transport.is_closing()
    assert rig.hear() == b"all I had to say"
    rig.say(b"thank you")
    assert app.received == b"thank you"
    with pytest.raises(RuntimeError):
        app.transport.write(b"more")
    rig.client.shutdown()
    rig.give(rig.out())
    assert rig.below.closed
    rig.lost()
    assert app.lost == [None]


def test_our_half_close_waits_for_what_is_queued(rig: Rig) -> None:
    rig.shake()
    app = rig.app
    rig.below.room = 1000
    app.transport.write(bytes(300_000))
    app.transport.write_eof()
    assert not rig.below.eof_written
    heard = 0
    while piece := rig.hear():
        heard += len(piece)
    assert heard == 300_000
    assert rig.below.eof_written


def test_an_end_without_close_notify(rig: Rig) -> None:
    """RFC 8446 §6.1: for a server requests say where they end; it is counted."""
    app = rig.shake().app
    rig.stream.eof_received()
    assert app.eof
    assert rig.server.counters.ragged == 1
    assert rig.below.closed


def test_abort_resets(rig: Rig) -> None:
    app = rig.shake().app
    app.transport.abort()
    assert rig.below.aborted
    rig.lost()
    assert app.lost == [None]
    app.transport.write(b"nobody")  # is quietly dropped, as after close()


# -- bad input --


def alert_of(data: bytes) -> int:
    """The description of an alert in the clear."""
    assert data[-7:-2] in (bytes((ALERT, 3, v, 0, 2)) for v in (2, 3)), data[-40:]
    return data[-1]


@pytest.mark.parametrize(
    "octets",
    [b"\0", b"\xff" * 100, b"SSH-2.0-OpenSSH_9.2\r\n", b"\x80\x2e\x01\0\x02",
     b"\x17\x03\x03\0\x05hello", b"\x16\x03\x01\0\0", b"\x16\x03\x01\0\x04\x02\0\0\0",
     b"\x15\x03\x03\0\x02\x01\0"],
)  # fmt: skip
def test_garbage_gets_an_alert_and_an_end(rig: Rig, octets: bytes) -> None:
    """RFC 8446 §6.2: unexpected_message or its kin, then the end."""
    rig.give(octets)
    rig.stream.eof_received()
    assert rig.below.closed
    assert rig.stream._error is not None or rig.server.counters.failures
    rig.lost()
    assert rig.server.handshaking == {}


def test_a_broken_record_is_answered_by_an_alert(rig: Rig) -> None:
    """RFC 8446 §5.2: bad_record_mac; the alert leaves, and the application is told."""
    rig.shake()
    app = rig.app
    rig.client.sendall(b"something")
    data = bytearray(rig.out())
    data[-1] ^= 1
    rig.give(bytes(data))
    assert app.received == b""
    assert rig.below.eof_written
    with pytest.raises(SSL.Error, match="bad record mac"):
        rig.hear()
    rig.loop.run()
    assert isinstance(app.lost[0], TlsError)
    rig.stream.eof_received()
    rig.lost()
    assert len(app.lost) == 1


def test_a_truncated_record_is_no_data(rig: Rig) -> None:
    app = rig.shake().app
    rig.client.sendall(b"something")
    rig.give(rig.out()[:-3])
    rig.stream.eof_received()
    assert app.received == b""
    assert rig.server.counters.ragged == 1


@pytest.mark.parametrize(
    "method",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_plain_http_is_told_so(rig: Rig, method: bytes, size: int) -> None:
    for at in range(0, len(method), size):
        rig.give(method[at : at + size])
    assert rig.below.sent.startswith(b"HTTP/1.1 400 ")
    # RFC 9110 §9.3.2: an answer to HEAD MUST NOT have content.
    assert rig.below.sent.endswith(b"\r\n\r\n" if method[:4] == b"HEAD" else HTTP_TEXT)
    # RFC 9110 §6.6.1: who has a clock MUST say in every 4xx what it shows.
    date = rig.below.sent.partition(b"\r\nDate: ")[2].partition(b"\r\n")[0].decode()
    told = parsedate_to_datetime(date)
    assert abs(dt.datetime.now(dt.UTC) - told) < dt.timedelta(minutes=1)
    assert rig.below.eof_written
    assert rig.server.counters.http == 1
    assert rig.server.handshaking == {}


def hello_of(rig: Rig) -> bytes:
    client = rig.open()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return rig.out()


def test_a_hello_in_one_octet_records(rig: Rig) -> None:
    """RFC 8446 §5.1: handshake messages may be fragmented over records."""
    message = hello_of(rig)[5:]
    for octet in message:
        rig.give(b"\x16\x03\x01\x00\x01" + bytes((octet,)))
    rig.client.bio_write(rig.below.take())
    rig.client.do_handshake()


def padded(length: int) -> bytes:
    """A ClientHello of this many octets, as records: padding by an extension (RFC 7685)."""
    extensions = (21).to_bytes(2, "big") + (length - 52).to_bytes(2, "big") + bytes(length - 52)
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"".join(
        b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
        for part in (message[at : at + 16384] for at in range(0, len(message), 16384))
    )


def test_a_hello_that_is_longer_than_any_is_refused(rig: Rig) -> None:
    """RFC 8446 §6.2: decode_error, as soon as it says how long it is to be."""
    hello = padded(65000)
    head = bytearray(hello[:16389])
    head[6:9] = (MAX_HELLO + 1).to_bytes(3, "big")
    for at in range(0, len(head), 1460):
        assert not rig.below.sent
        rig.give(bytes(head[at : at + 1460]))
    assert alert_of(bytes(rig.below.sent)) == 50
    assert rig.below.eof_written
    assert any(str(MAX_HELLO) in reason for reason in rig.server.counters.failures)
    assert rig.server.gathered == 0


@pytest.mark.parametrize("length", [16000, 65000])
def test_a_long_hello_is_understood(rig: Rig, length: int) -> None:
    """It has no key share and no groups: handshake_failure or missing_extension, by OpenSSL."""
    hello = padded(length)
    for at in range(0, len(hello), 1460):
        rig.give(hello[at : at + 1460])
    assert alert_of(bytes(rig.below.sent)) in (40, 109)
    assert rig.server.gathered == 0


def test_rfc8446_4_1_2_the_longest_hello_that_there_can_be(rig: Rig) -> None:
    """Every suite, session id, compression method and octet of extensions: it gets an answer."""
    rig.open(tls12=True)
    with pytest.raises(SSL.WantReadError):
        rig.client.do_handshake()
    body = rig.out()[9:]
    at = 34 + 1 + body[34]
    suites, at = body[at + 2 : (after := at + 2 + int.from_bytes(body[at : at + 2], "big"))], after
    extensions = body[at + 1 + body[at] + 2 :]
    room = 65535 - len(extensions) - 4
    longest = (
        body[:34] + b"\x20" + bytes(32)
        + (65534).to_bytes(2, "big") + suites + b"\x1a\x1a" * ((65534 - len(suites)) // 2)
        + b"\xff" + bytes(255)
        + (65535).to_bytes(2, "big") + extensions
        + (21).to_bytes(2, "big") + room.to_bytes(2, "big") + bytes(room)
    )  # fmt: skip
    assert len(longest) == MAX_HELLO
    message = b"\x01" + len(longest).to_bytes(3, "big") + longest
    for at in range(0, len(message), 16384):
        part = message[at : at + 16384]
        rig.give(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part)
    answer = rig.below.take()
    assert (answer[0], answer[5]) == (22, 2)  # ServerHello
    assert rig.server.gathered == 0


def test_unfinished_hellos_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an ordinary length are gathered even so, and what one held is given back."""
    limits = Limits(hellos=100_000)
    first = Rig(monkeypatch, limits=limits)
    rigs = [first, *(Rig(monkeypatch, server=first.server, loop=first.loop) for _ in range(3))]
    long = padded(65000)
    for rig in rigs[:2]:
        rig.give(long[:60000])
    assert not rigs[0].below.sent
    assert alert_of(bytes(rigs[1].below.sent)) == 80
    rigs[2].give(long[:50000])
    assert alert_of(bytes(rigs[2].below.sent)) == 80
    assert first.server.gathered == 60000
    rigs[0].stream.connection_lost(None)
    assert first.server.gathered == 0
    rigs[3].give(long)
    assert alert_of(bytes(rigs[3].below.sent)) in (40, 109)


def test_a_hello_in_tiny_records(rig: Rig) -> None:
    """Each octet in a record of its own, and each record in a segment (RFC 8446 §5.1)."""
    rig.open()
    with pytest.raises(SSL.WantReadError):
        rig.client.do_handshake()
    for octet in rig.out()[5:]:
        rig.give(b"\x16\x03\x01\0\x01" + bytes((octet,)))
    rig.client.bio_write(rig.below.take())
    rig.client.do_handshake()


def test_old_versions_are_refused(rig: Rig) -> None:
    """RFC 8996: protocol_version."""
    hello = bytearray(padded(300))
    hello[9:11] = b"\x03\x02"
    rig.give(bytes(hello))
    assert alert_of(bytes(rig.below.sent)) == 70


def test_renegotiation_is_refused(rig: Rig) -> None:
    """RFC 5246 §7.4.1.1: no_renegotiation, a warning; the connection goes on (RFC 9325 §3.5)."""
    rig.shake(tls12=True)
    app = rig.app
    rig.client.renegotiate()
    try:
        rig.client.do_handshake()
    except SSL.WantReadError:
        pass
    rig.give(rig.out())
    sent = rig.below.take()
    assert [kind for kind, _ in records(sent)] == [ALERT]
    assert rig.server.counters.handshakes == 1
    assert app.lost == []
    rig.client.bio_write(sent)
    with pytest.raises(SSL.Error, match="no renegotiation"):
        rig.client.do_handshake()


def test_a_handshake_has_a_deadline(rig: Rig) -> None:
    rig.give(hello_of(rig)[:100])
    rig.loop.advance(9.9)
    assert not rig.below.aborted
    rig.loop.advance(0.2)
    assert rig.below.aborted
    assert rig.server.counters.late == 1
    assert rig.server.handshaking == {}


def test_a_slow_handshake_gets_no_more_time_by_dribbling(rig: Rig) -> None:
    hello = hello_of(rig)
    for n in range(10):
        rig.give(hello[n : n + 1])
        rig.loop.advance(1.0)
    assert rig.below.aborted


def test_an_open_connection_has_no_deadline(rig: Rig) -> None:
    rig.shake()
    rig.loop.advance(1000)
    assert not rig.below.aborted


def test_too_many_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest makes room once it had its time; before that the new one is refused."""
    limits = Limits(handshakes=2)
    first = Rig(monkeypatch, limits=limits)
    second = Rig(monkeypatch, server=first.server, loop=first.loop)
    third = Rig(monkeypatch, server=first.server, loop=first.loop)
    assert third.below.aborted
    assert not first.below.aborted
    first.loop.advance(1.5)
    fourth = Rig(monkeypatch, server=first.server, loop=first.loop)
    assert first.below.aborted
    assert not second.below.aborted
    fourth.shake()
    assert first.server.counters.limited == 2
    assert list(first.server.handshaking) == [second.stream]


def test_challenges_are_for_those_who_ask_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8737 §3 and §4."""
    offered = contexts()
    proof = self_signed(["example.org"], NOW)
    offered.challenge("example.org", proof)
    rig = Rig(monkeypatch, offered=offered)
    rig.shake(alpn=[b"acme-tls/1"])
    assert rig.client.get_peer_certificate(as_cryptography=True) == proof.leaf
    assert rig.app.alpn == "acme-tls/1"
    usual = Rig(monkeypatch, offered=offered).shake(alpn=[b"h2"])
    assert usual.client.get_peer_certificate(as_cryptography=True) == CREDENTIAL.leaf
    offered.challenge("example.org", None)
    with pytest.raises(SSL.Error, match="no application protocol"):
        Rig(monkeypatch, offered=offered).shake(alpn=[b"acme-tls/1"])


# -- back-pressure and records --


def test_records_begin_small_and_grow(rig: Rig) -> None:
    """The first window in segments of one record each, then records of 16 KB (RFC 8446 §5.1)."""
    rig.shake().app.transport.write(bytes(300_000))
    sizes = [length for _, length in records(rig.below.take())]
    small = SMALL_UNTIL // SMALL_RECORD
    assert max(sizes[:small]) <= 1440 - 12 - 5
    assert sum(sizes[:small]) >= SMALL_UNTIL
    assert 16384 <= sizes[small + 1] <= 16384 + 256
    assert sum(sizes) - 17 * len(sizes) == 300_000


def test_records_are_small_again_after_a_rest(rig: Rig) -> None:
    transport = rig.shake().app.transport
    transport.write(bytes(300_000))
    rig.below.take()
    rig.loop.advance(REST * 3)
    transport.write(bytes(20_000))
    assert records(rig.below.take())[0][1] < 1500


def test_a_small_answer_is_one_record_in_one_write(rig: Rig) -> None:
    rig.shake().app.transport.write(bytes(1300))
    assert len(rig.below.writes[-1:]) == 1
    assert len(records(rig.below.take())) == 1


def test_a_reader_that_stops_stops_the_application(rig: Rig) -> None:
    """One chain: what is below, what waits here, what is above."""
    app = rig.shake().app
    rig.below.room = 100_000
    app.transport.write(bytes(1_000_000))
    assert app.paused
    held = app.transport.get_write_buffer_size()
    assert len(rig.below.sent) < 100_000 + 2 * 65536
    assert held >= 1_000_000 - 65536
    heard = 0
    while piece := rig.hear():
        heard += len(piece)
    assert heard == 1_000_000
    assert not app.paused


def test_close_sends_what_waits_first(rig: Rig) -> None:
    app = rig.shake().app
    rig.below.room = 10_000
    app.transport.write(bytes(500_000))
    app.transport.close()
    assert not rig.below.eof_written
    heard = 0
    while piece := rig.hear():
        heard += len(piece)
    assert heard == 500_000
    assert rig.below.eof_written
    assert rig.client.get_shutdown() == SSL.RECEIVED_SHUTDOWN


@pytest.mark.parametrize("half", [False, True])
def test_close_does_not_wait_for_ever_for_a_reader(rig: Rig, half: bool) -> None:
    app = rig.shake().app
    rig.below.room = 10_000
    app.transport.write(bytes(500_000))
    if half:
        app.transport.write_eof()
    app.transport.close()
    rig.loop.advance(31)
    assert rig.below.aborted


def test_paused_reading_holds_everything_in_order(rig: Rig) -> None:
    app = rig.shake().app
    app.on_data = lambda _data: app.transport.pause_reading()
    for n in range(4):
        rig.client.sendall(b"%d" % n * 1000)
    rig.give(rig.out())
    assert app.pieces == [1000]
    assert not rig.below.reading
    rig.say(b"late")
    assert app.pieces == [1000]
    app.on_data = None
    app.transport.resume_reading()
    rig.loop.run()
    assert app.received == b"".join(b"%d" % n * 1000 for n in range(4)) + b"late"
    assert rig.below.reading


def test_the_end_waits_while_reading_is_paused(rig: Rig) -> None:
    app = rig.shake().app
    app.transport.pause_reading()
    rig.client.sendall(b"data")
    rig.client.shutdown()
    rig.give(rig.out())
    rig.stream.eof_received()
    assert not app.eof
    app.transport.resume_reading()
    rig.loop.run()
    assert app.received == b"data"
    assert app.eof
    assert rig.server.counters.ragged == 0


def test_closing_from_within_data_received(rig: Rig) -> None:
    app = rig.shake().app
    app.on_data = lambda _data: app.transport.close()
    rig.client.sendall(b"one")
    rig.client.sendall(b"two")
    rig.give(rig.out())
    assert app.received == b"one"
    assert rig.below.eof_written


def test_another_protocol_may_take_over(rig: Rig) -> None:
    first = rig.shake().app
    second = App()
    first.transport.set_protocol(second)
    rig.say(b"to the second")
    assert second.received == b"to the second"
    assert first.received == b""


def test_it_has_all_that_a_transport_has() -> None:
    """It is no subclass, for the sake of mypyc; any asyncio protocol runs on it all the same."""
    offered = {name for name in dir(asyncio.Transport) if not name.startswith("_")}
    assert offered
    assert not {name for name in offered if name not in dir(ServerStream)}


def test_what_is_known_about_a_connection(rig: Rig) -> None:
    info = rig.shake(alpn=[b"h2"]).app.transport.get_extra_info
    assert info("tls_version") == "TLSv1.3"
    assert info("cipher") == "TLS_AES_128_GCM_SHA256"
    assert info("alpn") == "h2"
    assert info("peername") == ("192.0.2.1", 4711)
    assert info("peercert") is None
    assert info("nothing", 7) == 7


@pytest.mark.parametrize("sizes", [[1], [3, 1000], [5, 7, 1], [2000], [1448], [40000]])
def test_records_however_they_are_cut(rig: Rig, sizes: list[int]) -> None:
    """Nothing is lost or waits, whether records arrive whole, in pieces or together."""
    app = rig.shake().app
    said = b""
    for n in range(30):
        piece = bytes((65 + n % 26,)) * (n * 37 % 900 + 1)
        said += piece
        rig.client.sendall(piece)
        if n % 3:
            continue
        data = rig.out()
        at = turn = 0
        while at < len(data):
            size = sizes[turn % len(sizes)]
            rig.give(data[at : at + size])
            at, turn = at + size, turn + 1
        assert app.received == said
    rig.say(b"one whole record")
    assert app.received == said + b"one whole record"


def test_keys_are_logged_only_on_an_explicit_switch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """RFC 9850: one secret a line; the environment's variable is no switch."""
    file = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(file))
    Rig(monkeypatch).shake()
    assert not file.exists()
    lines: list[bytes] = []
    offered = Contexts([CREDENTIAL], protocols=(), service="t", now=0.0, keylog=lines.append)
    Rig(monkeypatch, offered=offered).shake()
    assert any(line.startswith(b"CLIENT_TRAFFIC_SECRET_0 ") for line in lines)
