"""What the DNS engine counts: numbers that are read at any time. Imports `consts`, `tally`, and
`text` when the counts are read out: answering needs no names of types.
"""

from __future__ import annotations

from typing import Final

from appliance.dns.consts import RCODE_NAMES
from appliance.dns.tally import Tally

MAX_TYPES: Final = 300
"""Types and classes counted apart: more than are registered; a flood of numbers is `other`."""
_OTHERS: Final = bytes(4)


TRANSPORTS: Final = ("udp", "tcp", "tls", "https")
"""What queries come over; each has a counter, like `udp_queries`."""


class Counters:
    """One object for a process; it outlives the catalogs that count into it."""

    __slots__ = (
        "_kinds",
        "dropped",
        "https_queries",
        "logged",
        "notifies",
        "rate_dropped",
        "rate_slipped",
        "rcodes",
        "shared",
        "slow",
        "tallies",
        "tcp_accepted",
        "tcp_garbage",
        "tcp_idle",
        "tcp_queries",
        "tcp_refused",
        "tls_queries",
        "transfers",
        "transfers_in",
        "truncated",
        "udp",
        "updates",
        "updates_forwarded",
        "warm",
        "zones_expired",
    )

    def __init__(self) -> None:
        """All zero."""
        self.udp = Tally()
        """Datagrams received: `udp_queries`."""
        self.tcp_queries = 0
        """Messages received over streams without TLS."""
        self.tls_queries = 0
        """Messages received over TLS (RFC 7858)."""
        self.https_queries = 0
        """Messages received over HTTPS (RFC 8484)."""
        self.tallies: dict[int, Tally] = {}
        """By type, answers NOERROR from what was rendered when the zones were loaded."""
        self._kinds: dict[bytes, Tally] = {}
        """By type and class as in a question, all other queries."""
        self.warm = 0
        """Answered from an answer rendered earlier."""
        self.shared = Tally()
        """Answered from a rendering shared by many names (NXDOMAIN, wildcards, referrals)."""
        self.slow = 0
        """Decided and rendered for this query."""
        self.dropped = 0
        """Not answered: shorter than a header, or a response (QR set)."""
        self.transfers = 0
        """Zone transfers begun."""
        self.transfers_in = 0
        """Versions of zones taken over from primaries."""
        self.notifies = 0
        """NOTIFY messages taken for news."""
        self.updates = 0
        """UPDATE messages that changed a zone."""
        self.updates_forwarded = 0
        """UPDATE messages handed on to a primary."""
        self.zones_expired = 0
        """Times that a secondary zone outlived its SOA's expire time."""
        self.logged = 0
        """Lines of the query log."""
        self.truncated = 0
        """Answered with TC."""
        self.rate_dropped = 0
        self.rate_slipped = 0
        """Answers over the rate limit: not sent, and sent empty with TC."""
        self.rcodes = [Tally() for _ in range(max(RCODE_NAMES) + 1)]
        """Answers by response code, without those counted in `hot`."""
        self.tcp_accepted = 0
        self.tcp_refused = 0
        """Connections over a limit, closed at once."""
        self.tcp_idle = 0
        """Connections closed for idleness."""
        self.tcp_garbage = 0
        """Connections closed for what they sent."""

    @property
    def udp_queries(self) -> int:
        """Datagrams received."""
        return self.udp.count

    def streamed(self, kind: str, count: int) -> None:
        """Count messages of one stream; `kind` is "tls" for those under it."""
        if kind in ("tls", "tls-queries"):
            self.tls_queries += count
        else:
            self.tcp_queries += count

    @property
    def hot(self) -> int:
        """Answered NOERROR from what was rendered when the zones were loaded."""
        return sum(tally.count for tally in self.tallies.values())

    def kind(self, kind: bytes) -> Tally:
        """What counts questions of a type and class, given as they stand there."""
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= MAX_TYPES:
                kind = _OTHERS
            found = self._kinds.setdefault(kind, Tally())
        return found

    def by_type(self) -> dict[str, int]:
        """Queries understood by the type asked for, as its mnemonic; rare ones as `other`."""
        from appliance.dns.text import type_name  # brings dnspython, which serving does not need

        out: dict[str, int] = {}
        counted = [(qtype, tally.count) for qtype, tally in self.tallies.items()]
        counted += [(int.from_bytes(kind[:2], "big"), n.count) for kind, n in self._kinds.items()]
        for qtype, count in counted:
            name = type_name(qtype) if qtype else "other"
            out[name] = out.get(name, 0) + count
        return {name: count for name, count in sorted(out.items()) if count}

    def as_dict(self) -> dict[str, int]:
        """Every counter by name; response codes as `rcode_…`, with the hot ones in NOERROR."""
        out = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("rcodes", "tallies", "shared", "udp", "_kinds")
        }
        out["udp_queries"] = self.udp.count
        out["shaped"] = self.shared.count
        out["hot"] = self.hot
        for rcode, name in RCODE_NAMES.items():
            out[f"rcode_{name}"] = self.rcodes[rcode].count
        out["rcode_noerror"] += out["hot"]
        for name, count in self.by_type().items():
            out[f"type_{name.lower()}"] = count
        return out
