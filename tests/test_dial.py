"""Connections that we open: which address is taken when a host has several."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance import dial
from appliance.dial import Dialer, DialError

SILENT, REFUSING, GOOD = "2001:db8::1", "2001:db8::2", "192.0.2.1"


class Network:
    """A stack and a resolver: some addresses answer, one refuses, one says nothing."""

    def __init__(self, *addresses: str) -> None:
        self.found = list(addresses)
        self.tried: list[str] = []

    async def addresses(self, host: str) -> list[str]:
        return self.found

    async def open_connection(self, address: str, port: int) -> tuple[str, int]:
        self.tried.append(address)
        if address == SILENT:
            await asyncio.Event().wait()
        if address == REFUSING:
            raise ConnectionRefusedError("refused")
        return address, port


def dialer(network: Any) -> Dialer:
    return Dialer(network, network, None)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_rfc8305_5_an_address_that_says_nothing_does_not_keep_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 8305 §5: a host with an IPv6 that leads nowhere is reached by IPv4."""
    monkeypatch.setattr(dial, "ATTEMPT", 0.01)
    network = Network(SILENT, REFUSING, GOOD)
    async with asyncio.timeout(5):
        assert await dialer(network)._connect("http", "ca.example", 80) == (GOOD, 80)
    assert network.tried == [SILENT, REFUSING, GOOD]


@pytest.mark.asyncio
async def test_the_last_address_has_all_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dial, "ATTEMPT", 0.01)
    monkeypatch.setattr(dial, "DEADLINE", 0.1)
    network = Network(SILENT)
    with pytest.raises(DialError, match="no answer within"):
        await dialer(network).fetch("GET", "http://ca.example/", {})
    assert network.tried == [SILENT]
