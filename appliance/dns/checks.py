"""Judges a loaded zone as a whole: what cannot be served, and what its owner cannot have meant.

Errors are what RFC 1034, 2181 and 6672 rule out, and a zone with one is not served (RFC 1035 §5.2);
warnings are what servers answer as written but people regret. Every check names the line of the
first record concerned. Imports `consts`, `names`, `errors`, `lookup`, `render`, `zone`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Final

from appliance.dns import names
from appliance.dns.consts import (
    AAAA,
    CNAME,
    DNAME,
    DNSKEY,
    DS,
    HEADER_LEN,
    HTTPS,
    MAX_CHAIN,
    MAX_MESSAGE,
    MX,
    NS,
    NSEC,
    NSEC3PARAM,
    PTR,
    RRSIG,
    SRV,
    SVCB,
    TXT,
    A,
)
from appliance.dns.errors import Problem, Severity
from appliance.dns.lookup import BESIDE_CNAME
from appliance.dns.render import QUESTION_NAME, question_table, render
from appliance.dns.zone import Node, RRset, Zone

BESIDE_CUT: Final = frozenset((NS, DS, NSEC, RRSIG, A, AAAA))
"""Types that mean something at a zone cut in the parent (RFC 4035 §2.4 ff.); addresses are glue."""
_TARGETS: Final = {NS: 0, CNAME: 0, PTR: 0, DNAME: 0, MX: 2, SRV: 6}
"""Octets before the name in rdata that people write without the final dot."""
_TIMES: Final = Struct("!III")
"""Refresh, retry and expire in an SOA's rdata (RFC 1035 §3.3.13), seconds."""
_ADDRESSES: Final = (A, AAAA)
_HOSTS: Final = {NS: 0, MX: 2, SRV: 6}
"""Octets before the host name in types whose host is no alias (RFC 2181 §10.3, RFC 2782)."""

_HOST_LABEL: Final = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
"""RFC 952 and RFC 1123 §2.1."""
_ADDRESS: Final = re.compile(rb"[0-9]{1,3}")
MAX_ROUNDS: Final = 500
"""Iterations of NSEC3 at most, which every answer about a name that does not exist takes some
thrice: a millisecond then. Resolvers take zones with more than 50 to 150 for unsigned (RFC 9276
§3.2), or for broken."""
_OPT_ROOM: Final = 11
"""Octets of an OPT record without options (RFC 6891 §6.1.2)."""

_SHORT: Final = 5
"""Octets of an origin below which its repetition is no accident (`a.a.` is a name like another)."""

Finding = tuple[int, Severity, str]
"""`RRset.where`, severity, sentence."""


def check(zone: Zone) -> list[Problem]:
    """Every problem of a zone, in the order of the files."""
    found: list[Finding] = list(_apex(zone))
    for node in zone.nodes.values():
        for judge in _NODE_CHECKS:
            found.extend(judge(zone, node))
    found.sort()
    problems: list[Problem] = []
    for where, severity, message in found:
        file, line = zone.place(where)
        problems.append(Problem(file, line, severity, message))
    return problems


def check_names(zone: Zone, some: Iterable[bytes]) -> Iterator[Finding]:
    """The problems of some names of a zone, and those of its apex."""
    yield from _apex(zone)
    for name in some:
        node = zone.nodes.get(name)
        for judge in _NODE_CHECKS if node is not None else ():
            assert node is not None
            yield from judge(zone, node)


def _type(rtype: int) -> str:
    from appliance.dns.text import type_name  # brings dnspython, which serving does not need

    return type_name(rtype)


def _apex(zone: Zone) -> Iterator[Finding]:
    if len(zone.soa.rdatas) > 1:
        # RFC 1035 §5.2: exactly one SOA.
        yield zone.soa.where, "error", f"{len(zone.soa.rdatas)} SOA records; a zone has one"
    if NS not in zone.apex.rrsets:
        # RFC 1034 §4.2.1: the apex has NS records.
        yield zone.soa.where, "error", f"{zone.name} has no NS record"
    refresh, retry, expire = _TIMES.unpack(zone.soa.rdatas[0][-16:-4])
    if expire <= refresh + retry:
        # RFC 1912 §2.2.
        message = f"SOA: secondaries expire after {expire} seconds, before they have retried"
        yield zone.soa.where, "warning", message
    rdata = zone.soa.rdatas[0]
    mailbox = rdata[names.end_of(rdata, 0) :]
    if b"@" in mailbox[1 : 1 + mailbox[0]]:
        # RFC 1035 §8.
        message = f"SOA: the mailbox {names.to_text(mailbox)} wants a dot, where an address has @"
        yield zone.soa.where, "warning", message
    if zone.signed:
        yield from _signed(zone)


