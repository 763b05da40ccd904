"""`python -m bench`: read ROWS, ROUNDS, SECONDS and JSON, open the laboratory, print the table."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from bench import dns_rows, host_rows, http_rows, lab, material, report, rows, tcp_rows, tls_rows

ROWS = rows.ROWS | http_rows.ROWS | dns_rows.ROWS | tcp_rows.ROWS | tls_rows.ROWS | host_rows.ROWS


def _arguments() -> argparse.Namespace:
    """Read the command line; what it leaves out comes from the environment (`make bench`)."""
    value = os.environ.get
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", default=(value("ROWS") or "").split(), metavar="ROW")
    parser.add_argument("--rounds", type=int, default=int(value("ROUNDS") or 5))
    parser.add_argument("--seconds", type=int, default=int(value("SECONDS") or 5))
    parser.add_argument("--json", type=Path, default=value("JSON") or None)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.rows) - set(ROWS))
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; the rows are {' '.join(ROWS)}")
    if arguments.rounds < 1 or arguments.seconds < 1:
        parser.error("rounds and seconds are 1 or more")
    return arguments


def _leave(signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _open(stack: ExitStack, rounds: int, seconds: int) -> rows.Bench:
    """Lay the cables of the package's drawing."""
    folder = stack.enter_context(lab.workspace(material.LARGE))
    client = stack.enter_context(lab.namespace("client"))
    server = stack.enter_context(lab.namespace("server"))
    lab.veth(client, f"{rows.PEER_HOST}/24", server, f"{rows.PEER_ADDRESS}/24")
    client.tap(rows.TAP, f"{rows.OURS_HOST}/24")
    # A new connection for each request uses up a port for a minute each.
    client.run("sysctl", "-q", "net.ipv4.ip_local_port_range=1024 65535")
    processors = sorted(os.sched_getaffinity(0))
    pair = (processors[0], processors[1]) if len(processors) > 1 else (None, None)
    return rows.Bench(client, server, folder, rounds, seconds, *pair)


def main() -> int:
    """Run the rows and return the exit status: 1 when a row failed; the others are printed."""
    arguments = _arguments()
    programs = ["ip", "taskset", "sysctl", "nginx", "nsd", "wrk", "dnsperf", "curl"]
    if reason := lab.missing(programs):
        sys.stderr.write(f"bench: {reason}\n")
        return 1
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even where a shell had it ignored
    names = arguments.rows or list(ROWS)
    results: list[rows.Result] = []
    try:
        with ExitStack() as stack:
            bench = _open(stack, arguments.rounds, arguments.seconds)
            for name in names:
                try:
                    results.append(ROWS[name](bench))
                except lab.LabError as error:
                    sys.stderr.write(f"bench: {name}: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted, everything taken down\n")
        return 130
    print(report.table(results))
    if arguments.json is not None:
        report.write_json(results, Path(arguments.json))
    return 0 if len(results) == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
