"""What the DNS engine counts: plain integers, read at any time. Imports `consts`."""

from __future__ import annotations

from appliance.dns.consts import RCODE_NAMES


class Counters:
    """One object for a process; it outlives the catalogs that count into it."""

    __slots__ = (
        "dropped",
        "hot",
        "rate_dropped",
        "rate_slipped",
        "rcodes",
        "shaped",
        "slow",
        "tcp_accepted",
        "tcp_garbage",
        "tcp_idle",
        "tcp_queries",
        "tcp_refused",
        "transfers",
        "truncated",
        "udp_queries",
        "warm",
    )

    def __init__(self) -> None:
        """All zero."""
        self.udp_queries = 0
        """Datagrams received."""
        self.tcp_queries = 0
        """Messages received over streams."""
        self.hot = 0
        """Answered NOERROR from what was rendered when the zones were loaded."""
        self.warm = 0
        """Answered from an answer rendered earlier."""
        self.shaped = 0
        """Answered from a rendering shared by many names (NXDOMAIN, wildcards, referrals)."""
        self.slow = 0
        """Decided and rendered for this query."""
        self.dropped = 0
        """Not answered: shorter than a header, or a response (QR set)."""
        self.transfers = 0
        """Zone transfers begun."""
        self.truncated = 0
        """Answered with TC."""
        self.rate_dropped = 0
        self.rate_slipped = 0
        """Answers over the rate limit: not sent, and sent empty with TC."""
        self.rcodes = dict.fromkeys(RCODE_NAMES, 0)
        """Answers by response code, without those counted in `hot`."""
        self.tcp_accepted = 0
        self.tcp_refused = 0
        """Connections over a limit, closed at once."""
        self.tcp_idle = 0
        """Connections closed for idleness."""
        self.tcp_garbage = 0
        """Connections closed for what they sent."""

    def as_dict(self) -> dict[str, int]:
        """Every counter by name; response codes as `rcode_…`, with the hot ones in NOERROR."""
        out = {name: getattr(self, name) for name in self.__slots__ if name != "rcodes"}
        for rcode, name in RCODE_NAMES.items():
            out[f"rcode_{name}"] = self.rcodes[rcode]
        out["rcode_noerror"] += self.hot
        return out
