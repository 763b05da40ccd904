"""A zone as the engine wants it: one dictionary from lower-cased wire names to nodes.

The tree of RFC 1034 §3.1 is kept implicitly. A name's parent is its tail, so looking for the
closest encloser is cutting labels off the front until the dictionary knows the rest. What would
need a walk from the apex downwards is worked out once, when the zone is built: each node knows its
*cover*, the highest zone cut or DNAME at or above it, and its *wildcard* child. Empty
non-terminals (RFC 4592 §2.2.2) are nodes without RRsets, so NODATA and NXDOMAIN fall out of the
dictionary alone.

A zone never changes once built; a reload or an update builds another one. Reading master files is
`zonefile`'s, judging the content `checks`', choosing an answer `lookup`'s work. Imports `consts`,
`errors` and `names`; the two reading methods import `zonefile` when called.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliance.dns import names
from appliance.dns.consts import DNAME, NAME_FIELDS, NS, RRSIG, SOA
from appliance.dns.errors import LocalError, Problem

MANY: Final = 8
"""Records from which an RRset under construction looks for duplicates in a set."""
MAX_SET: Final = 6000
"""Records of one RRset: a message of 64 KB holds fewer, at eleven octets each and its own data
(RFC 1035 §4.2.2, RFC 2181 §5), so nobody can have more, and each costs as much as all before it."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector still while millions of objects are made that all stay.

    It would go through all of them again and again, and find nothing: a million records load in
    less than half the time without it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class RRset:
    """Records of one owner and type: the RFC 2181 §5 unit that is answered whole."""

    __slots__ = ("rdatas", "rtype", "signatures", "ttl", "where")

    def __init__(self, rtype: int, ttl: int, rdatas: tuple[bytes, ...], where: int = 0) -> None:
        """`ttl` in seconds, `rdatas` in uncompressed wire form, in the order of the file."""
        self.rtype = rtype
        self.ttl = ttl
        self.rdatas = rdatas
        self.where = where
        """File index << 32 | line of the first record; see `Zone.place`. 0: synthesized."""
        self.signatures: RRset | None = None
        """What signs it, if its zone was signed (RFC 4035 §2.2); see `attach`."""


class Node:
    """One name of the zone."""

    __slots__ = ("children", "cover", "name", "owner", "rrsets", "wildcard")

    def __init__(self, name: bytes, owner: bytes) -> None:
        """`name` in lower case, `owner` as first written; an empty non-terminal to begin with."""
        self.name = name
        self.owner = owner
        self.rrsets: dict[int, RRset] = {}
        self.cover: Node | None = None
        """The highest zone cut or DNAME owner at or above this node; None: plain data."""
        self.wildcard: Node | None = None
        """The child whose label is `*` (RFC 4592 §3.3.1, source of synthesis)."""
        self.children = 0
        """Names one label below: a node with neither records nor children is no name."""


