"""What a container of the Dockerfile begins with: `serve` on all its addresses, or another command.

    python -m appliance.image.entry [COMMAND] [WORDS...]

Words alone are those of `serve`, as `--link tap:om0`; a command before them is that one instead, as
`check`; `--help` and `--version` are of the appliance as a whole. Which of the host's ports lead to
the container is said when it is run, so the gateway listens on all addresses unless --bind names
one. Imports the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

ANYWHERE: Final = ("--bind", "0.0.0.0")  # noqa: S104 - of a container, which has a network to itself
WHOLE: Final = frozenset({"-h", "--help", "--version"})
"""Options that are of no command."""


def command(words: Sequence[str]) -> list[str]:
    """The words of a container as those of the command line."""
    first, *rest = words or ("serve",)
    if first in WHOLE or not first.startswith("-"):
        return ["serve", *ANYWHERE, *rest] if first == "serve" else [first, *rest]
    return ["serve", *ANYWHERE, first, *rest]


if __name__ == "__main__":
    from appliance.cli import main

    sys.exit(main(command(sys.argv[1:])))
