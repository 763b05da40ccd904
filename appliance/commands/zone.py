"""`appliance zone`: compare zones, lay their files out, and fetch them from the server of today."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.commands import FAILED, MISUSED, OK, complain, say

if TYPE_CHECKING:
    from appliance.dns import Zone
    from appliance.dns.serial import Record
    from appliance.dns.tsig import Key


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    diff = tasks.add_parser(
        "diff",
        help="what leads from one zone to another",
        description="Print what leads from one zone to another, record by record, in the order of "
        "the DNS. A zone is a master file, or ZONE@SERVER[:PORT] to have it transferred. "
        "Status 1: they differ.",
    )
    diff.add_argument("old", metavar="OLD")
    diff.add_argument("new", metavar="NEW")
    diff.add_argument("--serial", action="store_true", help="the serial counts as well")
    _key_arguments(diff)
    layout = tasks.add_parser(
        "fmt",
        help="lay master files out in columns",
        description="Rewrite master files in one layout. Records, comments and order stay.",
    )
    layout.add_argument("files", metavar="FILE", type=Path, nargs="+")
    layout.add_argument(
        "--check", action="store_true", help="change nothing; 1 if one would change"
    )
    fetch = tasks.add_parser(
        "import",
        help="fetch a zone from another server (AXFR) as a master file",
        description="Fetch a zone by AXFR and write it as a master file.",
    )
    fetch.add_argument("zone", metavar="ZONE")
    fetch.add_argument("--from", metavar="SERVER[:PORT]", dest="server", required=True)
    fetch.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="default: zones/ZONE.zone; - for here"
    )
    fetch.add_argument("--force", action="store_true", help="replace a file that is there")
    _key_arguments(fetch)


def _key_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-k", "--key", metavar="FILE", type=Path, help="a TSIG key as tsig-keygen writes it"
    )


def run(options: argparse.Namespace) -> int:
    """Do one task."""
    from appliance.dns import DnsError
    from appliance.dns.errors import ZoneError

    tasks = {"diff": _diff, "fmt": _fmt, "import": _import}
    try:
        return tasks[options.task](options)
    except ZoneError as error:
        for problem in error.problems:
            complain(str(problem))
    except DnsError as error:
        complain(str(error))
    except OSError as error:
        why = error.strerror or str(error) or "the server does not answer"
        complain(f"{error.filename}: {why}" if error.filename else why)
    return FAILED


def _key(path: Path | None) -> Key | None:
    """The key in a file by tsig-keygen; LocalError if there is none."""
    import base64
    import re

    from appliance.dns import LocalError, key

    if path is None:
        return None
    text = path.read_text()
    name = re.search(r'key\s+"?([^\s"{]+)"?\s*\{', text)
    algorithm = re.search(r"algorithm\s+\"?([a-z0-9-]+)", text)
    secret = re.search(r'secret\s+"([A-Za-z0-9+/=]+)"', text)
    if name is None or algorithm is None or secret is None:
        raise LocalError(f'{path}: not like key "name" {{ algorithm …; secret "…"; }};')
    return key(name[1], algorithm[1], base64.b64decode(secret[1]))


def _zone(text: str, secret: Key | None) -> Zone:
    """A zone from a file or, as ZONE@SERVER, from a server."""
    from appliance.dns import names
    from appliance.dns.fetch import fetch
    from appliance.dns.zonefile import read_file

    name, at, server = text.rpartition("@")
    if not at or Path(text).exists():
        return read_file(Path(text), judge=False)
    host, port = _server(server)
    return fetch(names.from_text(name, names.ROOT), host, port, secret)


def _server(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.startswith("[")):
        return host.strip("[]"), int(port)
    return text.strip("[]"), 53


def _diff(options: argparse.Namespace) -> int:
    from appliance.dns import names
    from appliance.dns.serial import difference, is_same_content
    from appliance.dns.text import record_text
    from appliance.dns.writer import type_order

    secret = _key(options.key)
    old, new = _zone(options.old, secret), _zone(options.new, secret)
    if old.origin != new.origin:
        complain(f"{old.name} and {new.name} are two zones, not two versions of one")
        return MISUSED
    change = difference(old, new)
    rows: list[tuple[Record, str]] = [(record, "-") for record in change.removed]
    rows += [(record, "+") for record in change.added]
    same = is_same_content(change)
    soa_differs = not same and change.old[3] != change.new[3]
    if soa_differs or (options.serial and old.serial != new.serial):
        rows += [(change.old, "-"), (change.new, "+")]

    def order(row: tuple[Record, str]) -> tuple[object, ...]:
        (owner, rtype, _, rdata), sign = row
        return names.labels(owner.lower())[::-1], type_order(rtype), sign == "+", rdata

    for record, sign in sorted(rows, key=order):
        say(f"{sign}{record_text(*record)}")
    return FAILED if rows else OK


def _fmt(options: argparse.Namespace) -> int:
    from appliance.dns.layout import layout
    from appliance.dns.lexer import statements
    from appliance.dns.zonefile import text_of
    from appliance.files import write_whole

    status = OK
    for path in options.files:
        text = text_of(path)
        faults: list[str] = []
        before = [one.words for one in statements(text.splitlines(), _note(path, faults))]
        wanted = layout(text)
        after = [one.words for one in statements(wanted.splitlines(), _note(path, faults))]
        if faults:
            for fault in faults:
                complain(fault)
            status = FAILED
            continue
        if [_said(words) for words in before] != [_said(words) for words in after]:
            complain(f"{path}: it would say something else, so it is left as it is")
            status = FAILED
        elif wanted != text and options.check:
            say(f"{path} would change")
            status = FAILED
        elif wanted != text:
            write_whole(path, wanted.encode("utf-8", "surrogateescape"))
            say(f"{path} is laid out")
    return status


def _said(words: list[str]) -> list[str]:
    """What a statement says: the case of classes and types is nothing."""
    return [word.upper() if len(word) < 12 else word for word in words]


def _note(path: Path, faults: list[str]) -> Callable[[int, str], None]:
    def fault(line: int, message: str) -> None:
        faults.append(f"{path}:{line}: {message}")

    return fault


def _import(options: argparse.Namespace) -> int:
    from appliance.dns import names
    from appliance.dns.checks import check
    from appliance.dns.fetch import fetch
    from appliance.dns.writer import zone_text
    from appliance.files import write_whole

    name = names.from_text(options.zone, names.ROOT)
    host, port = _server(options.server)
    output: Path = options.output or Path("zones") / f"{options.zone.rstrip('.')}.zone"
    to_file = str(output) != "-"
    if to_file and output.exists() and not options.force:
        complain(f"{output} is there already; --force replaces it")
        return FAILED
    zone = fetch(name, host, port, _key(options.key))
    text = zone_text(zone, f"{zone.name} as {host} had it, serial {zone.serial}.")
    if not to_file:
        say(text.removesuffix("\n"))
        return OK
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, text.encode())
    say(f"{output}: {zone.records} records, serial {zone.serial}")
    for problem in check(zone):
        say(f"{problem.severity}: {problem.message}")
    return OK
