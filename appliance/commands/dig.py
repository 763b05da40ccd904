"""`appliance dig`: ask the running appliance, and say why the answer is what it is."""

from __future__ import annotations

import argparse
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from appliance.commands import (
    FAILED,
    MISUSED,
    OK,
    complain,
    config_path,
    overrides,
    say,
    settings_arguments,
)

if TYPE_CHECKING:
    from appliance.dns.lookup import Answer
    from appliance.dns.zone import Zone

PATIENCE: Final = 3.0
"""Seconds until an answer must be there."""
EPILOG: Final = """\
Asks @SERVER, or the appliance that these settings start (on the gateway's port, or the stack's own
address), and explains by the zones of the settings. --offline explains without asking anybody."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", metavar="NAME", help="the name asked for")
    parser.add_argument("type", metavar="TYPE", nargs="?", default="A", help="default: A")
    parser.add_argument("server", metavar="@SERVER[:PORT]", nargs="?", help="whom to ask")
    parser.add_argument("--tcp", action="store_true", help="ask over TCP")
    parser.add_argument("--no-edns", action="store_true", help="without EDNS: 512 octets")
    parser.add_argument("--offline", action="store_true", help="ask nobody; explain only")
    settings_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Ask and explain."""
    from appliance.config import ConfigError, load
    from appliance.dns import LocalError, load_zones, names
    from appliance.dns.text import type_number

    words = [options.name, options.type, options.server or ""]
    server = next((word[1:] for word in words if word.startswith("@")), "")
    plain = [word for word in words if word and not word.startswith("@")]
    path = config_path(options)
    if path is None or not plain:
        return MISUSED
    try:
        settings = load(path, overrides(options))
        qname = names.from_text(plain[0], names.ROOT)
        qtype = type_number(plain[1] if len(plain) > 1 else "A")
    except ConfigError as error:
        for problem in error.problems:
            complain(str(problem))
        return MISUSED
    except LocalError as error:
        complain(str(error))
        return MISUSED
    loaded = load_zones(settings.dns.zones)
    status = OK
    answer: Any = None
    if not options.offline:
        host, port = _server(server, settings)
        try:
            answer = _ask(host, port, qname, qtype, options)
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            complain(f"{host} port {port} does not answer: {why}")
            status = FAILED
    found = _explain(loaded.zones, qname, qtype)
    if answer is not None and not _agree(answer, found):
        say("")
        say("The server says something else than these files: it serves another version (is a")
        say("reload due, or has the zone been updated or transferred?), or it cut the answer.")
        status = FAILED
    return status


def _server(text: str, settings: Any) -> tuple[str, int]:
    from appliance.links import PAIR

    if text:
        host, colon, port = text.rpartition(":")
        return (host, int(port)) if colon and port.isdigit() else (text, 53)
    if settings.net.link == PAIR:
        return settings.gateway.bind, settings.gateway.dns
    return settings.net.first, settings.dns.port


def _ask(host: str, port: int, qname: bytes, qtype: int, options: argparse.Namespace) -> Any:
    """Send one question and print what comes; OSError."""
    import dns.edns
    import dns.flags
    import dns.message
    import dns.name
    import dns.rcode
    import dns.rdatatype

    from appliance.dns import names

    name = dns.name.Name([*names.labels(qname), b""])
    query = dns.message.make_query(
        name,
        dns.rdatatype.RdataType.make(qtype),
        use_edns=not options.no_edns,
        payload=1232,
        flags=0,
    )
    if not options.no_edns:
        nsid = dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")
        query.use_edns(options=[nsid], payload=1232)
    wire = query.to_wire()
    began = time.perf_counter()
    reply = _tcp(host, port, wire) if options.tcp else _udp(host, port, wire)
    how = "TCP" if options.tcp else "UDP"
    if reply[2] & 2 and not options.tcp:
        reply, how = _tcp(host, port, wire), "TCP, since UDP's answer was truncated"
    took = (time.perf_counter() - began) * 1000
    answer = dns.message.from_wire(reply)
    flags = dns.flags.to_text(answer.flags).lower()
    rcode = dns.rcode.to_text(answer.rcode())
    say(f"; {host} port {port} over {how}: {rcode}, flags {flags}, {len(reply)} octets, "
        f"{took:.1f} ms")  # fmt: skip
    for option in answer.options:
        say(f"; {option.to_text()}" if hasattr(option, "to_text") else f"; {option}")
    for title in ("answer", "authority", "additional"):
        section = getattr(answer, title)
        if section:
            say(f"\n{title}:")
        for rrset in section:
            for line in rrset.to_text().splitlines():
                say(f"  {line}")
    return answer


def _udp(host: str, port: int, wire: bytes) -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((host, port))
        sock.send(wire)
        return sock.recv(65535)


def _tcp(host: str, port: int, wire: bytes) -> bytes:
    with socket.create_connection((host, port), PATIENCE) as sock:
        sock.sendall(len(wire).to_bytes(2, "big") + wire)
        file = sock.makefile("rb")
        length = int.from_bytes(file.read(2), "big")
        reply = file.read(length)
        if len(reply) < 12:
            raise OSError("the connection was closed")
        return reply


def _explain(zones: tuple[Zone, ...], qname: bytes, qtype: int) -> Answer:
    """Print the path of decisions; what it led to."""
    from appliance.dns.lookup import Lookup, Trace, Zones

    trace: Trace = []
    found = Lookup(Zones(zones)).resolve(qname, qtype, trace)
    if found.zone is not None and found.zone.files:
        where = Path(found.zone.files[0])
        shown = where.relative_to(Path.cwd()) if where.is_relative_to(Path.cwd()) else where
        say(f"\nwhy, by {shown}, serial {found.zone.serial}:")
    else:
        say("\nwhy:")
    for number, (section, text) in enumerate(trace, 1):
        say(f"  {number}. {text}  [{section}]")
    return found


def _agree(answer: Any, found: Answer) -> bool:
    """True if the server's answer section is what the files lead to."""
    from appliance.dns.zone import canonical

    if answer.rcode() != found.rcode:
        return False
    theirs = {
        (rrset.name.to_wire().lower(), int(rrset.rdtype), canonical(rrset.rdtype, rdata.to_wire()))
        for rrset in answer.answer
        for rdata in rrset
    }
    ours = {
        (owner.lower(), rrset.rtype, canonical(rrset.rtype, rdata))
        for owner, rrset in found.answer
        for rdata in rrset.rdatas
    }
    return theirs == ours
