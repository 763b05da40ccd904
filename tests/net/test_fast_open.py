"""Cookies, the queue of pending opens, and what a client remembers (RFC 7413)."""

from __future__ import annotations

import pytest

from appliance.net.counters import Counters
from appliance.net.fast_open import (
    NO_FAST_OPEN,
    OPENS,
    OPTIONS_ROOM,
    PAUSE,
    ROTATION,
    Cookies,
    Opening,
    OpenQueue,
    Servers,
    Verdict,
)
from appliance.net.wire.address import from_text
from appliance.net.wire.tcp import build_fast_open, build_syn_options, parse_options

PAIR = from_text("192.0.2.1") + from_text("192.168.0.1")  # client, server
SERVER = from_text("192.0.2.80")


def cookies(*keys: bytes) -> Cookies:
    made = Cookies(b"secret", Counters())
    made.use_keys(keys)
    return made


def judge(
    server: Cookies,
    offered: bytes | None,
    *,
    queue: OpenQueue | None = None,
    limit: int = 8,
    data: bool = True,
    pair: bytes = PAIR,
    now: float = 0.0,
    required: bool = True,
) -> Verdict:
    return server.judge(queue or OpenQueue(), limit, offered, data, pair, now, required=required)


# ---------------------------------------------------------------------- cookies


def test_cookies_are_those_of_linux() -> None:
    """RFC 7413 §4.1.2: servers that share a key share cookies; so do those of two makes."""
    key = bytes.fromhex("a1a1a1a1b2b2b2b2c3c3c3c3d4d4d4d4")
    assert judge(cookies(key), b"") == Verdict(False, bytes.fromhex("3021b9d889017eeb"))
    other = bytes.fromhex("f763bfa0813d80ed301d64cd904abcce")
    pair = from_text("10.248.0.2") + from_text("192.168.0.2")
    assert judge(cookies(other), b"", pair=pair).cookie == bytes.fromhex("00abaaabe8e954c2")


def test_a_cookie_is_asked_for_and_shown() -> None:
    """RFC 7413 §4.2.1, §4.2.2."""
    server = Cookies(b"secret", Counters())
    given = judge(server, b"", data=False)
    assert not given.opens
    assert given.cookie is not None
    assert judge(server, given.cookie) == OPENS
    # Without data as well: then the server may be the first to speak.
    assert judge(server, given.cookie, data=False) == OPENS


def test_a_cookie_is_good_for_its_addresses_alone() -> None:
    """RFC 7413 §4.1.2: it is bound to the client's address; another is answered by a good one."""
    server = Cookies(b"secret", Counters())
    cookie = judge(server, b"").cookie
    there = from_text("192.0.2.2") + PAIR[4:]
    verdict = judge(server, cookie, pair=there)
    assert not verdict.opens
    assert verdict.cookie not in (None, cookie)


def test_a_syn_with_data_but_no_cookie_is_an_ordinary_one() -> None:
    """RFC 7413 §4.2.2."""
    assert judge(Cookies(b"secret", Counters()), None) == NO_FAST_OPEN


def test_who_wants_no_cookies_opens_for_data() -> None:
    """RFC 7413 §7.3."""
    server = Cookies(b"secret", Counters())
    assert judge(server, None, required=False) == OPENS
    assert judge(server, None, data=False, required=False) == NO_FAST_OPEN


def test_the_key_turns_and_the_one_before_is_known() -> None:
    """RFC 7413 §4.1.2, §5.2: cookies expire; who shows an old one gets a new one with it."""
    server = Cookies(b"secret", Counters())
    old = judge(server, b"").cookie
    assert judge(server, old, now=ROTATION - 1.0) == OPENS
    verdict = judge(server, old, now=ROTATION)
    assert verdict.opens
    assert verdict.cookie not in (None, old)
    assert judge(server, verdict.cookie, now=ROTATION) == OPENS
    assert not judge(server, old, now=2 * ROTATION).opens


def test_processes_with_one_secret_know_each_others_cookies() -> None:
    one, other = Cookies(b"secret", Counters()), Cookies(b"secret", Counters())
    assert judge(other, judge(one, b"").cookie) == OPENS
    assert not judge(Cookies(b"another", Counters()), judge(one, b"").cookie).opens


def test_a_listener_may_have_a_key_of_its_own() -> None:
    queue = OpenQueue()
    queue.keys = (bytes(16),)
    assert judge(cookies(b"k" * 16), b"", queue=queue) == judge(cookies(bytes(16)), b"")


def test_a_key_has_sixteen_octets() -> None:
    with pytest.raises(ValueError, match="16 octets"):
        cookies(b"short")


# ---------------------------------------------------------------------- the queue


def test_no_more_are_pending_than_the_limit() -> None:
    """RFC 7413 §5.1: beyond PendingFastOpenRequests the server falls back, and says nothing."""
    counters = Counters()
    server, queue = Cookies(b"secret", counters), OpenQueue()
    cookie = judge(server, b"").cookie
    queue.enter()
    assert judge(server, cookie, queue=queue, limit=2) == OPENS
    queue.enter()
    assert judge(server, cookie, queue=queue, limit=2) == NO_FAST_OPEN
    assert judge(server, b"", queue=queue, limit=2) == NO_FAST_OPEN
    assert counters.tcp_fast_open_overflows == 2
    queue.leave()
    assert judge(server, cookie, queue=queue, limit=2) == OPENS


