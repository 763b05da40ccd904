"""`appliance trace`: draw what a connection did, from a trace or a packet capture."""

from __future__ import annotations

import argparse
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.commands import FAILED, MISUSED, OK, complain, say

if TYPE_CHECKING:
    from appliance.trace.flows import Connection

EPILOG: Final = """\
FILE is what `appliance serve --trace FILE` wrote, or a classic pcap file: of --pcap, or of tcpdump.
The picture is that of the connection which sent most, unless one is chosen; a name that ends in
.html gets all of them on one page."""
MAX_PICTURES: Final = 50
"""On one page: beyond, a browser takes its time."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", metavar="FILE", type=Path, help="a trace, or a capture")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path,
        help="the picture, .svg or .html (default: FILE.svg beside it)",
    )  # fmt: skip
    parser.add_argument("--connection", metavar="N", type=int, help="its number in --list")
    parser.add_argument("--from", metavar="S", dest="start", type=float, help="from this second on")
    parser.add_argument("--to", metavar="S", dest="end", type=float, help="up to this second")
    parser.add_argument("--list", action="store_true", help="list the connections, draw nothing")
    parser.add_argument("--text", action="store_true", help="every event as text, draw nothing")


def run(options: argparse.Namespace) -> int:
    """Draw, list or print."""
    from appliance.trace import flows, table

    output: Path = options.output or options.file.with_name(options.file.name + ".svg")
    if output.suffix not in (".svg", ".html"):
        complain(f"{output}: a picture's name ends in .svg or .html")
        return MISUSED
    try:
        connections = flows.read(options.file)
    except flows.TraceError as error:
        complain(str(error))
        return FAILED
    if options.list:
        for line in table.overview(connections):
            say(line)
        return OK
    chosen = _chosen(connections, options)
    if not chosen:
        return MISUSED
    if options.text:
        for each in chosen[:1]:
            for line in table.lines(each):
                say(line)
        return OK
    return _draw(chosen, output)


def _chosen(connections: list[Connection], options: argparse.Namespace) -> list[Connection]:
    """The connections that are asked for, the one to be drawn alone first; none: misuse."""
    chosen = sorted(connections, key=lambda each: -each.octets(True))
    if options.connection is not None:
        chosen = [each for each in connections if each.number == options.connection]
        if not chosen:
            complain(
                f"no connection {options.connection} in {options.file}: "
                f"there are 1 to {len(connections)}, see --list"
            )
            return []
    if options.start is not None or options.end is not None:
        start = 0.0 if options.start is None else options.start
        end = inf if options.end is None else options.end
        chosen = [part for each in chosen if (part := each.between(start, end)).events]
        if not chosen:
            complain(f"nothing happened between {start:g} and {end:g} seconds of {options.file}")
    return chosen


def _draw(chosen: list[Connection], output: Path) -> int:
    from appliance.trace import picture

    if output.suffix == ".html":
        content = picture.html(chosen[:MAX_PICTURES])
        if len(chosen) > MAX_PICTURES:
            complain(f"the first {MAX_PICTURES} of {len(chosen)} connections, by octets sent")
    else:
        content = picture.svg(chosen[0])
    try:
        output.write_text(content, encoding="utf-8")
    except OSError as error:
        complain(f"{output}: {error.strerror}")
        return FAILED
    drawn = chosen[:MAX_PICTURES] if output.suffix == ".html" else chosen[:1]
    for each in drawn[:1]:
        say(f"{output}: connection {each.number}, {picture.summary(each)}")
    if len(drawn) > 1:
        say(f"{output}: and {len(drawn) - 1} more")
    return OK
