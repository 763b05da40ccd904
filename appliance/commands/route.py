"""`appliance route`: the addresses, routes and offered resolvers of the running appliance."""

from __future__ import annotations

import argparse
import json

from appliance import control
from appliance.commands import OK, say


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    control.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Show addresses, then routes, then resolvers that the network offers."""
    try:
        for row in control.ask(options, {"do": "route"}):
            if options.json:
                say(json.dumps(row))
            elif row["kind"] == "address":
                old = ", deprecated" if row["deprecated"] else ""
                say(f"address {row['address']} on {row['link']} ({row['origin']}{old})")
            elif row["kind"] == "resolver":
                say(f"resolver {row['address']} on {row['link']}")
            else:
                via = f" via {row['via']}" if row["via"] else ""
                dead = "" if row["alive"] else ", does not answer"
                say(f"route   {row['to']}{via} on {row['link']} ({row['origin']}{dead})")
    except control.ControlError as error:
        return control.failed(error)
    return OK
