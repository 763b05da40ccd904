"""The command line: words in, an exit status out.

    appliance serve    serve the site and the zones
    appliance check    every problem of settings, site and zones, with file and line
    appliance dig      ask the name server, and hear why
    appliance zone     compare, lay out and fetch zones
    appliance fuzz     the stack against itself, against liars, and against scripts

A command is a module of its own in commands/, imported when it is named and not before; it takes
its words in `arguments(parser)` and does its work in `run(options)`.

Status 0 is success, 1 that something is wrong with what is served or could not be opened, 2 that
the command line or the settings cannot be used. Errors are lines for people, never tracebacks.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from appliance import __version__
from appliance.commands import INTERRUPTED, MISUSED

COMMANDS: Final[Mapping[str, str]] = {
    "serve": "serve the site and the zones",
    "check": "tell every problem of settings, site and zones",
    "new": "make a site, a zone and settings for a domain",
    "configure": "check what an image is built of, and write it down",
    "build": "make an image for QEMU, a disk or containers",
    "run": "start the image under QEMU, or define it in libvirt",
    "dig": "ask the running name server, and say why it answers as it does",
    "zone": "compare, lay out and fetch zones",
    "tls": "tell each certificate's names, end, next renewal and last error",
    "ping": "send echo requests from the running appliance",
    "arp": "show the neighbours that the running appliance knows, over ARP and discovery",
    "route": "show the addresses and routes of the running appliance",
    "capture": "watch the frames of the running appliance, as text or pcap",
    "trace": "draw what a connection did, from a trace or a packet capture",
    "fuzz": "try the stack: random scenarios, hostile packets, packetdrill scripts",
}
"""Each command, with the line that tells what it is for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` are those of the process unless given."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may know fewer letters than pages do, and names of files are any octets.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:  # while imports are under way, or a command has no use for it
        return INTERRUPTED


def _run(words: list[str]) -> int:
    """Run the command that these words name."""
    named = next((word for word in words if not word.startswith("-")), "")
    parser = _parser(named)
    options = parser.parse_args(words)
    if options.command is None:
        parser.print_help(sys.stderr)
        return MISUSED
    run = importlib.import_module(f"appliance.commands.{options.command}").run
    status: int = run(options)
    return status


class _ShowVersion(argparse.Action):
    """Print the version, and whether the packet path is compiled (hatch_build.py) or Python."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        path = importlib.util.find_spec("appliance.net.tcp")
        compiled = path is not None and not str(path.origin).endswith(".py")
        print(f"appliance {__version__} ({'compiled' if compiled else 'pure Python'})")
        parser.exit()


def _parser(named: str) -> argparse.ArgumentParser:
    """The parser of all commands; only the named one's own words are known."""
    parser = argparse.ArgumentParser(
        prog="appliance", description="A whole internet host in one process."
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="say which and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(
            name, help=purpose, description=f"{purpose[:1].upper()}{purpose[1:]}."
        )
        if name == named:
            importlib.import_module(f"appliance.commands.{name}").arguments(command)
    return parser
