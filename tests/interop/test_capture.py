"""`--pcap`, read by Wireshark's own dissector: every frame whole, every checksum right."""

from __future__ import annotations

from pathlib import Path

from bench.lab import run
from tests.interop.conftest import OURS, on_tap, require, tap_namespace, write_house

# Wireshark does not verify checksums unless told, since captures on hosts with offload lack them.
VERIFY = [f"{protocol}.check_checksum:TRUE" for protocol in ("ip", "tcp", "udp")]


def dissect(capture: Path, only: str, *fields: str) -> list[list[str]]:
    """Return these fields of each frame that the display filter lets through."""
    options = [word for preference in VERIFY for word in ("-o", preference)]
    wanted = [word for name in fields for word in ("-e", name)]
    told = run("tshark", "-r", str(capture), *options, "-Y", only, "-T", "fields", *wanted)
    return [line.split("\t") for line in told.splitlines()]


def test_capture_is_what_went_by(tmp_path: Path) -> None:
    require("tshark", "curl", "dig", "ping")
    arguments, _ = write_house(tmp_path)
    capture = tmp_path / "frames.pcap"
    with (
        tap_namespace("capture") as space,
        on_tap(space, tmp_path, *arguments, "--pcap", str(capture)) as house,
    ):
        house.curl("-o", "/dev/null", f"http://{OURS}/100k.bin", f"http://{OURS}/nowhere")
        house.dig("host7.bench.test", "A")
        space.run("ping", "-c", "1", OURS)
        assert house.server.stop() == 0
    assert dissect(capture, "http.response", "http.response.code") == [["200"], ["404"]]
    assert dissect(capture, "dns.a", "dns.a") == [["198.51.0.8"]]
    assert len(dissect(capture, "icmp.type == 0", "icmp.seq")) == 1
    assert len(dissect(capture, "arp", "arp.opcode")) >= 2
    assert dissect(capture, "tcp.checksum.status == 1", "frame.number")  # they were verified
    bad = "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0"
    assert dissect(capture, bad, "frame.number") == []
    assert dissect(capture, "_ws.malformed", "frame.number") == []