def test_a_reset_gives_no_room_for_a_while() -> None:
    """RFC 7413 §5.1: resets may be the attacker's own, or provoked from those it poses as."""
    queue = OpenQueue()
    queue.enter()
    queue.enter()
    queue.leave(reset_until=70.0)
    queue.leave(reset_until=60.0)
    assert queue.is_full(2, 59.0)
    assert not queue.is_full(2, 60.0)
    assert queue.is_full(1, 60.0)
    assert not queue.is_full(1, 70.0)
    assert queue.pending == 0


def test_an_open_leaves_the_queue_once() -> None:
    queue = OpenQueue()
    opening = Opening(None, False)
    opening.queue = queue
    queue.enter()
    opening.complete()
    opening.over(0.0, was_reset=True)
    assert queue.pending == 0
    assert not queue.is_full(1, 0.0)


# ---------------------------------------------------------------------- the client


def learn(servers: Servers, said: bytes | None = None, **fields: object) -> Opening | None:
    """One open with `octets`, and its answer."""
    what: dict[str, int] = {"mss": 1000, "repeats": 0, "taken": 0, "octets": 0, "now": 0, **fields}  # type: ignore[dict-item]
    opening = servers.begin(SERVER, what["now"])
    if opening is not None:
        opening.octets = what["octets"]
        option = None if said is None else (said, opening.experimental)
        servers.answered(opening, option, what["mss"], what["repeats"], what["taken"], what["now"])
    return opening


def test_a_client_asks_first_and_keeps_cookie_and_mss() -> None:
    """RFC 7413 §4.1.3, §4.2.1."""
    servers = Servers()
    first = learn(servers, b"abcdabcd")
    assert first is not None
    assert (first.cookie, first.room(1460)) == (b"", 0)
    second = servers.begin(SERVER, 0.0)
    assert second is not None
    assert (second.cookie, second.room(1460)) == (b"abcdabcd", 1000 - OPTIONS_ROOM)
    assert second.room(500) == 500 - OPTIONS_ROOM


def test_a_cookie_that_nobody_asked_for_is_not_kept() -> None:
    servers = Servers()
    opening = servers.begin(SERVER, 0.0, cookies=False)
    assert opening is not None
    assert opening.cookie is None
    assert opening.room(1460) == 1460 - OPTIONS_ROOM
    servers.answered(opening, (b"abcdabcd", False), 1460, 0, 0, 0.0)
    assert not servers.knows_cookie(SERVER)


def test_the_older_option_is_tried_once() -> None:
    """As Linux does for servers of before RFC 7413 (its option: RFC 6994)."""
    servers = Servers()
    tried = [learn(servers) for _ in range(4)]
    assert [opening is not None and opening.experimental for opening in tried] == [
        False, True, False, False,
    ]  # fmt: skip


def test_syns_with_data_that_get_lost_end_it_for_a_while() -> None:
    """RFC 7413 §4.1.3.1: negative responses are cached; longer each time."""
    servers = Servers()
    learn(servers, b"abcdabcd")
    lost = {"octets": 10, "repeats": 1}
    assert learn(servers, **lost) is not None
    assert learn(servers, **lost) is not None  # one loss may be chance
    assert learn(servers, **lost) is None
    assert learn(servers, now=4 * PAUSE - 1) is None
    assert learn(servers, now=4 * PAUSE, **lost) is not None
    assert learn(servers, now=12 * PAUSE - 1) is None
    # Who answers the first SYN is well again.
    assert learn(servers, now=12 * PAUSE, octets=10, taken=10) is not None
    assert learn(servers, now=12 * PAUSE, **lost) is not None
    assert learn(servers, now=12 * PAUSE) is not None


def test_the_memory_is_bounded() -> None:
    servers = Servers(limit=2)
    for last in (1, 2, 1, 3):
        opening = servers.begin(bytes((last,)), 0.0)
        assert opening is not None
        servers.answered(opening, (b"abcd", False), 1460, 0, 0, 0.0)
    assert len(servers) == 2
    assert [servers.knows_cookie(bytes((last,))) for last in (1, 2, 3)] == [True, False, True]


# ---------------------------------------------------------------------- the option


@pytest.mark.parametrize("experimental", [False, True])
@pytest.mark.parametrize("length", [0, 4, 6, 8, 16])
def test_the_option_is_read_as_written(length: int, experimental: bool) -> None:
    """RFC 7413 §4.1.1, and RFC 6994 for the older one."""
    cookie = bytes(range(length))
    options = build_syn_options(1460, 8, True, (1, 2)) + build_fast_open(cookie, experimental)
    assert len(options) % 4 == 0
    assert len(options) <= 40
    read = parse_options(options, 0, len(options))
    assert read.fast_open == (cookie, experimental)
    assert (read.mss, read.window_scale, read.malformed) == (1460, 8, False)


@pytest.mark.parametrize(
    "option",
    [
        bytes((34, 4, 1, 2)),  # too short
        bytes((34, 7, 1, 2, 3, 4, 5, 1)),  # odd
        bytes((34, 20, *range(18))),  # too long
        bytes((254, 6, 1, 2, 3, 4)),  # somebody else's experiment
        bytes((254, 2)),
        bytes((254, 6, 0xF9, 0x89, 1, 2)),
    ],
)
def test_other_lengths_are_ignored(option: bytes) -> None:
    """RFC 7413 §4.1.1: "options with an invalid Length field ... MUST be ignored"."""
    for options in (option, build_fast_open(b"good") + option):
        read = parse_options(options, 0, len(options))
        assert read.fast_open == (None if options == option else (b"good", False))
        assert not read.malformed
