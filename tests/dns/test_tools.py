"""`appliance dig` and `appliance zone`, as people call them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.cli import main
from appliance.dns import Catalog, Transfers, Zone, grant
from appliance.dns.layout import layout
from appliance.dns.serial import difference
from tests.dns.util import DATA

ZONE = """\
$ORIGIN example.test.
$TTL 300
@ SOA ns1 h 7 7200 1800 1209600 300
@ NS ns1
ns1 A 127.0.0.1
www CNAME host
host A 192.0.2.80
*.wild TXT "any"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with settings, a site and a zone."""
    (tmp_path / "zones").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "zones" / "example.test.zone").write_text(ZONE)
    (tmp_path / "appliance.toml").write_text("[site]\ntitle = 'x'\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server() -> Iterator[Any]:
    """ZONE over kernel sockets, in a thread."""
    zone = Zone.from_text(ZONE)
    catalog = Catalog([zone], transfers=Transfers(default=[grant("127.0.0.0/8")]))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    port = udp.getsockname()[1]
    tcp = socket.create_server(("127.0.0.1", port))

    def datagrams() -> None:
        while True:
            query, peer = udp.recvfrom(4096)
            if query == b"end":
                return
            answer = catalog.answer(query, peer=peer)
            assert answer is not None
            udp.sendto(answer, peer)

    def streams() -> None:
        while True:
            sock, peer = tcp.accept()
            with sock, sock.makefile("rb") as file:
                while length := int.from_bytes(file.read(2), "big"):
                    found = catalog.stream(file.read(length), peer=peer)
                    assert found is not None
                    for one in [found] if isinstance(found, bytes) else found:
                        sock.sendall(len(one).to_bytes(2, "big") + one)
                if peer[1] == ended:
                    return

    ended = 0
    threads = [threading.Thread(target=one, daemon=True) for one in (datagrams, streams)]
    for thread in threads:
        thread.start()
    yield SimpleNamespace(port=port, zone=zone)
    udp.sendto(b"end", ("127.0.0.1", port))
    threads[0].join(5)
    with socket.socket() as last:
        last.bind(("127.0.0.1", 0))
        ended = last.getsockname()[1]
        last.connect(("127.0.0.1", port))
    threads[1].join(5)
    udp.close()
    tcp.close()


def test_dig_says_why(here: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"@127.0.0.1:{server.port}"
    assert main(["dig", "www.example.test", "A", where]) == 0
    said = capsys.readouterr().out
    assert "NOERROR, flags qr aa" in said
    assert "host.example.test. 300 IN A 192.0.2.80" in said
    assert "CNAME to host.example.test.  [RFC 1034 §3.6.2]" in said
    assert "by zones/example.test.zone, serial 7" in said
    assert main(["dig", where, "a.b.wild.example.test", "TXT", "--tcp"]) == 0
    said = capsys.readouterr().out
    assert "over TCP: NOERROR" in said
    assert "synthesized from *.wild.example.test.  [RFC 4592 §3.3.1]" in said
    (here / "zones" / "example.test.zone").write_text(ZONE.replace("192.0.2.80", "192.0.2.81"))
    assert main(["dig", "host.example.test", where]) == 1
    assert "something else than these files" in capsys.readouterr().out


def test_what_is_not_there_is_told_plainly(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No numbers of errors, and no line of a file that cannot be read."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
    assert main(["dig", "www.example.test", f"@127.0.0.1:{port}"]) == 1
    said = capsys.readouterr().err
    assert said == f"appliance: 127.0.0.1 port {port} does not answer: Connection refused\n"
    assert main(["zone", "diff", "zones/example.test.zone", "none"]) == 1
    said = capsys.readouterr().err
    assert said == "appliance: none: error: cannot be read: No such file or directory\n"


def test_dig_explains_without_a_server(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dig", "--offline", "no.example.test", "MX"]) == 0
    assert "NXDOMAIN  [RFC 8020 §2]" in capsys.readouterr().out
    assert main(["dig", "--offline", "elsewhere.test"]) == 0
    assert "REFUSED  [RFC 8906 §3.1.1]" in capsys.readouterr().out
    assert main(["dig", "--offline", "x", "NOTYPE"]) == 2
    assert "no record type" in capsys.readouterr().err


def test_diff(here: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    old = here / "zones" / "example.test.zone"
    new = here / "new.zone"
    new.write_text(ZONE.replace("192.0.2.80", "192.0.2.81").replace(" 7 ", " 8 ", 1))
    assert main(["zone", "diff", str(old), str(old)]) == 0
    assert capsys.readouterr().out == ""
    assert main(["zone", "diff", str(old), str(new)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "-host.example.test. 300 IN A 192.0.2.80",
        "+host.example.test. 300 IN A 192.0.2.81",
    ]
    assert [line.split()[6] for line in lines[:2]] == ["7", "8"]
    there = f"example.test@127.0.0.1:{server.port}"
    assert main(["zone", "diff", there, str(old)]) == 0
    assert main(["zone", "diff", str(old), str(here / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_import(here: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["zone", "import", "example.test", "--from", f"127.0.0.1:{server.port}"]
    assert main(words) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*words, "-o", "got/example.test.zone"]) == 0
    got = Zone.from_file(here / "got" / "example.test.zone")
    change = difference(server.zone, got)
    assert not change.removed
    assert not change.added
    assert got.serial == 7
    assert main([*words[:3], "--from", "127.0.0.1:1"]) == 1
    elsewhere = [*words[:2], "other.test", "--from", words[-1]]
    assert main(elsewhere) == 1
    assert "REFUSED" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["fmt nowhere", "import corner.test --from 127.0.0.1 -k nowhere"])
def test_a_file_that_is_not_there(
    words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zone", *words.split()]) == 1
    assert capsys.readouterr().err == "appliance: nowhere: No such file or directory\n"


def test_fmt(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / "zones" / "example.test.zone"
    path.write_text(ZONE + 'x 60 a 192.0.2.1;c\n\tin  txt ( "a;b"\n "c" ) ; d\n\n\n\n')
    assert main(["zone", "fmt", "--check", str(path)]) == 1
    assert main(["zone", "fmt", str(path)]) == 0
    text = path.read_text()
    *_, first, second, third = text.splitlines()
    assert first.split() == ["x", "60", "A", "192.0.2.1", ";c"]
    assert first.index(";c") > first.index("A") + len("ns1 h 7 7200 1800 1209600 300")
    assert second.index("TXT") == first.index("A ")
    assert second.startswith("           IN TXT  ( ")
    assert third == ' "c" ) ; d'
    assert main(["zone", "fmt", "--check", str(path)]) == 0
    path.write_text("a ( b\n")
    assert main(["zone", "fmt", str(path)]) == 1
    assert "never closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", [DATA / "corner.zone", *(DATA.parents[2] / "zones").glob("*.zone")], ids=str
)
def test_a_layout_says_the_same_and_stays(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    once = layout(text)
    assert layout(once) == once
    assert [line.partition(";")[2].strip() for line in once.splitlines() if line.strip()] == [
        line.partition(";")[2].strip() for line in text.splitlines() if line.strip()
    ]
    copy = tmp_path / path.name
    copy.write_text(once)
    old, new = Zone.from_file(path), Zone.from_file(copy)
    change = difference(old, new)
    assert not change.removed
    assert not change.added
