"""What a connection may fail for: its scenario's links and settings, and its applications.

Only these excuse an error that an application hears of; without one it is a finding. Imports
`scenario`, `link` and `application`.
"""

from __future__ import annotations

from typing import Final, Protocol

from appliance.fuzz.application import Application
from appliance.fuzz.link import Link
from appliance.fuzz.scenario import Scenario

PLENTY: Final = 64 << 20
"""Octets of memory that no scenario of ordinary size needs."""
SYN_OCTETS: Final = 74
"""Octets of a frame with a SYN and its options."""
LOSSY: Final = 0.08
"""Chance from which on a handshake's seven tries can all be lost once in a million scenarios."""


class Ends(Protocol):
    """The two ends of a connection."""

    client: Application
    server: Application


def cut_short(app: Application) -> bool:
    """Whether an application ended before it had written everything."""
    return app.written < app.total


def own_doing(pair: Ends) -> set[str]:
    """Errors that the applications bring upon each other."""
    allowed: set[str] = set()
    ends = (pair.client.end, pair.server.end)
    if any(end.ending == "abort" for end in ends):
        # RFC 9293 §3.10.7.4: a reset that arrives in SYN-RECEIVED refuses the connection.
        allowed |= {"ConnectionResetError", "ConnectionRefusedError"}
    for end, app, peer in (
        (ends[0], pair.client, pair.server),
        (ends[1], pair.server, pair.client),
    ):
        # RFC 9293 §3.6.1, RFC 2525 §2.17: closing with octets unread, or still to come, resets.
        if (
            end.ending == "close"
            and peer.total
            and not (end.when == "done" or (end.when == "eof" and app.got == peer.total))
        ):
            allowed |= {"ConnectionResetError", "BrokenPipeError"}
            if peer.end.early:
                # RFC 7413 §4.2.2: octets in the SYN reach who is still in SYN-SENT when the reset
                # comes, where it refuses the connection (RFC 9293 §3.10.7.3).
                allowed.add("ConnectionRefusedError")
    return allowed


def excuses(scenario: Scenario) -> set[str]:
    """Errors that a scenario's links and settings give a reason for."""
    allowed: set[str] = set()
    links = _links(scenario)
    middle = scenario.middle
    narrow = middle is not None and not middle.signal
    if narrow or any(_hopeless(link) for link in links):
        # A connection that gives up leaves the other end to give up, or to be reset by ours.
        allowed |= {"TimeoutError", "ConnectionResetError", "ConnectionRefusedError", "OSError"}
    # A cookie vouches for a handshake's last ACK alone: what overtakes it is answered by a reset,
    # and a lost SYN,ACK is not sent again (RFC 4987 §3.6).
    if any(flow.count > scenario.server.backlog for flow in scenario.flow):
        allowed |= {"ConnectionResetError", "ConnectionRefusedError"}
    # Many that begin at once fill a small queue with SYNs, and repeat them at once.
    for link in links:
        for flow in scenario.flow:
            if flow.count * SYN_OCTETS > link.queue and link.rate < float("inf"):
                allowed |= {"TimeoutError", "ConnectionResetError"}
    for machine in (scenario.client, scenario.server):
        if machine.memory < PLENTY:
            allowed |= {"ConnectionAbortedError", "ConnectionResetError"}
        if machine.tcp.user_timeout or machine.tcp.keepalive:
            allowed |= {"TimeoutError", "ConnectionResetError"}
    return allowed


def _links(scenario: Scenario) -> list[Link]:
    found = [scenario.link, scenario.back or scenario.link]
    return found if scenario.middle is None else [*found, scenario.middle.link]


def lossy(scenario: Scenario) -> bool:
    """Whether anything can be lost at all."""
    return scenario.middle is not None or any(
        link
        != Link(
            delay=link.delay, jitter=link.jitter, rate=link.rate, queue=link.queue, full=link.full
        )
        or link.rate < float("inf")
        for link in _links(scenario)
    )


def _hopeless(link: Link) -> bool:
    """Whether a link can fail a correct TCP."""
    gone = link.loss + link.corrupt + link.truncate
    queueing = link.queue * 8 / link.rate if link.rate < float("inf") else 0.0
    return (
        gone >= LOSSY
        or link.burst is not None
        or queueing + link.delay + link.jitter > 1.0  # a neighbour has three seconds to answer
        or bool(link.mtu and not link.signal)
        or any(end - start > 2.0 for start, end in link.blackouts)
    )
