"""`appliance fuzz`: the loopback harness; a subcommand is a module `appliance.fuzz.cli_NAME`.

Such a module has what a command has: `arguments(parser)` and `run(options)`, which returns 0 when
all is well, 1 when something was found, 2 when it was asked for something that cannot be. It is
imported when its subcommand is named, and not before.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from appliance.commands import MISUSED, complain

SUBCOMMANDS: Final[Mapping[str, str]] = {
    "loopback": "random scenarios between two hosts in virtual time, with oracles",
    "wire": "hostile packets and messages against a live stack",
    "script": "packetdrill scripts in virtual time",
    "replay": "one side of a recorded conversation against the stack",
}
"""Each subcommand, with the line that tells what it is for."""


class _LateParser(argparse.ArgumentParser):
    """A parser that learns its words when it is first used."""

    subcommand = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Ask the module for its words, then parse."""
        if self.subcommand:
            module = importlib.import_module(f"appliance.fuzz.cli_{self.subcommand}")
            self.subcommand = ""
            module.arguments(self)
        return super().parse_known_args(args, namespace)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands."""
    table = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", parser_class=_LateParser)
    for name, purpose in SUBCOMMANDS.items():
        late = table.add_parser(
            name, help=purpose, description=f"{purpose[:1].upper()}{purpose[1:]}."
        )
        late.subcommand = name


def run(options: argparse.Namespace) -> int:
    """Run the subcommand that was named."""
    if options.subcommand is None:
        complain(f"fuzz: say which: {_either(list(SUBCOMMANDS))}")
        return MISUSED
    status: int = importlib.import_module(f"appliance.fuzz.cli_{options.subcommand}").run(options)
    return status


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
