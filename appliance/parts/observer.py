"""What there is to be seen of a running appliance: numbers of now, and of the last minutes.

Prometheus asks for the counters, through its own client library; the dashboard asks for rates,
connections, pages, names and errors. Reading them is bounded whatever the number of connections.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from appliance import __version__
from appliance.dns.counters import TRANSPORTS
from appliance.net.tcp import Connection
from appliance.net.tcp_info import snapshot

if TYPE_CHECKING:
    from appliance.http import HttpServer
    from appliance.net.transport import Stack
    from appliance.parts.certificates import Certificates
    from appliance.parts.taster import Taster

SECONDS: Final = 180
"""Seconds that are remembered, one sample each: some 100 KB."""
CONNECTIONS: Final = 200
"""Connections that are looked at for one picture: 20 µs each."""
ROWS: Final = 15
"""Rows of a table of pages or names."""
WATCHED: Final = 10.0
"""Seconds after which nobody is thought to look at the dashboard any more."""
SET: Final = 2.0
"""Seconds by which a clock has been set: what it gains or loses by itself shows as no restart."""

Sample = dict[str, float]
Counts = dict[str, dict[str, float]]


class Observer:
    """Reads counters, and keeps samples of them."""

    def __init__(self, stack: Stack, http: list[HttpServer], dns: Any, taster: Taster) -> None:
        """`http` is read anew each time; `dns` are the counters of the DNS room."""
        self.certificates: Callable[[], Certificates | None] = lambda: None
        self.others: Callable[[], Iterable[Counts]] = lambda: ()
        """What other workers of the same host have counted, by room."""
        self._stack = stack
        self._http = http
        self._dns = dns
        self._taster = taster
        self._began = time.time()
        self._began_at = time.monotonic()  # the clock may be set: of a machine, soon after the boot
        self._asked = -WATCHED
        self._samples: deque[Sample] = deque(maxlen=SECONDS)
        self._registry: Any = None
        self.draining = False

    # -- once a second ------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Take a sample; `now` in monotonic seconds."""
        self._taster.tick()
        http = self.http()
        dns = self._all("dns", self._dns.as_dict())
        times = os.times()
        others = self._all("process", {})
        sample: Sample = {
            "time": time.time(),
            "bytes": float(http["body_bytes"]),
            "connections": float(http["connections"]),
            "dns": float(sum(dns[f"{kind}_queries"] for kind in TRANSPORTS)),
            "cpu": times.user + times.system + others.get("cpu", 0.0),
        }
        for status in "2345":
            key = f"status_{status}"
            sample[f"{status}xx"] = float(sum(n for k, n in http.items() if k.startswith(key)))
        for kind in TRANSPORTS:
            sample[f"dns_{kind}"] = float(dns[f"{kind}_queries"])
        if now - self._asked < WATCHED:
            found = self.connections(now)
            for name in ("rtt", "cwnd"):
                values = sorted(row[name] for row in found if row["rtt"])
                if values:
                    sample[f"{name}_median"] = values[len(values) // 2]
                    sample[f"{name}_high"] = values[len(values) * 9 // 10]
        self._samples.append(sample)

    def http(self) -> dict[str, float]:
        """The counters of all web listeners, added up."""
        total: dict[str, float] = {"body_bytes": 0, "connections": 0}
        for server in self._http:
            for name, value in server.counters().items():
                total[name] = total.get(name, 0) + value
        return self._all("http", total)

    def _all(self, room: str, ours: Mapping[str, float]) -> dict[str, float]:
        """What all workers have counted together."""
        total = dict(ours)
        for other in self.others():
            for name, value in other.get(room, {}).items():
                total[name] = total.get(name, 0) + value
        return total

    def connections(self, now: float) -> list[dict[str, Any]]:
        """Some of the TCP connections, evenly chosen: RTT in ms, cwnd in segments, and more."""
        flows = self._stack.host.tcp.flows
        step = max(len(flows) // CONNECTIONS, 1)
        rows = []
        for flow in list(islice(flows.values(), 0, CONNECTIONS * step, step)):
            if isinstance(flow, Connection):
                info = snapshot(flow, now)
                rows.append(
                    {
                        "peer": f"{flow.remote[0]}:{flow.remote[1]}",
                        "port": flow.local[1],
                        "rtt": info.tcpi_rtt / 1000,
                        "min_rtt": info.tcpi_min_rtt / 1000,
                        "cwnd": info.tcpi_snd_cwnd,
                        "unacked": info.tcpi_unacked,
                        "retrans": info.tcpi_total_retrans,
                        "sent": info.tcpi_bytes_acked,
                        "recovering": info.tcpi_ca_state > 1,
                    }
                )
        return rows

    # -- for the dashboard --------------------------------------------------------------------

    def status(self, now: float) -> bytes:
        """Everything the dashboard shows, as JSON."""
        self._asked = now
        from appliance.parts.taster import shown

        pages: dict[str, int] = {}
        errors = []
        for server in self._http:
            for path, count in server.tally.pages.most_common(ROWS):
                name = path.decode("utf-8", "replace")
                pages[name] = pages.get(name, 0) + count
            errors += [error._asdict() for error in server.tally.errors]
        errors.sort(key=lambda error: -error["time"])
        names = [(*shown(key), count) for key, count in self._taster.names.most_common(ROWS)]
        found = self.connections(now)
        found.sort(key=lambda row: -row["sent"])
        answer = {
            "version": __version__,
            "uptime": now - self._began_at,
            "draining": self.draining,
            "memory": resident() + self._all("process", {}).get("memory", 0),
            "samples": list(self._samples),
            "connections": found,
            "pages": sorted(pages.items(), key=lambda pair: -pair[1])[:ROWS],
            "names": names,
            "errors": errors[: ROWS * 2],
            "http": self.http(),
        }
        return json.dumps(answer, separators=(",", ":")).encode()

    # -- for Prometheus -----------------------------------------------------------------------

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its media type."""
        prometheus = _prometheus()
        if self._registry is None:
            self._registry = prometheus.CollectorRegistry()
            self._registry.register(self)
            prometheus.ProcessCollector(registry=self._registry)
        text: bytes = prometheus.generate_latest(self._registry)
        return text, prometheus.CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Any]:
        """prometheus_client's interface: the metric families of now."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            InfoMetricFamily,
        )

        def counter(name: str, text: str, values: Iterable[tuple[str, float]], label: str) -> Any:
            family = CounterMetricFamily(f"appliance_{name}", text, labels=[label])
            for key, value in values:
                family.add_metric([key], value)
            return family

        http = self.http()
        yield InfoMetricFamily("appliance", "The program.", value={"version": __version__})
        began = time.time() - (time.monotonic() - self._began_at)
        if abs(began - self._began) > SET:
            self._began = began
        yield GaugeMetricFamily("appliance_start_time_seconds", "When it began.", self._began)
        yield counter(
            "http_responses", "Responses by status.",
            [(k[7:], v) for k, v in http.items() if k.startswith("status_")], "status",
        )  # fmt: skip
        versions: dict[str, float] = {}
        for server in self._http:
            for version, count in server.tally.versions.items():
                versions[version] = versions.get(version, 0) + count
        versions = self._all("versions", versions)
        yield counter("http_requests", "Requests by version.", versions.items(), "version")
        yield CounterMetricFamily(
            "appliance_http_body_bytes", "Octets of bodies sent.", http["body_bytes"]
        )
        yield GaugeMetricFamily(
            "appliance_http_connections", "Connections open.", http["connections"]
        )
        yield counter(
            "http_events", "What else happened to connections, requests and files.",
            [(k, v) for k, v in http.items() if k in _EVENTS], "event",
        )  # fmt: skip
        dns = self._all("dns", self._dns.as_dict())
        for prefix, name, label in _DNS:
            values = [(k.removeprefix(prefix), v) for k, v in dns.items() if k.startswith(prefix)]
            yield counter(name, f"DNS messages by {label}.", values, label)
        asked = [(kind, dns.pop(f"{kind}_queries")) for kind in TRANSPORTS]
        yield counter("dns_queries", "DNS messages received by transport.", asked, "transport")
        rest = [(k, v) for k, v in dns.items() if not k.startswith(tuple(p for p, _, _ in _DNS))]
        yield counter("dns_events", "Everything else that DNS counts.", rest, "event")
        yield counter(
            "net_events", "What the TCP/IP stack counts.",
            self._all("net", self._stack.counters.as_dict()).items(), "event",
        )  # fmt: skip
        if (certificates := self.certificates()) is not None:
            yield from self._tls(certificates, counter)
        yield GaugeMetricFamily(
            "appliance_tcp_flows",
            "TCP connections in any state.",
            self._all("process", {"flows": len(self._stack.host.tcp.flows)})["flows"],
        )
        workers = GaugeMetricFamily(
            "appliance_worker_tcp_flows", "TCP connections by worker.", labels=["worker"]
        )
        workers.add_metric(["0"], len(self._stack.host.tcp.flows))
        for other in self.others():
            process = other.get("process", {})
            if "worker" in process:
                workers.add_metric([str(int(process["worker"]))], process["flows"])
        yield workers

    def _tls(self, certificates: Certificates, counter: Callable[..., Any]) -> Iterator[Any]:
        """Handshakes, what became of them, and how long certificates last."""
        from prometheus_client.core import GaugeMetricFamily

        counted = self._all("tls", certificates.counters.as_dict())
        failures = [(k.removeprefix(_FAILED), n) for k, n in counted.items() if k[:8] == _FAILED]
        events = [(name, counted[name]) for name in certificates.counters.events()]
        yield counter(
            "tls_handshakes", "TLS handshakes done, by version.",
            [("1.2", counted["tls12"]), ("1.3", counted["tls13"])], "version",
        )  # fmt: skip
        yield counter("tls_failures", "TLS that failed.", failures, "reason")
        yield counter("tls_events", "What else TLS counts.", events, "event")
        days = GaugeMetricFamily(
            "appliance_tls_certificate_days_left", "Until it expires.", labels=["name"]
        )
        for name, left in certificates.days_left():
            days.add_metric([name], left)
        yield days


_EVENTS: Final = (
    "connections_accepted", "connections_refused", "connections_shed", "timeouts",
    "files_changed", "memo_hits",
)  # fmt: skip
_FAILED: Final = "failed: "
"""Before the reason of a failure, in the counters of TLS."""
_DNS: Final = (
    ("rcode_", "dns_answers", "rcode"),
    ("type_", "dns_questions", "type"),
)


def resident() -> int:
    """Octets of memory that the process has resident; proc(5)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_SERVERS: Final = ("http.server", "socketserver", "ssl", "wsgiref.simple_server")
"""What the library imports for servers of its own, which nobody starts here."""


def _prometheus() -> Any:
    """The library, also where what it would serve with is not there (image/closure.py)."""
    if sys.modules.get("ssl", sys) is not None:
        import prometheus_client

        return prometheus_client
    import urllib.request

    # There when ssl is; the library names it for posts of its own.
    vars(urllib.request).setdefault("HTTPSHandler", None)
    there = {name: sys.modules.get(name) for name in _SERVERS}
    for name in _SERVERS:
        sys.modules[name] = module = types.ModuleType(name)
        module.__getattr__ = lambda kind: type(kind, (), {})  # type: ignore[method-assign]
    try:
        import prometheus_client
    finally:
        for name, before in there.items():
            if before is None and name != "ssl":  # which is None so that nobody imports it
                del sys.modules[name]
            else:
                sys.modules[name] = before  # type: ignore[assignment]
    return prometheus_client
