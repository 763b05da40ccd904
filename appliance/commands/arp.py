"""`appliance arp`: the neighbours that the running appliance knows, over ARP and discovery."""

from __future__ import annotations

import argparse
import json

from appliance import control
from appliance.commands import OK, say


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    control.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Show the table."""
    try:
        for row in control.ask(options, {"do": "arp"}):
            if options.json:
                say(json.dumps(row))
                continue
            mac = row["mac"] or "(not known)"
            router = "  router" if row["router"] else ""
            say(f"{row['address']:<40} {mac:<17}  {row['link']:<10} {row['state']}{router}")
    except control.ControlError as error:
        return control.failed(error)
    return OK
