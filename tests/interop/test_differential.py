"""The same application scenario across the same bad link: kernel to ours, ours to kernel, ours to
ours. All must deliver every octet; that the kernel can is what makes a failure of ours one.

The link is `appliance.fuzz.Link` with the same seed, in real time on a tap, in virtual time between
two of ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.fuzz.run import run
from appliance.fuzz.scenario import from_table
from bench import lab
from bench.lab import Namespace
from tests.interop.conftest import ENVIRONMENT, KERNEL, OURS, PEER, TAP, require, tap_namespace

SEED = 4
OCTETS = 400_000
LINKS: dict[str, dict[str, Any]] = {
    "loss": {"delay": 0.005, "loss": 0.02},
    "bursts": {"delay": 0.002, "burst": {"begin": 0.005, "end": 0.4}},
    "reordering": {"delay": 0.005, "reorder": 0.1, "reorder_by": 0.004, "duplicate": 0.05},
    "damage": {"delay": 0.002, "corrupt": 0.02, "truncate": 0.01, "pad": 0.1},
    "slow": {"delay": 0.005, "rate": 2e7, "queue": 30_000, "jitter": 0.003, "loss": 0.005},
}
DOES = {
    "loss": ["lost"],
    "bursts": ["lost"],
    "reordering": ["reordered", "duplicated"],
    "damage": ["corrupted", "truncated", "padded"],
    "slow": ["lost"],
}


@pytest.fixture(scope="module", params=LINKS)
def space(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Namespace]]:
    """A namespace in which our host runs on the tap, behind a bad link."""
    require("ethtool")
    folder = tmp_path_factory.mktemp("differential")
    script = Path(__file__).with_name("impaired_host.py")
    with tap_namespace("bad") as here:
        link = json.dumps(LINKS[request.param])
        done = folder / "done.json"
        words = [str(script), TAP, f"{OURS}/24", str(SEED), link, str(done)]
        command = here.command(sys.executable, *words)
        with lab.serve("impaired_host", command, folder, env=ENVIRONMENT) as server:
            server.wait(lambda: "ready" in server.words(), 30)
            # A frame is to be a packet: one lost super-segment would be forty lost packets.
            here.run("ethtool", "-K", TAP, "tso", "off", "gso", "off", "tx", "off")
            yield request.param, here
            assert server.stop() == 0, server.words()
            assert server.words() == "ready"
    # A link that does nothing shows nothing.
    for way in json.loads(done.read_text()):
        assert way["delivered"] > 5 * OCTETS // 4 // 1448, way
        for kind in DOES[request.param]:
            assert way[kind] > 0, (request.param, kind, way)


def ask(space: Namespace, command: str, *arguments: object) -> Any:
    """Run a command of `peer.py` on the kernel's side."""
    words = [str(argument) for argument in arguments]
    return json.loads(space.run(sys.executable, str(PEER), command, OURS, *words))


def test_kernel_to_ours(space: tuple[str, Namespace]) -> None:
    answer = ask(space[1], "upload", 9, OCTETS)
    assert answer["theirs"] == answer["ours"]


def test_ours_to_kernel(space: tuple[str, Namespace]) -> None:
    answer = ask(space[1], "download", 19, OCTETS)
    assert answer["length"] == OCTETS
    assert answer["theirs"] == answer["ours"]


def test_both_ways_at_once(space: tuple[str, Namespace]) -> None:
    assert ask(space[1], "echo", 7, OCTETS // 4)["same"]


def test_opened_by_ours(space: tuple[str, Namespace]) -> None:
    answer = ask(space[1], "accept", 21, KERNEL, OCTETS // 4)
    assert answer["theirs"] == answer["ours"]


@pytest.mark.parametrize("name", LINKS)
def test_ours_to_ours(name: str) -> None:
    """The same, with our own stack in the kernel's place."""
    ends = ({"sends": OCTETS}, {"when": "eof"})
    table = {
        "seed": SEED,
        "link": LINKS[name],
        "flow": [
            {"client": ends[0], "server": ends[1]},
            {"client": ends[1], "server": ends[0]},
            {"client": {"sends": OCTETS // 4}, "server": {"sends": OCTETS // 4, "when": "eof"}},
        ],
    }
    outcome = run(from_table(table))
    assert outcome.findings == []
    assert outcome.errors == {}
