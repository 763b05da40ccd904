"""The access log: forms, escaping, truncation, rotation, and a disk that does not keep up."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from appliance.http import accesslog
from appliance.http.accesslog import AccessLog, Form, LogFile

HEAD = (
    b"GET /a?b HTTP/1.1\r\nHost: example.org\r\nUser-Agent: say \"hi\"\r\n"
    b"Referer: http://a/\r\n\r\n"
)  # fmt: skip
NOW = 1391310245.9  # Sun, 02 Feb 2014 03:04:05 GMT


def lines(path: Path, form: Form, *calls: tuple[str, bytes, int, int], **options: bool) -> bytes:
    file = LogFile(path)
    log = AccessLog(file, form, clock=lambda: NOW, **options)
    for call in calls:
        log(*call)
    file.close()
    return path.read_bytes()


def test_combined(tmp_path: Path) -> None:
    found = lines(tmp_path / "log", "combined", ("192.0.2.77", HEAD, 200, 1234))
    assert found == (
        b'192.0.2.77 - - [02/Feb/2014:03:04:05 +0000] "GET /a?b HTTP/1.1" 200 1234 '
        b'"http://a/" "say \\x22hi\\x22"\n'
    )


def test_json_is_json(tmp_path: Path) -> None:
    found = lines(tmp_path / "log", "json", ("2001:db8::1", HEAD, 404, 0), ("", b"", 408, 3))
    first, second = map(json.loads, found.splitlines())
    assert first == {
        "time": "2014-02-02T03:04:05Z", "remote": "2001:db8::1", "method": "GET",
        "target": "/a?b", "protocol": "HTTP/1.1", "status": 404, "bytes": 0,
        "host": "example.org", "referer": "http://a/", "user_agent": 'say "hi"',
    }  # fmt: skip
    assert second["method"] == ""
    assert second["status"] == 408


def test_human_is_short(tmp_path: Path) -> None:
    found = lines(tmp_path / "log", "human", ("192.0.2.1", HEAD, 200, 1234))
    assert found.endswith(b"  200      1234  GET /a?b  192.0.2.1\n")


@pytest.mark.parametrize("form", ["combined", "json", "human"])
def test_a_peer_cannot_forge_a_line(tmp_path: Path, form: Form) -> None:
    hostile = b'GET /\n127.0.0.1\x1b[2J"\xff HTTP/1.1\r\nUser-Agent: \x00\n"x\r\n\r\n'
    found = lines(tmp_path / "log", form, ("192.0.2.1", hostile, 400, 1))
    assert found.count(b"\n") == 1
    assert b"\x1b" not in found
    assert b"\x00" not in found
    if form == "json":
        json.loads(found)


def test_addresses_are_truncated_if_asked(tmp_path: Path) -> None:
    calls = [("192.0.2.77", HEAD, 200, 1), ("2001:db8:1:2:3::4", HEAD, 200, 1)]
    found = lines(tmp_path / "log", "combined", *calls, truncate=True).splitlines()
    assert found[0].startswith(b"192.0.2.0 ")
    assert found[1].startswith(b"2001:db8:1:: ")


def test_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(path)
    file.put(b"one\n")
    os.rename(path, tmp_path / "log.1")
    file.reopen()
    while file._reopen:  # the thread writes what waits to the old file first
        os.sched_yield()
    file.put(b"two\n")
    file.close()
    assert (tmp_path / "log.1").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


def test_rotation_into_nowhere_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").mkdir()
    file = LogFile(tmp_path / "logs" / "log")
    os.rename(tmp_path / "logs", tmp_path / "gone")
    file.reopen()
    while file._reopen:
        os.sched_yield()
    file.put(b"one\n")
    file.close()
    assert (tmp_path / "gone" / "log").read_bytes() == b"one\n"
    assert "going on with the old file" in caplog.text


def test_lines_past_the_bound_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accesslog, "MAX_WAITING", 10)
    file = LogFile(tmp_path / "log")
    for _ in range(50):
        file.put(b"x\n")  # gathered for half a second, so nothing leaves meanwhile
    file.close()
    assert file.lost + len((tmp_path / "log").read_bytes().splitlines()) == 50
    assert file.lost >= 30


def test_a_full_disk_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    file = LogFile(Path("/dev/full"))
    for _ in range(3):
        file.put(b"x\n")
        file.reopen()
        while file._reopen:
            os.sched_yield()
    file.close()
    assert file.lost == 3
    assert caplog.text.count("No space left") == 1


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogFile(tmp_path / "no" / "log")


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesslog, "MAX_HEADS", 5)
    file = LogFile(tmp_path / "log")
    log = AccessLog(file)
    for number in range(100):
        log(f"192.0.2.{number}", b"GET /%d HTTP/1.1\r\n\r\n" % number, 200, 1)
    file.close()
    assert len(log._heads) <= 5
    assert len(log._addresses) <= 5
    assert len((tmp_path / "log").read_bytes().splitlines()) == 100
