"""`appliance ping`: echo requests from the running appliance (RFC 792, RFC 4443 §4)."""

from __future__ import annotations

import argparse
import json

from appliance import control
from appliance.commands import FAILED, INTERRUPTED, OK, say


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    control.arguments(parser)
    parser.add_argument("to", metavar="ADDRESS", help="an IPv4 or IPv6 address")
    parser.add_argument("--count", metavar="N", type=int, default=4, help="how many (default: 4)")
    parser.add_argument(
        "--interval", metavar="S", type=float, default=1.0, help="seconds between (default: 1)"
    )
    parser.add_argument(
        "--size", metavar="N", type=int, default=56, help="octets of data (default: 56)"
    )


def run(options: argparse.Namespace) -> int:
    """Ping; status 1 when nobody answers."""
    request = {
        "do": "ping", "to": options.to, "count": options.count,
        "interval": options.interval, "size": options.size,
    }  # fmt: skip
    received = 0
    try:
        for row in control.ask(options, request):
            received = row.get("received", received)
            if options.json:
                say(json.dumps(row))
            elif "ms" in row:
                say(f"{row['size']} octets from {row['from']}: {row['sequence']}, {row['ms']} ms")
            elif "unreachable" in row:
                say(f"from {row['from']}: {row['sequence']}, {row['unreachable']}")
            else:
                say(f"{row['sent']} sent, {row['received']} received")
    except control.ControlError as error:
        return control.failed(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return OK if received else FAILED