def _signed(zone: Zone) -> Iterator[Finding]:
    """What a zone that somebody has signed must have for its answers to be proved."""
    if DNSKEY not in zone.apex.rrsets:
        yield (
            zone.soa.where,
            "warning",
            f"{zone.name} is signed, but has no DNSKEY (RFC 4035 §2.1)",
        )
    parameters = zone.apex.rrsets.get(NSEC3PARAM)
    if parameters is None:
        if NSEC not in zone.apex.rrsets:
            message = f"{zone.name} is signed, but has neither NSEC nor NSEC3PARAM (RFC 4035 §2.3)"
            yield zone.soa.where, "warning", message
        return
    complaint = too_costly(zone)
    if complaint is not None:
        yield parameters.where, "error", complaint
    elif rounds := _rounds(parameters):
        message = f"NSEC3 with {rounds} iterations; RFC 9276 §3.1 wants 0"
        yield parameters.where, "warning", message


def too_costly(zone: Zone) -> str | None:
    """Why answers from a zone would take too much work, wherever it is from; None if they don't."""
    parameters = zone.apex.rrsets.get(NSEC3PARAM)
    rounds = _rounds(parameters) if parameters is not None and zone.signed else 0
    if rounds <= MAX_ROUNDS:
        return None
    return f"NSEC3 with {rounds} iterations; at most {MAX_ROUNDS} are served (RFC 9276 §3.1)"


def _rounds(parameters: RRset) -> int:
    return max(int.from_bytes(rdata[2:4], "big") for rdata in parameters.rdatas)


def _aliases(_zone: Zone, node: Node) -> Iterator[Finding]:
    """RFC 1034 §3.6.2, RFC 2181 §10.1: an alias is alone, and there is one."""
    cname = node.rrsets.get(CNAME)
    owner = names.to_text(node.owner)
    if cname is not None:
        if len(cname.rdatas) > 1:
            yield cname.where, "error", f"{owner} has {len(cname.rdatas)} CNAME records"
        others = sorted(set(node.rrsets) - BESIDE_CNAME)
        if others:
            listed = ", ".join(_type(rtype) for rtype in others)
            first = min(node.rrsets[rtype].where for rtype in others)
            later = max(first, cname.where)
            yield later, "error", f"{owner} has CNAME and other data: {listed}"
    dname = node.rrsets.get(DNAME)
    if dname is not None and len(dname.rdatas) > 1:
        # RFC 6672 §2.4.
        yield dname.where, "error", f"{owner} has {len(dname.rdatas)} DNAME records"


def _leading(zone: Zone, node: Node) -> Iterator[Finding]:
    """Aliases that lead to nothing that we know of."""
    cname = node.rrsets.get(CNAME)
    if cname is None or node.cover is not None:
        return
    alias, owner, seen = cname, names.to_text(node.owner), {node.name}
    for _ in range(MAX_CHAIN):
        target = alias.rdatas[0].lower()
        if not names.is_below(target, zone.origin):
            return
        if target in seen:
            # RFC 1034 §3.6.2: an error that is to be signalled.
            yield cname.where, "warning", f"the alias {owner} leads round in a circle"
            return
        seen.add(target)
        found = zone.closest(target)
        if found.cover is not None:
            return
        if len(found.name) != len(target):
            if found.wildcard is None:
                if not names.is_below(target, zone.origin[:-1] + zone.origin):  # see `_doubled`
                    lost = names.to_text(target)
                    message = f"the alias {owner} leads to {lost}, which does not exist"
                    yield cname.where, "warning", message
                return
            found = found.wildcard
        if CNAME not in found.rrsets:
            return
        alias = found.rrsets[CNAME]
    message = f"the alias {owner} leads on and on: resolvers give up before {MAX_CHAIN} steps"
    yield cname.where, "warning", message


def _hosts(zone: Zone, node: Node) -> Iterator[Finding]:
    """Name servers, mail exchangers and services that lead nowhere."""
    if node.cover is not None and node.cover is not node:
        return
    for rtype, skip in _HOSTS.items():
        rrset = node.rrsets.get(rtype)
        if rrset is None:
            continue
        for rdata in rrset.rdatas:
            yield from _spelling(node, rrset, rdata[skip:])
            yield from _host(zone, node, rrset, rdata[skip:])
    for rtype in (*_ADDRESSES, MX):
        if rtype in node.rrsets and not _is_host(names.labels(node.name), wildcard=True):
            message = f"{names.to_text(node.owner)} is no host name (RFC 1123 §2.1)"
            yield node.rrsets[rtype].where, "warning", message
            break


