"""The control socket: what an engineer asks a running appliance, over a socket of its owner's."""

from __future__ import annotations

import asyncio
import gc
import json
import select
import socket
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import cli
from appliance.app import event_loop
from appliance.config import load
from appliance.net import Stack, pair
from appliance.net.vif.pcap import read_pcap
from appliance.parts.control import Control

OURS, PEER = "10.0.0.2", "10.0.0.1"


def settings_file(folder: Path) -> Path:
    file = folder / "appliance.toml"
    file.write_text('[control]\nsocket = "run/control"\n')
    return file


def with_control(folder: Path, script: Callable[[Stack, Control], Awaitable[None]]) -> None:
    """Run `script` beside a stack with a control part, and a peer on its cable."""

    async def scenario() -> None:
        left, right = pair()
        async with (
            Stack(left, addresses=[f"{OURS}/24", "2001:db8::2/64"]) as stack,
            Stack(right, addresses=[f"{PEER}/24", "2001:db8::1/64"]) as peer,
        ):
            for each in (stack, peer):
                await each.configured(5.0, lambda found: len(found) == 3)
            part = Control(load(settings_file(folder)))
            await part.begin(stack)
            try:
                await script(stack, part)
            finally:
                part.drain()
                await part.end()

    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(asyncio.wait_for(scenario(), 30.0))


async def command(folder: Path, *words: str) -> int:
    """A command of the command line, in a thread as in a process of its own."""
    arguments = [words[0], "-c", str(folder / "appliance.toml"), *words[1:]]
    return await asyncio.get_running_loop().run_in_executor(None, cli.main, arguments)


def lines(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_only_the_owner_may_ask(tmp_path: Path) -> None:
    async def script(stack: Stack, part: Control) -> None:
        file = tmp_path / "run" / "control"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        await part.end()
        assert not file.exists()

    with_control(tmp_path, script)


def test_ping_arp_and_route(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RFC 792, RFC 4443 §4: echo over both; whole, and in fragments."""

    async def script(stack: Stack, part: Control) -> None:
        for to, size in ((PEER, "56"), ("2001:db8::1", "5000")):
            words = ("ping", to, "--count", "3", "--interval", "0.01", "--size", size, "--json")
            assert await command(tmp_path, *words) == 0
            *answers, summary = lines(capsys)
            assert [row["sequence"] for row in answers] == [1, 2, 3]
            assert {row["from"] for row in answers} == {to}
            assert summary == {"sent": 3, "received": 3}
        assert stack.host.network.errors.echoes == {}
        assert await command(tmp_path, "arp", "--json") == 0
        rows = {row["address"]: row for row in lines(capsys)}
        assert rows[PEER]["state"] == "reachable"
        assert rows["2001:db8::1"]["mac"] == rows[PEER]["mac"]
        assert await command(tmp_path, "route", "--json") == 0
        rows = lines(capsys)
        assert {row["address"] for row in rows if row["kind"] == "address"} >= {
            f"{OURS}/24", "2001:db8::2/64",
        }  # fmt: skip
        assert {row["to"] for row in rows if row["kind"] == "route"} == {
            "10.0.0.0/24", "2001:db8::/64", "fe80::/64",
        }  # fmt: skip
        assert await command(tmp_path, "route") == 0
        assert f"address {OURS}/24 on pair-a (static)" in capsys.readouterr().out

    with_control(tmp_path, script)


@pytest.mark.parametrize(
    ("to", "said"), [("192.0.2.1", "unreachable"), ("nonsense", "nonsense"), ("::1", "unreachable")]
)
def test_nowhere_to_ping(
    tmp_path: Path, to: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def script(stack: Stack, part: Control) -> None:
        assert await command(tmp_path, "ping", to) == 1
        assert said in capsys.readouterr().err

    with_control(tmp_path, script)


def test_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames of both ways, and no trace of the watching afterwards."""

    async def script(stack: Stack, part: Control) -> None:
        file = tmp_path / "out.pcap"
        watching = asyncio.ensure_future(
            command(tmp_path, "capture", "-w", str(file), "--count", "4")
        )
        while not stack._watchers:  # noqa: ASYNC110 - the other thread connects
            await asyncio.sleep(0.01)
        seen: list[tuple[bytes, str]] = []
        stop = stack.watch(lambda *what: seen.append(what), stack.vif.name)
        assert await command(tmp_path, "ping", PEER, "--count", "4", "--interval", "0.02") == 0
        assert await watching == 0
        captured = read_pcap(file)
        assert len(captured) == 4
        assert len(seen) >= 8
        assert {name for _, name in seen} == {stack.vif.name}
        stop()
        while stack._watchers:  # noqa: ASYNC110 - the other thread hangs up
            await asyncio.sleep(0.01)
        assert stack.host.links[0].send == stack.vif.send

    with_control(tmp_path, script)


def test_capture_of_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of all links, those that come later too, or of the one that is named."""

    async def script(stack: Stack, part: Control) -> None:
        seen: set[str] = set()
        stop = stack.watch(lambda _, name: seen.add(name))
        left, right = pair(names=("second", "its-peer"))
        async with Stack(right, addresses=["10.9.0.1/24"]):
            stack.add_vif(left, addresses=["10.9.0.2/24"])
            words = ("capture", "pair:second", "--count", "3", "--json")
            only = asyncio.ensure_future(command(tmp_path, *words))
            while len(stack._watchers or ()) < 2:  # noqa: ASYNC110 - the other thread connects
                await asyncio.sleep(0.01)
            for to in (PEER, "10.9.0.1"):
                assert (
                    await command(tmp_path, "ping", to, "--count", "2", "--interval", "0.02") == 0
                )
            assert await only == 0
            out = capsys.readouterr().out.splitlines()
            rows = [json.loads(line) for line in out if "frame" in line]
            assert [row["link"] for row in rows] == ["second"] * 3
            assert seen == {"second", "pair-a"}
            stop()
        assert await command(tmp_path, "capture", "third") == 1
        assert "no link third: there are pair-a, second" in capsys.readouterr().err
        assert await command(tmp_path, "capture", "--count", "-1") == 1
        assert "-1 frames cannot be shown" in capsys.readouterr().err

    with_control(tmp_path, script)


def test_frames_of_other_stacks_are_of_the_link_they_came_by(tmp_path: Path) -> None:
    """Of several stacks that are one host one is asked, and told by the others what they see."""

    async def script(stack: Stack, part: Control) -> None:
        changes: list[bool] = []
        tell = stack.share_watching(changes.append)
        every: list[tuple[bytes, str]] = []
        first: list[tuple[bytes, str]] = []
        stops = [
            stack.watch(lambda *what: every.append(what)),
            stack.watch(lambda *what: first.append(what), stack.vif.name),
        ]
        tell(b"one", stack.vif.name)
        tell(b"two", "second")
        assert every == [(b"one", stack.vif.name), (b"two", "second")]
        assert first == every[:1]
        for stop in stops:
            stop()
        assert changes == [True, False]

    with_control(tmp_path, script)


def test_an_engineer_who_leaves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of a capture: it ends, and nothing is said about it."""

    async def script(stack: Stack, part: Control) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "run" / "control"))
            client.sendall(b'{"do": "capture"}\n')
            while not stack._watchers:  # noqa: ASYNC110 - it is asked for
                await asyncio.sleep(0.01)
            client.shutdown(socket.SHUT_RD)  # what is written finds nobody
            for sequence in range(100):
                stack.ping(PEER, 9, sequence, 10, lambda *_: None)
            await asyncio.sleep(0.1)
            assert not stack._watchers
        gc.collect()

    with_control(tmp_path, script)
    assert caplog.text == ""


