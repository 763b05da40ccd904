"""What the fuzzer found, each as the smallest scenario that shows it, so that it stays mended."""

from __future__ import annotations

from collections.abc import Callable

from appliance.fuzz.run import Outcome

Play = Callable[..., Outcome]


def test_a_reset_in_last_ack_with_octets_unacknowledged(scenario: Play) -> None:
    """RFC 9293 §3.10.7.4: the connection is gone, and with it octets that nobody acknowledged."""
    scenario("""
        flow = [{ server = { sends = 1 } }]
        [client.tcp]
        user_timeout = 0.001
        [link]
        delay = 0.3
        blackouts = [[0.811, 100.811]]
    """)


def test_a_cookie_does_not_round_a_small_mss_up(scenario: Play) -> None:
    """RFC 9293 §3.7.1, MUST-16: no segment larger than the peer takes, SYN cookie or not."""
    outcome = scenario("""
        flow = [{ server = { sends = 5_000 }, count = 20 }]
        [client.tcp]
        max_segment = 200
        [server]
        backlog = 1
        [link]
        delay = 0.01
    """)
    assert outcome.counters["tcp_cookies_valid"] > 0


def test_the_ghost_of_a_connection_that_a_cookie_vouches_for(scenario: Play) -> None:
    """RFC 4987 §3.6: an old ACK makes a connection once more; it hears the same, and ends."""
    ghosts = 0
    for seed in range(8):
        outcome = scenario(f"""
            seed = {seed}
            flow = [{{ client = {{ sends = 1 }}, server = {{}}, count = 16 }}]
            [server]
            backlog = 4
            [link]
            reorder = 0.1
            reorder_by = 0.258
        """)
        ghosts += outcome.counters["tcp_accepted"] - 16
    assert ghosts > 0


def test_what_overtakes_the_ack_of_a_cookie_is_reset(scenario: Play) -> None:
    """RFC 4987 §3.6, RFC 9293 §3.10.7.2: without state there is nothing to hold it against."""
    resets = 0
    for seed in range(6):
        outcome = scenario(f"""
            seed = {seed}
            flow = [{{ client = {{ sends = 78 }}, count = 40 }}]
            [client.tcp]
            max_segment = 1
            [server]
            backlog = 4
            [link]
            reorder = 0.05
        """)
        resets += outcome.errors["ECONNRESET"]
    assert resets > 0


def test_a_cookie_for_an_old_syn_has_the_number_of_the_first(scenario: Play) -> None:
    """RFC 4987 §3.6: a function of the addresses and the minute, the connection being over."""
    outcome = scenario("""
        seed = 20262636
        flow = [{ server = {}, count = 50 }]
        [server]
        backlog = 4
        [link]
        rate = 10e6
        reorder = 0.161
        reorder_by = 1.0
    """)
    assert outcome.counters["tcp_cookies_valid"] > 0


def test_a_half_open_connection_outlives_its_peers_interest(scenario: Play) -> None:
    """RFC 9293 §3.5.2: the ports begin anew elsewhere; the old SYN-ACK is sent once more."""
    outcome = scenario("""
        seed = 20348174
        [client.tcp]
        receive_buffer = 20000
        timestamps = false
        max_segment = 200
        [server]
        offload = true
        backlog = 4
        [link]
        delay = 0.05
        jitter = 0.0404
        loss = 0.01
        corrupt = 0.0111
        reorder = 0.1213
        reorder_by = 1.0
        blackouts = [[2.257, 4.257], [4.279, 4.779]]
        [[flow]]
        opens = "both"
        [[flow]]
        server = { sends = 300000 }
        [[flow]]
        rounds = 1
        count = 295
        every = 0.1
        client = { sends = 40, when = "done" }
        server = { sends = 241 }
    """)
    assert outcome.errors["ECONNRESET"] > 0


def test_a_window_that_opens_upon_a_probe_that_was_called_lost(scenario: Play) -> None:
    """RFC 6675 §2: what is no longer out is not lost either."""
    scenario("""
        seed = 20309059
        flow = [{ client = { sends = 52500 }, server = { pause_every = 1 } }]
        [server.tcp]
        receive_buffer = 1200
        sack = false
        [link]
        delay = 0.013
        pad = 0.001
        reorder = 0.001
        [back]
        delay = 0.01
        jitter = 0.0404
    """)


def test_a_copy_of_a_syn_that_opens_fast(scenario: Play) -> None:
    """RFC 7413 §4.2.2: it may come in the same batch, before its first has been answered."""
    scenario("""
        seed = 600176
        flow = [{ server = { sends = 1 }, count = 7, every = 0.001 }]
        [client.tcp]
        fast_open = 1
        [server.tcp]
        fast_open = 1
        [link]
        duplicate = 0.024
    """)


def test_octets_of_a_syn_beyond_the_window(scenario: Play) -> None:
    """RFC 9293 §3.8.6: refused with the SYN, they leave again as far as the window reaches."""
    outcome = scenario("""
        flow = [{ client = { sends = 1071, early = true }, server = {} }]
        [client.tcp]
        fast_open = 1
        fast_open_cookies = false
        [server.tcp]
        receive_start = 1000
    """)
    assert outcome.counters["tcp_fast_open_refused"] == 1


def test_a_fast_open_that_was_reset_is_not_pending_for_ever(scenario: Play) -> None:
    """RFC 7413 §5.1: it counts for a minute, by time alone."""
    outcome = scenario("""
        flow = [
            {},
            { client = { ending = "close" }, server = { sends = 1 }, at = 0.001 },
        ]
        [client.tcp]
        fast_open = 1
        [server.tcp]
        fast_open = 1
    """)
    assert outcome.counters["tcp_fast_open_accepted"] == 1


def test_an_old_ack_of_a_port_that_began_anew_is_the_old_connections(scenario: Play) -> None:
    """RFC 4987 §3.6: the cookie vouches for it, and with it come the octets of then."""
    scenario("""
        seed = 20403950
        flow = [{ client = { sends = 1, early = true }, count = 130, every = 0.001 }]
        [client.tcp]
        fast_open = 1
        [server]
        backlog = 4
        [server.tcp]
        fast_open = 1
        [link]
        corrupt = 0.0052
        reorder = 0.0573
        reorder_by = 0.134
    """)


def test_who_closes_upon_a_fast_open_refuses_it(scenario: Play) -> None:
    """RFC 2525 §2.17, RFC 9293 §3.10.7.3: octets that nobody reads, of a peer in SYN-SENT."""
    outcome = scenario("""
        seed = 20401204
        flow = [{ client = { sends = 1, early = true }, server = { ending = "close" } }]
        [client.tcp]
        fast_open = 1
        fast_open_cookies = false
        [server.tcp]
        fast_open = 1
        fast_open_cookies = false
    """)
    assert outcome.errors["ECONNREFUSED"] == 1
