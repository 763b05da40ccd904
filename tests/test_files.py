"""Files that are replaced whole or not at all, by processes that are killed, and by several."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from appliance import files

CALLS = ("open", "fchown", "fchmod", "fsync", "replace", "unlink", "ftruncate", "stat")
KILLED = f"""
import os, signal, sys
from pathlib import Path
from appliance import files
left = int(sys.argv[2])
def counted(name):
    call = getattr(os, name)
    def called(*args, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **more)
    return called
for name in {CALLS}:
    setattr(os, name, counted(name))
files.write_whole(Path(sys.argv[1]), b"new" * 9999)
"""


def left_over(path: Path, content: bytes = b"half") -> Path:
    place = files.place_beside(path)
    place.write_bytes(content)
    return place


def test_what_a_killed_process_leaves_is_all_or_nothing_and_goes(tmp_path: Path) -> None:
    """Killed before each call to the system; the next one is not disturbed by what is left."""
    path = tmp_path / "zone"
    found = []
    for number in range(40):
        path.write_bytes(b"old")
        path.chmod(0o640)
        command = [sys.executable, "-c", KILLED, str(path), str(number)]
        status = subprocess.run(command, check=False).returncode
        content = path.read_bytes()
        assert content in (b"old", b"new" * 9999)
        assert path.stat().st_mode & 0o777 == 0o640
        found.append((content == b"old", len(os.listdir(tmp_path)) > 1))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        if number % 2:
            files.write_whole(path, b"later")
            assert path.read_bytes() == b"later"
        else:
            files.sweep(tmp_path)
        assert os.listdir(tmp_path) == ["zone"]
    assert len(found) > 8
    assert set(found) == {(True, False), (True, True), (False, False)}


def test_a_file_keeps_its_mode_its_owner_and_its_link(tmp_path: Path) -> None:
    there = tmp_path / "checkout" / "zone"
    there.parent.mkdir()
    there.write_bytes(b"old")
    there.chmod(0o664)
    if os.getuid() == 0:
        os.chown(there, 12345, 23456)
    link = tmp_path / "zone"
    link.symlink_to("checkout/zone")
    files.write_whole(link, b"new")
    assert link.is_symlink()
    assert there.read_bytes() == b"new"
    status = there.stat()
    assert status.st_mode & 0o777 == 0o664
    if os.getuid() == 0:
        assert (status.st_uid, status.st_gid) == (12345, 23456)
    files.write_whole(there, b"secret", mode=0o600)
    assert there.stat().st_mode & 0o777 == 0o600
    files.write_whole(tmp_path / "fresh", b"")
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o644


def test_what_is_being_written_is_its_owners_alone(tmp_path: Path) -> None:
    with files.beside(tmp_path / "key") as file:
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
        file.write(b"?")
    assert os.listdir(tmp_path) == []


def test_only_what_nobody_writes_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "zone"
    dead = left_over(tmp_path / "other")
    with files.beside(path) as file:
        files.sweep(tmp_path)
        files.discard(path)
        assert not dead.exists()
        assert files.place_beside(path).exists()
        file.write(b"new")
        files.put(file, path)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["zone"]


def test_what_people_own_stays(tmp_path: Path) -> None:
    """Names that are not ours, and what is no file; no link is followed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    theirs = [".zone.new", "zone.new", "zone.journal.new", f"zone{files.SUFFIX}", ".zone.123"]
    folder = tmp_path / "zones"
    folder.mkdir()
    for name in theirs:
        (folder / name).write_text("mine")
    odd = [files.place_beside(folder / name) for name in ("link", "folder", "pipe")]
    odd[0].symlink_to(precious / "file")
    odd[1].mkdir()
    os.mkfifo(odd[2])
    files.sweep(folder)
    files.sweep(folder / "nowhere")
    files.discard(folder / "nowhere" / "at all")
    assert {entry.name for entry in folder.iterdir()} == {*theirs, *(one.name for one in odd)}
    with pytest.raises(OSError, match="Too many levels") as error:
        files.write_whole(folder / "link", b"new")
    assert error.value.filename == str(folder / "link")
    assert (precious / "file").read_text() == "mine"
    assert not (folder / "link").exists()


def test_two_who_write_one_file_do_so_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "zone"
    contents = [bytes((letter,)) * 200_000 for letter in b"abcdefgh"]
    threads = [threading.Thread(target=files.write_whole, args=(path, one)) for one in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["zone"]


def test_who_will_not_wait_is_told(tmp_path: Path) -> None:
    path = tmp_path / "zone"
    with (
        files.beside(path),
        pytest.raises(BlockingIOError) as error,
        files.beside(path, wait=False),
    ):
        pass
    assert error.value.filename == str(path)
    assert os.listdir(tmp_path) == []


def test_a_disk_without_locks_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    path = tmp_path / "zone"
    place = left_over(path)
    files.sweep(tmp_path)  # whether somebody writes it is not known
    assert place.exists()
    files.write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["zone"]


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_what_fails_leaves_what_was_there_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "zone"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["zone"]


@pytest.mark.parametrize("name", ["x" * 255, "ö" * 127, "x" * 230])
def test_long_names_are_written_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    left_over(path)
    files.write_whole(path, b"new")
    assert os.listdir(tmp_path) == [name]
    assert len(os.fsencode(files.place_beside(path).name)) <= 255
