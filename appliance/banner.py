"""What `appliance serve` says when it is ready: where to look, what is served, what was refused.

Every address printed can be used as it stands. Text only; imports the settings, and the operating
system to ask whether the host's side of a tap has an address.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from appliance import __version__
from appliance.links import opposite

if TYPE_CHECKING:
    from appliance.content import Content
    from appliance.gateway import Gateway
    from appliance.net.vif.base import Vif
    from appliance.settings import Cable, Settings

SIOCGIFADDR: Final = 0x8915
"""linux/sockios.h."""
PROBLEMS: Final = 8
"""Problems shown at the start; `appliance check` shows all."""


def plural(number: int, noun: str) -> str:
    """The number with its noun, as in 2 pages."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def banner(
    settings: Settings,
    content: Content,
    vifs: Sequence[Vif],
    gateway: Gateway | None,
    notes: Sequence[str] = (),
    addresses: Sequence[str] = (),
    taken: Collection[str] = (),
) -> Iterator[str]:
    """The lines, first to last; `vifs` are those of the links, `notes` those of the parts.

    `addresses` are ours on the links, `taken` those of the settings that somebody else has.
    """
    site, net = settings.site, settings.net
    cables = (net, *net.more)
    if gateway is not None:
        places, ports = [gateway.place], (gateway.http, gateway.dns)
    else:
        given = [cidr.partition("/")[0] for cable in cables for cidr in cable.address]
        static = [address for address in given if address not in taken]
        places = [*static, *(address for address in addresses if address not in static)]
        ports = (settings.http.port, settings.dns.port)
    yield f"appliance {__version__} serves {site.title}"
    yield ""
    for place in places:
        yield f"  {url(place, ports[0])}"
    if not places:
        why = "somebody else has ours" if taken else "nobody lends or advertises one"
        yield f"  no address yet: {why}; it is told when one is found"
    yield (
        f"      {plural(content.size.pages, 'page')}, {plural(content.size.files, 'file')}, "
        f"{_octets(content.size.octets)}"
    )
    # What primaries have is ours to answer, too, as soon as it has come.
    theirs = tuple(zone for one in settings.dns.primary for zone in one.zones)
    if (content.zones or theirs) and places:
        port = "" if ports[1] == 53 else f" -p {ports[1]}"
        yield f"  dig @{places[0]}{port} {_zone_to_ask(site.base_url, content.zones or theirs)}"
    more = f" and {plural(len(set(theirs)), 'zone')} of primaries," if theirs else ""
    yield (
        f"      {plural(len(content.zones), 'zone')}, {plural(content.records, 'record')},{more} "
        "over UDP and TCP"
    )
    yield ""
    for note in notes:
        yield f"  {note}"
    for cable, vif in zip(cables, vifs, strict=True):
        given = [cidr for cidr in cable.address if cidr.partition("/")[0] not in taken]
        ours = ", ".join(given or ([] if net.more else addresses)) or "what is found"
        yield f"  stack: {ours} on {cable.link}; {_report(vif)}"
    if content.size.hidden:
        yield f"  refused: {plural(content.size.hidden, 'dotfile')} hidden"
    if content.size.waiting:
        yield f"  waiting: {plural(content.size.waiting, 'page')} (drafts, or of a later date)"
    for note in gateway.notes if gateway is not None else ():
        yield f"  note: {note}"
    for cable in cables:
        if (hint := _host_side(cable)) is not None:
            yield f"  note: {hint}"
    if net.pcap is not None:
        yield f"  note: every frame is recorded in {net.pcap}"
    for problem in content.problems[:PROBLEMS]:
        yield f"  {problem.severity}: {problem}"
    if len(content.problems) > PROBLEMS:
        yield f"  and {len(content.problems) - PROBLEMS} more: appliance check tells all"
    yield "  Ctrl-C ends it; SIGHUP loads site and zones again"


def url(address: str, port: int) -> str:
    """Where to point a browser."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}/" if port == 80 else f"http://{host}:{port}/"


def _zone_to_ask(base_url: str, zones: tuple[str, ...]) -> str:
    """The zone of the site's own name, or else the first that is not for reverse look-ups."""
    host = urlsplit(base_url).hostname or ""
    names = [zone.rstrip(".").lower() for zone in zones]
    fitting = [name for name in names if host == name or host.endswith(f".{name}")]
    forward = [name for name in names if not name.endswith(".arpa")]
    return (fitting or forward or names)[0] or "."


def _octets(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} octets"


def _report(vif: Vif) -> str:
    """What the link does for us; wrappers pass the question on."""
    inner: object = vif
    while inner is not None:
        report = getattr(inner, "offload_report", None)
        if report:
            return str(report)
        inner = getattr(inner, "inner", None)
    return "nothing is cut or summed on the way"


def _host_side(net: Cable) -> str | None:
    """How to reach a tap whose host side has no address; None when there is nothing to say."""
    if not net.link.startswith("tap:"):
        return None
    cidr = opposite(net.address, net.gateway)
    if cidr is None:
        return None
    name = net.link.removeprefix("tap:")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("16s16x", name.encode()))
        except OSError:
            pass
        else:
            return None
    return (
        f"the host's side of {name} has no address: ip address add {cidr} dev {name}, "
        f"or --host-address {cidr}"
    )
