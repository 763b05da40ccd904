"""`appliance capture`: the frames of the running appliance, as text, JSON or pcap, both ways."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import sys
from struct import Struct
from typing import Any, BinaryIO, Final

from appliance import control
from appliance.commands import FAILED, OK, complain, say

SNAPLEN: Final = 262_144
"""Octets; more than the largest super-segment."""
_FILE: Final = Struct("<IHHiIII")
_RECORD: Final = Struct("<IIII")
_NAMES: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    control.arguments(parser)
    parser.add_argument(
        "link", metavar="LINK", nargs="?", default="", help="by its name, as tap0 (default: all)"
    )
    parser.add_argument("-w", "--write", metavar="FILE", help="pcap to this file; - is the output")
    parser.add_argument("--count", metavar="N", type=int, default=0, help="end after so many")


def run(options: argparse.Namespace) -> int:
    """Show or write frames until interrupted."""
    output: BinaryIO | None = None
    try:
        if options.write == "-":
            output = sys.stdout.buffer
        elif options.write:
            output = open(options.write, "wb")  # noqa: SIM115 - closed below
    except OSError as error:
        complain(f"{options.write}: {error.strerror}")
        return FAILED
    link = options.link.rpartition(":")[2]  # as the settings write it, with its kind, or without
    try:
        if output is not None:
            output.write(_FILE.pack(0xA1B2C3D4, 2, 4, 0, 0, SNAPLEN, 1))
            output.flush()
        for row in control.ask(options, {"do": "capture", "count": options.count, "link": link}):
            if output is None:
                say(json.dumps(row) if options.json else _text(row))
            else:
                _write(output, row)
    except control.ControlError as error:
        return control.failed(error)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Whoever read this has gone; nor has Python anything to tell them at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        complain(f"{options.write}: {error.strerror}")
        return FAILED
    finally:
        if output is not None and output is not sys.stdout.buffer:
            with contextlib.suppress(OSError):  # told already
                output.close()
    return OK


def _write(output: BinaryIO, row: dict[str, Any]) -> None:
    """One record; checksums that are left to the link are finished first."""
    from appliance.net.errors import WireError
    from appliance.net.vif.offload import finish_checksum

    frame = base64.b64decode(row["frame"])
    try:
        frame = finish_checksum(frame)
    except WireError:
        pass
    frame = frame[10:]
    seconds, fraction = divmod(row["at"], 1.0)
    output.write(_RECORD.pack(int(seconds), int(fraction * 1e6), len(frame), len(frame)) + frame)
    output.flush()


def _text(row: dict[str, Any]) -> str:
    """One line: time, link, addresses and ports, protocol, octets."""
    from time import localtime, strftime

    from appliance.net.errors import WireError
    from appliance.net.wire import arp, ethernet, ipv4, ipv6
    from appliance.net.wire.address import to_text

    frame = base64.b64decode(row["frame"])
    at = strftime("%H:%M:%S", localtime(row["at"])) + f"{row['at'] % 1:.6f}"[1:]
    at = f"{at} {row['link']}"
    try:
        dst, src, kind = ethernet.parse(frame, 10)
        if kind == ethernet.ETHERTYPE_ARP:
            packet = arp.parse(frame, 24, len(frame))
            verb = "asks for" if packet.operation == arp.REQUEST else "tells"
            return f"{at} ARP {to_text(packet.sender)} {verb} {to_text(packet.target)}"
        if kind not in (ethernet.ETHERTYPE_IPV4, ethernet.ETHERTYPE_IPV6):
            return f"{at} {ethernet.mac_text(src)} > {ethernet.mac_text(dst)} type {kind:04x}"
        module: Any = ipv4 if kind == ethernet.ETHERTYPE_IPV4 else ipv6
        ip = module.parse_quoted(frame, 24, len(frame))
    except WireError as error:
        return f"{at} {len(frame) - 10} octets: {error.counter}"
    ends = [to_text(ip.src), to_text(ip.dst)]
    if ip.protocol in (6, 17) and ip.payload_at + 4 <= ip.payload_end:
        ports = frame[ip.payload_at : ip.payload_at + 4]
        ends = [
            f"{end} {int.from_bytes(port)}"
            for end, port in zip(ends, (ports[:2], ports[2:]), strict=True)
        ]
    name = _NAMES.get(ip.protocol, f"protocol {ip.protocol}")
    return f"{at} {name} {ends[0]} > {ends[1]}, {ip.payload_end - ip.payload_at} octets"