def _is_host(labels: list[bytes], *, wildcard: bool = False) -> bool:
    """True if all labels are letters, digits and hyphens, as mail and web want names of hosts.

    `wildcard`: or an asterisk, of which `_wildcards` has something to say.
    """
    if wildcard:
        labels = [label for label in labels if label != b"*"]
    return all(_HOST_LABEL.fullmatch(label) for label in labels)


def _spelling(node: Node, rrset: RRset, host: bytes) -> Iterator[Finding]:
    """Hosts that no host is called like, and addresses where a name is wanted."""
    labels = names.labels(host)
    what = f"{_type(rrset.rtype)} of {names.to_text(node.owner)} names {names.to_text(host)}"
    if len(labels) >= 4 and all(_ADDRESS.fullmatch(label) for label in labels[:4]):
        yield rrset.where, "warning", f"{what}, an address where a name is wanted"
    elif not _is_host(labels):
        yield rrset.where, "warning", f"{what}, which is no host name (RFC 1123 §2.1)"


def _host(zone: Zone, node: Node, rrset: RRset, host: bytes) -> Iterator[Finding]:
    lowered = host.lower()
    if host == names.ROOT or not names.is_below(lowered, zone.origin):
        return
    what = f"{_type(rrset.rtype)} of {names.to_text(node.owner)} names {names.to_text(host)}"
    found = zone.closest(lowered)
    if found.cover is not None and found.cover is not node and found.cover is not zone.apex:
        return  # another zone's business
    if len(found.name) != len(lowered):
        if found.wildcard is None:
            glue = " (missing glue, RFC 9471)" if rrset.rtype == NS else ""
            yield rrset.where, "warning", f"{what}, which is not in the zone{glue}"
            return
        found = found.wildcard
    if CNAME in found.rrsets:
        # RFC 2181 §10.3, RFC 1912 §2.4.
        yield rrset.where, "warning", f"{what}, which is an alias"
    elif not _addresses(found):
        glue = " (missing glue, RFC 9471)" if rrset.rtype == NS else ""
        yield rrset.where, "warning", f"{what}, which has no address{glue}"


def _addresses(node: Node) -> bool:
    return A in node.rrsets or AAAA in node.rrsets


def _occluded(zone: Zone, node: Node) -> Iterator[Finding]:
    """Data that no query can reach: below a cut (but glue), beside it, below a DNAME."""
    cover = node.cover
    if cover is None or not node.rrsets:
        return
    owner, top = names.to_text(node.owner), names.to_text(cover.owner)
    cut = NS in cover.rrsets and cover.name != zone.origin
    if node is cover:
        if cut:
            for rtype, rrset in node.rrsets.items():
                if rtype not in BESIDE_CUT:
                    message = f"{_type(rtype)} of {owner} is hidden: the name is delegated"
                    yield rrset.where, "warning", message
        return
    for rtype, rrset in node.rrsets.items():
        if not cut:
            # RFC 6672 §2.4: records MUST NOT exist there.
            message = f"{_type(rtype)} of {owner} stands below the DNAME of {top} (RFC 6672 §2.4)"
            yield rrset.where, "error", message
        elif rtype not in (A, AAAA):
            message = f"{_type(rtype)} of {owner} is hidden: {top} is delegated"
            yield rrset.where, "warning", message


def _doubled(zone: Zone, node: Node) -> Iterator[Finding]:
    """Names that end with the zone's name twice: a final dot was forgotten."""
    if len(zone.origin) < _SHORT:
        return
    twice = zone.origin[:-1] + zone.origin
    if node.rrsets and names.is_below(node.name, twice):
        where = min(rrset.where for rrset in node.rrsets.values())
        owner = names.to_text(node.owner)
        yield where, "warning", f"{owner} has the zone's name twice; is a final dot missing?"
    for rtype, skip in _TARGETS.items():
        rrset = node.rrsets.get(rtype)
        for rdata in rrset.rdatas if rrset is not None else ():
            if names.is_below(rdata[skip:].lower(), twice):
                target = names.to_text(rdata[skip:])
                message = f"{target} has the zone's name twice; is a final dot missing?"
                yield rrset.where if rrset is not None else 0, "warning", message


