"""Several workers and a certificate authority: proofs are at the first, the certificate at all."""

from __future__ import annotations

import sys

import pytest
from cryptography.hazmat.primitives import hashes

from bench import lab
from tests.tls.test_interop_acme import KERNEL, ROOT, TAP, Lab, forget, laboratory

__all__ = ["laboratory"]  # the fixture


@pytest.fixture
def queues(laboratory: Lab) -> Lab:
    """The same laboratory, whose tap has queues."""
    name = laboratory.space.name
    lab.run("ip", "-n", name, "link", "del", "dev", TAP)
    lab.run("ip", "-n", name, "tuntap", "add", "dev", TAP, "mode", "tap", "multi_queue")
    laboratory.space.address(TAP, f"{KERNEL}/24")
    return laboratory


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01", "dns-01"])
def test_all_workers_have_what_the_first_is_given(queues: Lab, challenge: str) -> None:
    """RFC 8555 §8.3, §8.4, RFC 8737: whichever worker the authority would have come to."""
    forget(queues)
    settings = queues.settings(challenge=challenge, names=["www.example.test"])
    words = queues.space.command(
        *(sys.executable, "-m", "appliance", "serve", "-c", str(settings), "--workers", "2")
    )
    environment = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with lab.serve("workers", words, queues.folder, env=environment) as server:
        server.wait(lambda: "2 workers, processes" in server.words(), 30)
        server.wait(lambda: bool(queues.status()["sha256"]), 40)
        assert queues.status()["error"] is None
        given = queues.status()["sha256"]
        shown = [queues.shown("www.example.test") for _ in range(8)]
        assert {one.fingerprint(hashes.SHA256()).hex() for one in shown} == {_plain(given)}
        assert server.stop() == 0
        assert "Traceback" not in server.words()


def _plain(fingerprint: str) -> str:
    return fingerprint.replace(":", "").lower()
