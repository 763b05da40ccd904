"""`appliance serve` on a tap, as the kernel's TCP, curl, dig and ping see it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.lab import run
from tests.interop.conftest import KERNEL_TOO, OURS, PEER, TAP, on_tap, tap_namespace, write_house

if TYPE_CHECKING:
    from tests.interop.conftest import House


def test_page(house: House) -> None:
    """RFC 9110 §8, §9.3.1: status, type, length and body of pages and files."""
    head, _, body = house.curl("--include", f"http://{OURS}/").partition("\n\n")
    assert head.startswith("HTTP/1.1 200 ")
    assert "\ncontent-type: text/html; charset=utf-8" in head.lower()
    assert f"\ncontent-length: {len(body.encode())}" in head.lower()
    assert "<em>machines</em>" in body


def test_head_has_the_length_and_no_body(house: House) -> None:
    """RFC 9110 §9.3.2."""
    head = house.curl("--head", f"http://{OURS}/100k.bin").lower()
    assert head.startswith("http/1.1 200 ")
    assert "\ncontent-length: 100000\n" in head


def test_not_modified(house: House) -> None:
    """RFC 9110 §13.1.2: the validator that was sent is recognised."""
    head = house.curl("--head", f"http://{OURS}/1k.txt")
    etag = next(line[6:] for line in head.splitlines() if line.lower().startswith("etag: "))
    status = house.curl(
        *("--output", "/dev/null", "--write-out", "%{http_code} %{size_download}"),
        *("--header", f"If-None-Match: {etag}", f"http://{OURS}/1k.txt"),
    )
    assert status == "304 0"


def test_missing_page(house: House) -> None:
    status = house.curl("-o", "/dev/null", "-w", "%{http_code}", f"http://{OURS}/nowhere")
    assert status == "404"


def test_connection_is_kept(house: House) -> None:
    """RFC 9112 §9.3: three requests, one connection."""
    urls = [f"http://{OURS}/{name}" for name in ("1k.txt", "100k.bin", "nowhere")]
    sinks = [word for _ in urls for word in ("-o", "/dev/null")]
    told = house.curl("-w", "%{http_code}:%{num_connects} ", *sinks, *urls)
    assert told.split() == ["200:1", "200:0", "404:0"]


def test_http2_by_prior_knowledge(house: House) -> None:
    """RFC 9113 §3.3: without TLS, to a client that knows; a body of many flow-control windows."""
    told = house.curl(
        *("--http2-prior-knowledge", "-o", "/dev/null"),
        *("-w", "%{http_version}:%{http_code}:%{size_download}", f"http://{OURS}/10m.bin"),
    )
    assert told == "2:200:10000000"


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dig(house: House, transport: str) -> None:
    """RFC 1035 over UDP and TCP: an address, an alias, a wildcard and a name that is not there."""
    short = house.dig(transport, "+short", "alias7.bench.test", "A")
    assert short.split() == ["host7.bench.test.", "198.51.0.8"]
    assert house.dig(transport, "+short", "any.wild.bench.test", "A").strip() == "192.0.2.4"
    absent = house.dig(transport, "nowhere.bench.test", "A")
    assert "status: NXDOMAIN" in absent
    assert "SOA\tns1.bench.test." in absent
    assert " aa" in absent


def test_dig_refuses_what_is_not_ours(house: House) -> None:
    assert "status: REFUSED" in house.dig("example.org", "A")


def test_answers_that_leave_together(house: House) -> None:
    """The kernel cuts super-datagrams to what was sent: many questions from one port at once."""
    told = house.peer("dns_burst", "53")
    assert told == {"wrong": 0, "right": 400}


def test_ping(house: House) -> None:
    """RFC 792: echo, the largest that fits in one packet too."""
    for size in ("0", "56", "1472"):
        told = house.space.run("ping", "-c", "3", "-i", "0.01", "-W", "5", "-s", size, OURS)
        assert " 0% packet loss" in told


def test_nobody_listens(house: House) -> None:
    """RFC 9293 §3.5.2: a reset at once. RFC 1122 §4.1.3.1: port unreachable for UDP."""
    refused = house.peer("closed", "81")
    assert refused["refused"]
    assert refused["seconds"] < 1
    assert house.peer("closed_udp", "81")["refused"]


def test_hundred_megabytes(house: House) -> None:
    page = house.pages["100m.bin"]
    command = house.space.command("curl", "-sS", "--max-time", "120", f"http://{OURS}{page.path}")
    digest = hashlib.sha256()
    length = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 20):
            digest.update(piece)
            length += len(piece)
    assert (process.returncode, length) == (0, page.length)
    assert digest.hexdigest() == page.sha256


def test_many_connections_at_once(house: House) -> None:
    page = house.pages["100k.bin"]
    answers = house.peer("many", page.path)
    assert len(answers) == 200
    wanted = {"status": 200, "length": page.length, "sha256": page.sha256}
    assert all(answer == wanted for answer in answers)


def test_half_close(house: House) -> None:
    """RFC 9293 §3.6: a client that has closed its direction still gets the whole answer."""
    page = house.pages["10m.bin"]
    answer = house.peer("half", page.path)
    assert answer == {"status": 200, "length": page.length, "sha256": page.sha256}


def test_slow_reader_hurts_nobody(house: House) -> None:
    """RFC 9293 §3.8.6: a closed window holds one connection, and it goes on when it opens."""
    page = house.pages["10m.bin"]
    answer = house.peer("slow", page.path, "/1k.txt")
    assert answer["while_slow"] < page.length / 10
    assert answer["others"] > 10
    assert answer["worst"] < 1.0
    assert (answer["status"], answer["sha256"]) == (200, page.sha256)


def test_resets(house: House) -> None:
    """RFC 9293 §3.10.7.4: a reset ends its own connection, in whatever state that was."""
    assert house.peer("resets", "/10m.bin")["reset"] == 100
    answer = house.peer("half", "/1k.txt")
    assert answer["sha256"] == house.pages["1k.txt"].sha256


def test_vanished_peer(tmp_path: Path, house: House) -> None:
    """Clients whose address disappears in mid-download: others are served, and SIGTERM works."""
    del house  # its namespace and tap have the same names: only the requirements are shared
    arguments, pages = write_house(tmp_path)
    with tap_namespace("vanish") as space, on_tap(space, tmp_path, *arguments) as own:
        command = [sys.executable, str(PEER), "hang", OURS, "/100m.bin", KERNEL_TOO]
        with subprocess.Popen(space.command(*command), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            run("ip", "-n", space.name, "address", "del", f"{KERNEL_TOO}/24", "dev", TAP)
            process.kill()
        answer = own.peer("half", "/10m.bin")
        assert answer["sha256"] == pages["10m.bin"].sha256
        assert own.server.stop() == 0, own.server.words()
        assert "Traceback" not in own.server.words()
