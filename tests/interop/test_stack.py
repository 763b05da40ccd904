"""`appliance.net` as a library on a tap: our asyncio services, the kernel's sockets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import lab
from bench.lab import Namespace
from tests.interop.conftest import ENVIRONMENT, KERNEL, OURS, PEER, TAP, require, tap_namespace

SIZES = [0, 1, 1_447, 1_448, 1_449, 65_535, 65_536, 1_000_000, 20_000_000]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """A namespace in which `stack_host.py` runs on the tap."""
    require()
    folder = tmp_path_factory.mktemp("stack")
    script = Path(__file__).with_name("stack_host.py")
    with tap_namespace("stack") as here:
        command = here.command(sys.executable, str(script), TAP, f"{OURS}/24")
        with lab.serve("stack_host", command, folder, env=ENVIRONMENT) as server:
            server.wait(lambda: "ready" in server.words(), 30)
            yield here
            assert server.stop() == 0, server.words()
            assert server.words() == "ready"


def ask(space: Namespace, command: str, *arguments: object) -> Any:
    """Run a command of `peer.py` on the kernel's side."""
    words = [str(argument) for argument in arguments]
    return json.loads(space.run(sys.executable, str(PEER), command, OURS, *words))


@pytest.mark.parametrize("size", SIZES)
def test_upload(space: Namespace, size: int) -> None:
    """The kernel sends, closes its direction, and gets the digest of every octet."""
    answer = ask(space, "upload", 9, size)
    assert answer["theirs"] == answer["ours"]


@pytest.mark.parametrize("size", SIZES)
def test_download(space: Namespace, size: int) -> None:
    answer = ask(space, "download", 19, size)
    assert answer["length"] == size
    assert answer["theirs"] == answer["ours"]


@pytest.mark.parametrize("size", [1, 100_000, 5_000_000])
def test_echo_in_odd_pieces(space: Namespace, size: int) -> None:
    """Both directions at once, with back-pressure through the echo."""
    assert ask(space, "echo", 7, size)["same"]


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_connection_from_the_stack(space: Namespace, size: int) -> None:
    """Active open towards the kernel, and half-close on the way back."""
    answer = ask(space, "accept", 21, KERNEL, size)
    assert answer["theirs"] == answer["ours"]
    assert answer["source"] == OURS


def test_the_kernel_opens_fast(space: Namespace) -> None:
    """RFC 7413: Linux asks for a cookie, and then its SYN's octets are taken."""
    assert ask(space, "fast_open", 8) == [["early", False], ["early", True]]
    assert ask(space, "fast_open", 7) == [["early", False], ["early", False]]


def test_the_stack_opens_fast(space: Namespace) -> None:
    """RFC 7413: the other way round, with a cookie of Linux's."""
    assert ask(space, "accept_fast", 22, KERNEL) == [["early\n", False], ["early\n", True]]


def test_datagrams(space: Namespace) -> None:
    """RFC 768: datagrams up to what one packet of 1,500 octets carries come back unchanged."""
    sizes = [0, 1, 2, 3, 511, 512, 1_471, 1_472]
    assert ask(space, "datagrams", 7, *sizes) == [True] * len(sizes)