class Zone:
    """One loaded zone; immutable once built."""

    __slots__ = (
        "apex",
        "chain",
        "digest",
        "files",
        "negative",
        "nodes",
        "origin",
        "problems",
        "records",
        "signed",
        "soa",
    )

    def __init__(
        self,
        origin: bytes,
        nodes: dict[bytes, Node],
        *,
        records: int,
        files: tuple[str, ...] = (),
        digest: bytes = b"",
    ) -> None:
        """Made by `ZoneBuilder.finish`; the apex must hold exactly one SOA record."""
        self.origin = origin
        self.nodes = nodes
        self.apex = nodes[origin]
        self.soa = self.apex.rrsets[SOA]
        # RFC 2308 §3, §5: a negative answer lives min(SOA TTL, MINIMUM) seconds.
        minimum = int.from_bytes(self.soa.rdatas[0][-4:], "big")
        self.negative = RRset(SOA, min(self.soa.ttl, minimum), self.soa.rdatas, self.soa.where)
        self.chain: object = None
        """What `denial` has made of the zone, when it was first asked for proofs."""
        self.signed = self.soa.signatures is not None
        """Somebody has signed it; see `denial`."""
        if self.soa.signatures is not None:
            # RFC 4034 §3: signatures have the TTL of what they sign.
            rdatas = self.soa.signatures.rdatas
            self.negative.signatures = RRset(RRSIG, self.negative.ttl, rdatas)
        self.records = records
        """Records held, duplicates not counted."""
        self.files = files
        """Names of the files read, the main one first: what `RRset.where` points into."""
        self.digest = digest
        """SHA-256 over all files read, in the order of reading: tells whether a reload is due."""
        self.problems: tuple[Problem, ...] = ()
        """Warnings of the load."""

    @classmethod
    def from_text(cls, text: str, origin: str | None = None) -> Zone:
        """Read a master file from a string; `origin` is what the zone must be called.

        `$INCLUDE` is refused, since there is no directory to confine it to. Raises ZoneError.
        """
        from appliance.dns.zonefile import read_text

        return read_text(text, origin)

    @classmethod
    def from_file(cls, path: str | Path) -> Zone:
        """Read a master file; a name like `example.org.zone` gives the first $ORIGIN.

        Raises ZoneError, also when the file cannot be read.
        """
        from appliance.dns.zonefile import read_file

        return read_file(Path(path))

    @property
    def name(self) -> str:
        """The origin as text, with the final dot."""
        return names.to_text(self.apex.owner)

    @property
    def serial(self) -> int:
        """The SOA's serial (RFC 1982 arithmetic applies)."""
        return int.from_bytes(self.soa.rdatas[0][-20:-16], "big")

    def renumber(self, serial: int) -> None:
        """Give the zone another serial; only before it is handed to a catalog, and if unsigned."""
        rdata = self.soa.rdatas[0]
        changed = (rdata[:-20] + serial.to_bytes(4, "big") + rdata[-16:],)
        for rrset in (self.soa, self.negative):
            rrset.rdatas = changed

    def closest(self, name: bytes) -> Node:
        """The node of `name`, or of its closest encloser (RFC 4592 §3.3.1).

        `name` is in lower case and at or below the origin.
        """
        nodes = self.nodes
        node = nodes.get(name)
        while node is None:
            name = name[1 + name[0] :]
            node = nodes.get(name)
        return node

    def place(self, where: int) -> tuple[str, int]:
        """File name and line for an `RRset.where`."""
        return self.files[where >> 32] if self.files else "", where & 0xFFFFFFFF

    def __iter__(self) -> Iterator[tuple[Node, RRset]]:
        """All RRsets, in no order that may be relied upon."""
        for node in self.nodes.values():
            for rrset in node.rrsets.values():
                yield node, rrset


def is_cut(node: Node, origin: bytes) -> bool:
    """True if the zone is delegated away at this node (RFC 1034 §4.2.1)."""
    return NS in node.rrsets and node.name != origin


def is_signed(apex: Node) -> bool:
    """True if somebody has signed the zone: its SOA, without which nothing can be denied.

    What other signatures there are is not sent with what they sign, by NSD, Knot and BIND neither.
    """
    held = apex.rrsets.get(RRSIG)
    return held is not None and any(one[0] << 8 | one[1] == SOA for one in held.rdatas)


def attach(node: Node, *, signed: bool = True) -> None:
    """Put the signatures of a node beside what they sign, none if its zone is not `signed`.

    Sets that others share are left alone.
    """
    over: dict[int, list[bytes]] = {}
    held = node.rrsets.get(RRSIG) if signed else None
    for rdata in held.rdatas if held is not None else ():
        over.setdefault(rdata[0] << 8 | rdata[1], []).append(rdata)
    for rtype, rrset in node.rrsets.items():
        some = tuple(over.get(rtype, ()))
        known = rrset.signatures
        if (known.rdatas, known.ttl) != (some, rrset.ttl) if known is not None else some:
            fresh = RRset(rtype, rrset.ttl, rrset.rdatas, rrset.where)
            if some:
                # RFC 4034 §3: their TTL is that of what they sign.
                fresh.signatures = RRset(RRSIG, rrset.ttl, some)
            node.rrsets[rtype] = fresh


def canonical(rtype: int, rdata: bytes) -> bytes:
    """The rdata with the names of RFC 1035's types in lower case, for comparing (RFC 4034 §6.2)."""
    fields = NAME_FIELDS.get(rtype) or ((0, 1) if rtype == DNAME else None)
    if fields is None:
        return rdata
    at = fields[0]
    for _ in range(fields[1]):
        at = names.end_of(rdata, at)
    return rdata[: fields[0]] + rdata[fields[0] : at].lower() + rdata[at:]


