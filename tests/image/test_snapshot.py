"""A machine that was saved goes on when it is restored: it was stopped for being saved."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from appliance import files
from appliance.image import qemu
from appliance.image.graph import BuildError
from bench import boot


class Qmp:
    """QEMU's end of its control socket: what it says to a query, in turn, and what it was told."""

    def __init__(self, states: list[str], migrated: str = "completed") -> None:
        self.states = states
        self.migrated = migrated
        self.told: list[str] = []
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {}}\n')
        while line := await reader.readline():
            name = json.loads(line)["execute"]
            self.told.append(name)
            answer: dict[str, object] = {"return": {}}
            if name == "query-status":
                answer = {"return": {"status": self.states.pop(0)}}
            elif name == "query-migrate":
                answer = {"return": {"status": self.migrated}}
            elif name == "fail":
                answer = {"error": {"desc": "no"}}
            writer.write(b'{"event": "RESUME"}\n' + json.dumps(answer).encode() + b"\n")
        writer.close()
        await writer.wait_closed()
        self.over.set()


async def talk(folder: Path, qmp: Qmp) -> tuple[asyncio.Server, qemu.Control]:
    server = await asyncio.start_unix_server(qmp.serve, str(folder / "control"))
    control = qemu.Control(folder / "control")
    await control.open()
    return server, control


def test_a_restored_machine_is_told_to_go_on_as_soon_as_it_is_whole(tmp_path: Path) -> None:
    async def scene() -> list[str]:
        qmp = Qmp(["inmigrate", "inmigrate", "paused"])
        server, control = await talk(tmp_path, qmp)
        await qemu._go_on(control)
        control.close()
        await qmp.over.wait()
        server.close()
        return qmp.told

    told = asyncio.run(scene())
    assert told == ["qmp_capabilities", *["query-status"] * 3, "cont"]


def test_two_who_ask_at_once_each_get_their_own_answer(tmp_path: Path) -> None:
    async def scene() -> list[object]:
        qmp = Qmp(["running"])
        server, control = await talk(tmp_path, qmp)
        answers = await asyncio.gather(
            control.ask("fail"), control.ask("query-status"), return_exceptions=True
        )
        control.close()
        await qmp.over.wait()
        server.close()
        return answers

    refused, status = asyncio.run(scene())
    assert isinstance(refused, BuildError)
    assert status == {"status": "running"}


def test_a_snapshot_is_of_the_image_that_was_built_last(tmp_path: Path) -> None:
    told = {"address": ["10.0.0.2/24"], "gateway": ["10.0.0.1"]}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    for name in ("vmlinuz", "initramfs"):
        (tmp_path / name).write_text("1")
    machine = qemu.Machine(tmp_path)
    snapshot = tmp_path / "saved"
    said: list[str] = []
    assert not qemu._usable(snapshot, machine, said.append)
    fresh = tmp_path / "saved.new"
    fresh.write_bytes(b"memory")
    qemu._keep(fresh, snapshot, machine)
    assert qemu._usable(snapshot, machine, said.append)
    assert said == []
    (tmp_path / "initramfs.new").write_text("2")  # as a build does: never in place
    (tmp_path / "initramfs.new").rename(tmp_path / "initramfs")
    assert not qemu._usable(snapshot, machine, said.append)
    assert "another image" in said[0]


@pytest.mark.parametrize("migrated", ["completed", "failed"])
def test_half_a_snapshot_is_not_left_behind(tmp_path: Path, migrated: str) -> None:
    """Hundreds of megabytes; nor that of somebody who was killed while a machine was saved."""
    (tmp_path / "settings.json").write_text(json.dumps({"address": ["10.0.0.2/24"], "gateway": []}))
    for name in ("vmlinuz", "initramfs"):
        (tmp_path / name).write_text("1")
    machine, snapshot = qemu.Machine(tmp_path), tmp_path / "saved"
    fresh = files.place_beside(snapshot)
    fresh.write_bytes(b"half of an older one")
    said: list[str] = []

    async def scene() -> None:
        server, control = await talk(tmp_path, qmp)
        (tmp_path / "control").unlink()
        await qemu._save(control, machine, snapshot, said.append)
        control.close()
        await qmp.over.wait()
        server.close()

    qmp = Qmp([], migrated)
    asyncio.run(scene())
    assert qmp.told[-1] == "cont"
    assert not fresh.exists()
    assert snapshot.exists() == (migrated == "completed")
    if migrated == "completed":
        assert snapshot.read_bytes() == b""
        fresh.write_bytes(b"half of a newer one")
        assert qemu._usable(snapshot, machine, said.append)
        assert not fresh.exists()
    qmp = Qmp([])
    with files.beside(snapshot):
        asyncio.run(scene())
    assert "another machine is being saved" in said[-1]


@pytest.mark.interop
def test_a_restored_machine_serves_sooner_than_one_that_boots(
    plain: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (restored,) = asyncio.run(boot.restores(plain, 128, 1, tmp_path))
    console = capsysbinary.readouterr().out
    assert set(restored) == {"restored: first HTTP answer", "restored: first DNS answer"}
    assert console.count(b"init: HTTP and DNS serve") == 1  # it did not boot a second time