def _signers(zone: Zone, node: Node) -> Iterator[Finding]:
    """RFC 4035 §2.4: DS stands where there is a delegation."""
    if DS in node.rrsets and (NS not in node.rrsets or node is zone.apex):
        message = f"DS of {names.to_text(node.owner)} without a delegation (RFC 4035 §2.4)"
        yield node.rrsets[DS].where, "warning", message


def _wildcards(zone: Zone, node: Node) -> Iterator[Finding]:
    """What people expect of wildcards and do not get (RFC 4592 §2.1.1, §4.2, §4.4)."""
    if node.rrsets and names.WILDCARD in node.name[2 : -len(zone.origin)]:
        inner = names.parent(node.name)
        while len(inner) > len(zone.origin):
            if inner[:2] == names.WILDCARD:
                # RFC 4592 §2.1.1: an asterisk is a wildcard in the leftmost label alone.
                where = min(rrset.where for rrset in node.rrsets.values())
                owner = names.to_text(node.owner)
                yield where, "warning", f"{owner}: a * inside a name stands for itself (RFC 4592)"
                break
            inner = names.parent(inner)
    if node.name[:2] != names.WILDCARD:
        return
    owner = names.to_text(node.owner)
    for rtype in (NS, DNAME):
        if rtype in node.rrsets:
            message = f"{_type(rtype)} at the wildcard {owner}: servers differ about its meaning"
            yield node.rrsets[rtype].where, "warning", message


def _shadowed(zone: Zone, node: Node) -> Iterator[Finding]:
    """A name that exists beside a wildcard and so does not have the wildcard's addresses."""
    if node is zone.apex or node.cover is not None or node.name[:2] == names.WILDCARD:
        return
    wildcard = zone.nodes[names.parent(node.name)].wildcard
    if wildcard is None or CNAME in node.rrsets or _addresses(node):
        return
    if node.name[1:2] == b"_":
        return  # RFC 8552: such labels are no hosts
    if _addresses(wildcard) or CNAME in wildcard.rrsets:
        owner, star = names.to_text(node.owner), names.to_text(wildcard.owner)
        why = "exists" if node.rrsets else "exists, because names below it do"
        lines = (node if node.rrsets else wildcard).rrsets.values()
        where = min(rrset.where for rrset in lines)
        yield where, "warning", f"{owner} {why}: {star} gives it no address (RFC 4592 §2.2.1)"


def _services(_zone: Zone, node: Node) -> Iterator[Finding]:
    """RFC 9460 §2.4.1, RFC 7208 §3.2: sets whose records exclude one another."""
    for rtype in (SVCB, HTTPS):
        rrset = node.rrsets.get(rtype)
        if rrset is not None and len({rdata[:2] == b"\0\0" for rdata in rrset.rdatas}) > 1:
            owner = f"{_type(rtype)} of {names.to_text(node.owner)}"
            message = f"{owner} mixes priority 0 with others (RFC 9460 §2.4.1)"
            yield rrset.where, "warning", message
    texts = node.rrsets.get(TXT)
    if texts is not None and len(texts.rdatas) > 1:
        policies = sum(rdata[1:8].lower() in (b"v=spf1", b"v=spf1 ") for rdata in texts.rdatas)
        if policies > 1:
            # RFC 7208 §4.5: that is a permanent error.
            owner = names.to_text(node.owner)
            message = f"{owner} has {policies} SPF policies; mail servers take that for an error"
            yield texts.where, "warning", message


def _sizes(_zone: Zone, node: Node) -> Iterator[Finding]:
    """Sets that go into no message, so that nobody can have them (RFC 1035 §4.2.2)."""
    for rtype, rrset in node.rrsets.items():
        if len(rrset.rdatas) == 1:
            continue
        at = HEADER_LEN + len(node.name) + 4
        room = MAX_MESSAGE - _OPT_ROOM - at
        if sum(map(len, rrset.rdatas)) + 12 * len(rrset.rdatas) <= room:
            continue
        body = render(question_table(node.name), at, [(QUESTION_NAME, rrset)], (), (), ())
        if len(body.octets) > room:
            message = (
                f"{_type(rtype)} of {names.to_text(node.owner)} takes {len(body.octets)} octets; "
                f"a message has {room} for it"
            )
            yield rrset.where, "error", message


_NODE_CHECKS: Final[tuple[Callable[[Zone, Node], Iterator[Finding]], ...]] = (
    _aliases,
    _leading,
    _hosts,
    _occluded,
    _doubled,
    _signers,
    _wildcards,
    _shadowed,
    _services,
    _sizes,
)