def too_many(owner: bytes) -> LocalError:
    """What is raised for another record of a set that has `MAX_SET`."""
    return LocalError(f"{names.to_text(owner)} has a set of more than {MAX_SET} records")


class ZoneBuilder:
    """Takes records one by one and gives the finished tree."""

    def __init__(self, origin: bytes) -> None:
        """`origin` as wire name in any case."""
        self.origin = origin.lower()
        self.nodes: dict[bytes, Node] = {self.origin: Node(self.origin, origin)}
        self.records = 0
        self._seen: dict[tuple[bytes, int], set[bytes]] = {}
        """Canonical rdata of RRsets with at least `MANY` records."""

    def add(self, owner: bytes, rtype: int, ttl: int, rdata: bytes, where: int = 0) -> str | None:
        """Add one record at or below the origin; a complaint if it sits ill with its RRset.

        A duplicate is left out. A TTL that differs from its RRset's lowers it to the lesser of both
        (RFC 2181 §5.2). LocalError for more than `MAX_SET` records of a set.
        """
        name = owner.lower()
        node = self.nodes.get(name)
        if node is None:
            node = self._grow(name, owner)
        rrset = node.rrsets.get(rtype)
        if rrset is None:
            node.rrsets[rtype] = RRset(rtype, ttl, (rdata,), where)
            self.records += 1
            return None
        complaint = None
        if ttl != rrset.ttl and rtype == RRSIG:
            rrset.ttl = min(ttl, rrset.ttl)  # RFC 4034 §3: they are no set like others
        elif ttl != rrset.ttl:
            rrset.ttl = min(ttl, rrset.ttl)
            complaint = f"TTL {ttl} differs within the RRset; all get {rrset.ttl} (RFC 2181 §5.2)"
        if self._is_duplicate(name, rrset, rdata):
            return "the same record was given before"
        if len(rrset.rdatas) >= MAX_SET:
            raise too_many(owner)
        rrset.rdatas += (rdata,)
        self.records += 1
        return complaint

    def _is_duplicate(self, name: bytes, rrset: RRset, rdata: bytes) -> bool:
        # RFC 2181 §5: an RRset has no two records with equal rdata.
        rtype = rrset.rtype
        form = canonical(rtype, rdata)
        if len(rrset.rdatas) < MANY:
            return any(canonical(rtype, other) == form for other in rrset.rdatas)
        seen = self._seen.get((name, rtype))
        if seen is None:
            seen = {canonical(rtype, other) for other in rrset.rdatas}
            self._seen[name, rtype] = seen
        if form in seen:
            return True
        seen.add(form)
        return False

    def _grow(self, name: bytes, owner: bytes) -> Node:
        """A new node and whatever empty non-terminals lead to it."""
        nodes = self.nodes
        node = first = nodes[name] = Node(name, name if owner == name else owner)
        while True:
            label_end = 1 + node.name[0]
            above_name = node.name[label_end:]
            above = nodes.get(above_name)
            known = above is not None
            if above is None:
                owner = node.owner[label_end:]
                above = nodes[above_name] = Node(
                    above_name, above_name if owner == above_name else owner
                )
            above.children += 1
            if node.name[:2] == names.WILDCARD:
                above.wildcard = node
            if known:
                return first
            node = above

    def finish(self, files: tuple[str, ...] = (), digest: bytes = b"") -> Zone:
        """The zone; the apex must hold exactly one SOA record by now."""
        self._seen.clear()
        self._cover()
        if is_signed(self.nodes[self.origin]):
            for node in self.nodes.values():
                if RRSIG in node.rrsets:
                    attach(node)
        return Zone(self.origin, self.nodes, records=self.records, files=files, digest=digest)

    def _cover(self) -> None:
        """Tell every node the highest cut or DNAME at or above it."""
        origin, nodes = self.origin, self.nodes
        if not any(
            DNAME in node.rrsets or (NS in node.rrsets and name != origin)
            for name, node in nodes.items()
        ):
            return
        # A parent's name is shorter than its child's, so by length parents come first.
        for name in sorted(nodes, key=len):
            node = nodes[name]
            if name != origin:
                node.cover = nodes[name[1 + name[0] :]].cover
            if node.cover is None and (
                DNAME in node.rrsets or (NS in node.rrsets and name != origin)
            ):
                node.cover = node
