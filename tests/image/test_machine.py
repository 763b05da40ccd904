"""What PID 1 does by itself: modules of the cold part, the clock, randomness, the end's status."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.image.guest import attend, boot, machine
from appliance.image.qemu import ENDED


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(machine, "say", lines.append)
    return lines


@pytest.mark.parametrize("name", sorted(machine.ABSENT))
def test_a_module_of_another_system_mounts_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "mount_cold", lambda: pytest.fail("mounted"))
    assert machine._Cold().find_spec(name) is None


def test_any_other_module_is_looked_for_in_the_cold_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot, cold = tmp_path / "hot", tmp_path / "cold"
    (cold / "package").mkdir(parents=True)
    (cold / "single.py").write_text("")
    (cold / "package" / "inner.py").write_text("")
    monkeypatch.setattr(machine, "COLD_MODULES", str(cold))
    monkeypatch.setattr(machine, "mount_cold", lambda: True)
    monkeypatch.setattr(sys, "path", [str(hot), str(hot / "lib-dynload")])
    finder = machine._Cold()
    alone = finder.find_spec("single")
    inner = finder.find_spec("package.inner", [str(hot / "package")])
    assert alone.origin == str(cold / "single.py")  # type: ignore[attr-defined]
    assert inner.origin == str(cold / "package" / "inner.py")  # type: ignore[attr-defined]
    assert finder.find_spec("nowhere_at_all") is None


def test_the_cold_part_is_mounted_once_from_its_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = tmp_path / "vda"
    drive.touch()
    mounted: list[tuple[str, str, str]] = []
    monkeypatch.setattr(machine, "_once", {})
    monkeypatch.setattr(machine, "mount_kernel", lambda: None)
    monkeypatch.setattr(machine, "load_modules", lambda order: None)
    monkeypatch.setattr(machine, "mount", lambda s, t, k, flags: mounted.append((s, t, k)))
    monkeypatch.setenv(machine.COLD_DRIVE, str(drive))
    assert machine.mount_cold()
    assert machine.mount_cold()
    assert mounted == [(str(drive), "/usr", "squashfs")]


def test_a_machine_is_known_by_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MARK", str(tmp_path / "machine"))
    assert machine.in_container()
    (tmp_path / "machine").touch()
    assert not machine.in_container()


@pytest.mark.parametrize(("ahead", "wanted"), [(0.0, False), (1.5, False), (60.0, True)])
def test_the_clock_is_set_when_the_machine_has_slept(
    ahead: float, wanted: bool, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware = time.time() + ahead
    settings: list[float] = []
    monkeypatch.setattr(attend, "read_clock", lambda clock: hardware)
    monkeypatch.setattr(time, "clock_settime", lambda which, moment: settings.append(moment))
    assert attend.set_clock(0) is wanted
    assert settings == ([hardware + 0.5] if wanted else [])
    assert len(said) == len(settings)


@pytest.mark.parametrize(("theirs", "ours", "woken"), [(1, 5.0, 0), (2, 1.0, 0), (61, 1.0, 1)])
def test_a_clock_that_runs_wrong_is_no_sleep(
    theirs: int, ours: float, woken: int, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emulated machine measures its clock while its host is busy: connections must stay."""
    began = time.time()
    hours = iter([began, began, began + theirs])
    seconds = iter([0.0, 0.0, ours])
    moment = iter([began, began + ours])
    looks: list[tuple[object, ...]] = []
    awoken: list[object] = []
    loop = SimpleNamespace(call_later=lambda _, look, *words: looks.append((look, *words)))
    monkeypatch.setattr(attend, "read_clock", lambda clock: next(hours))
    monkeypatch.setattr(attend, "awake", awoken.append)
    monkeypatch.setattr(attend.asyncio, "get_running_loop", lambda: loop)
    monkeypatch.setattr(
        attend, "time", SimpleNamespace(
            monotonic=lambda: next(seconds), time=lambda: next(moment),
            clock_settime=lambda *_: None, CLOCK_REALTIME=0,
        ),
    )  # fmt: skip
    attend._look(0, "appliance", (attend.read_clock(0), attend.time.monotonic()), corrected=False)
    look, *words = looks.pop()
    look(*words)  # type: ignore[operator]
    assert len(awoken) == woken
    assert len(said) == (theirs != 2), said


def test_waking_renews_secrets_and_ends_connections(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Exception] = []
    flow = SimpleNamespace(
        user=SimpleNamespace(tcp_closed=ended.append), abort=lambda: ended.append(EOFError())
    )
    tcp = SimpleNamespace(_secret=bytes(16), flows={1: flow, 2: SimpleNamespace()})
    host = SimpleNamespace(tcp=tcp, flush=lambda now: None)
    stirred: list[bool] = []
    monkeypatch.setattr(attend, "renew_random", lambda: stirred.append(True))
    attend.awake(SimpleNamespace(_stacks=[SimpleNamespace(host=host)]))
    assert stirred == [True]
    assert len(tcp._secret) == 16
    assert tcp._secret != bytes(16)
    assert [type(error) for error in ended] == [EOFError, ConnectionResetError]
    assert "1 connections of the past were reset" in said[0]


def test_the_status_is_what_the_console_says_last(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(machine.os, "_exit", leave)
    monkeypatch.setattr(machine, "in_container", lambda: False)  # which says nothing
    with pytest.raises(SystemExit) as end:
        machine.end(3)
    assert end.value.code == 3
    found = ENDED.search(said[0].encode())
    assert found is not None
    assert found[1] == b"3"


def test_a_machine_too_small_for_tls_serves_on_without(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    async def begin(appliance: object) -> None:
        begun.append("duties")

    class Appliance:
        async def begin_rest(self) -> None:
            begun.append("rest")

    monkeypatch.setattr(attend, "begin", begin)
    monkeypatch.setattr(machine, "in_container", lambda: False)
    monkeypatch.setattr(machine, "mount_cold", lambda: True)
    for memory in (56.0, 70.0):
        monkeypatch.setattr(machine, "memory", lambda memory=memory: memory)
        asyncio.run(boot._rest(Appliance()))  # type: ignore[arg-type]
    assert begun == ["duties", "duties", "rest"]
    assert len([line for line in said if line.startswith("init: all serve")]) == 2
    assert next(line for line in said if "HTTP and DNS only" in line).endswith("has left 56")