def test_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = settings_file(tmp_path)
    assert cli.main(["arp", "-c", str(file)]) == 1
    assert "is it running?" in capsys.readouterr().err


def test_a_second_appliance_leaves_the_first_its_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(stack: Stack, part: Control) -> None:
        other = Control(load(settings_file(tmp_path)))
        await other.begin(stack)
        await other.end()
        assert "another appliance" in caplog.text
        assert (tmp_path / "run" / "control").exists()

    with_control(tmp_path, script)


def test_whoever_took_over_keeps_the_socket(tmp_path: Path) -> None:
    """One that begins while another drains; the latter then ends."""

    async def script(stack: Stack, part: Control) -> None:
        part.drain()
        other = Control(load(settings_file(tmp_path)))
        await other.begin(stack)
        await part.end()
        there = (tmp_path / "run" / "control").exists()
        await other.end()
        assert there
        assert not (tmp_path / "run" / "control").exists()

    with_control(tmp_path, script)


@pytest.mark.parametrize("octets", [b"", b'{"address": "10.0'])
@pytest.mark.parametrize("words", [["arp"], ["capture"], ["ping", "10.0.0.1"]])
def test_an_appliance_that_is_killed_meanwhile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], octets: bytes, words: list[str]
) -> None:
    """A line that says so, whether its answer is cut off or our request was not read."""
    file = settings_file(tmp_path)
    (tmp_path / "run").mkdir()

    def killed() -> None:
        taken, _ = listener.accept()
        if octets:
            taken.recv(4096)
            taken.sendall(octets)
        else:
            select.select([taken], [], [])  # ECONNRESET for what was not read: unix(7)
        taken.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "run" / "control"))
        listener.listen()
        thread = threading.Thread(target=killed)
        thread.start()
        assert cli.main([words[0], "-c", str(file), *words[1:]]) == 1
        thread.join()
    assert "has ended meanwhile" in capsys.readouterr().err


def test_a_disk_that_is_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(stack: Stack, part: Control) -> None:
        assert await command(tmp_path, "capture", "-w", "/dev/full") == 1
        assert "/dev/full: No space left on device" in capsys.readouterr().err

    with_control(tmp_path, script)


def test_misuse_of_the_socket(tmp_path: Path) -> None:
    """Whatever is written to it, it answers with an error and goes on."""

    async def script(stack: Stack, part: Control) -> None:
        path = str(tmp_path / "run" / "control")
        for octets in (b"{}\n", b"nonsense\n", b"[1]\n", b"x" * 9000 + b"\n", b'{"do":"ping"}\n',
                       b'{"do":"capture","count":1e999}\n', b"[" * 4000 + b"\n"):  # fmt: skip
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(octets)
            assert b"error" in await reader.read()
            writer.close()

    with_control(tmp_path, script)
