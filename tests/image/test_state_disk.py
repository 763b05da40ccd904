"""The state disk: what is ours, what is empty, what is refused, and what a first boot makes of it.

A disk is a file here; what only a kernel can do (mounting, growing) is tried in test_power.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appliance.app import StartError
from appliance.image import state_disk
from appliance.image.graph import Bench, BuildError
from appliance.image.guest import machine, state


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("template"))


def make(folder: Path) -> Path:
    state_disk.make_template(Bench(folder, folder, {}, lambda _line: None))
    return folder / "state.ext4"


def disk_of(path: Path, octets: int, at: int = 0, data: bytes = b"") -> str:
    with path.open("wb") as file:
        file.truncate(octets)
        file.seek(at)
        file.write(data)
    return str(path)


def check(path: Path) -> str:
    """What e2fsck says of a whole file system; it must find nothing."""
    done = subprocess.run(
        ["/sbin/e2fsck", "-f", "-n", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def debugfs(path: Path, request: str) -> str:
    return subprocess.run(
        ["/sbin/debugfs", "-R", request, str(path)], capture_output=True, text=True, timeout=60
    ).stdout


def test_both_sides_mean_the_same() -> None:
    assert state.LABEL.decode() == state_disk.LABEL
    assert state.LAYOUT == state_disk.LAYOUT
    assert str(state.BLOCK) in state_disk.KINDS


def test_a_template_is_the_same_octets_everywhere(template: Path, tmp_path: Path) -> None:
    assert make(tmp_path).read_bytes() == template.read_bytes()
    assert template.stat().st_size == state_disk.TEMPLATE_MEGABYTES << 20


def test_a_made_disk_holds_keys_for_their_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    disk = tmp_path / "disk"
    state_disk.make_state(disk, 16, {"keys/update.key": tmp_path / "secret"})
    assert disk.stat().st_mode & 0o077 == 0
    assert state.look_at(str(disk)) is True
    check(disk)
    assert debugfs(disk, "cat /keys/update.key") == "secret\n"
    assert "Mode:  0600" in debugfs(disk, "stat /keys/update.key")
    assert debugfs(disk, "cat /LAYOUT") == "1\n"
    before = disk.read_bytes()
    state_disk.make_state(disk, 32)
    assert disk.read_bytes() == before


def test_a_missing_key_leaves_no_disk(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no .*absent for keys/a\.key: appliance configure"):
        state_disk.make_state(tmp_path / "disk", 16, {"keys/a.key": tmp_path / "absent"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (510, b"\x55\xaa"),  # a partition table
        (0, b"LUKS\xba\xbe"),
        (0x10040, b"_BHRfS_M"),  # btrfs
        (-512, b"EFI PART"),  # a table's copy at the end
        ((1 << 20) - 1, b"x"),
    ],
)
def test_a_disk_with_a_mark_at_either_end_is_refused(tmp_path: Path, at: int, data: bytes) -> None:
    size = 20 << 20
    disk = disk_of(tmp_path / "disk", size, at if at >= 0 else size + at, data)
    with pytest.raises(StartError, match="no state disk and not empty, so it is not ours"):
        state.look_at(disk)


@pytest.mark.parametrize("label", [b"other", b""])
def test_a_file_system_of_another_label_is_refused(tmp_path: Path, label: bytes) -> None:
    head = b"\x53\xef" + bytes(62) + label
    disk = disk_of(tmp_path / "disk", 20 << 20, 1024 + 56, head)
    with pytest.raises(StartError, match=f"labelled '{label.decode()}'"):
        state.look_at(disk)


def test_an_absent_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "WAIT", 0.0)
    with pytest.raises(StartError, match=r"no state disk at .*: No such file"):
        state.look_at(str(tmp_path / "absent"))


def test_an_empty_disk_is_formatted(template: Path, tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk", 40 << 20, 2 << 20, b"old data" * 4096)
    assert state.look_at(disk) is False
    state.format_disk(disk, str(template))
    assert state.look_at(disk) is True
    check(Path(disk))


def test_a_small_disk_is_refused(template: Path, tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk", 2 << 20)
    with pytest.raises(StartError, match="too small: a state disk has at least 16 MB"):
        state.format_disk(disk, str(template))


class CutError(Exception):
    """The power."""


WRITES = 19
"""Of a formatting: our mark, sixteen of a MB, the superblock, the mark's end."""


@pytest.mark.parametrize("writes", [0, 1, 2, 9, 16, 17, 18, WRITES])
def test_a_cut_while_formatting_is_begun_again(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """After any number of writes a disk is ours, empty, or half formatted by us; never foreign."""
    disk = disk_of(tmp_path / "disk", 16 << 20)
    left = [writes]
    put = state._put

    def cut(*arguments: object, **options: object) -> None:
        if not left[0]:
            raise CutError
        left[0] -= 1
        put(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "_put", cut)
    try:
        state.format_disk(disk, str(template))
    except CutError:
        monkeypatch.setattr(state, "_put", put)
        if not state.look_at(disk):
            state.format_disk(disk, str(template))
    else:
        assert writes == WRITES
    assert state.look_at(disk) is True
    check(Path(disk))


def test_what_the_kernel_refuses_is_said(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Growing is a favour: a folder that is no ext4 mount refuses, and the boot goes on."""
    disk = disk_of(tmp_path / "disk", 32 << 20)
    state.format_disk(disk, str(template))
    state.grow(disk, str(tmp_path), fresh=False)
    assert "stays as large as it is" in capsys.readouterr().out
    assert machine.state_disk() == ""
