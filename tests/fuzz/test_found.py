"""What the fuzzer found, each as the smallest scenario that shows it, so that it stays mended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.fuzz.run import Outcome

Play = Callable[..., Outcome]


@pytest.mark.xfail(strict=True, reason="BUG: a reset in LAST-ACK is told as a proper end")
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
