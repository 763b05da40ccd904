"""What a container of an image is asked for besides serving: `podman run IMAGE check`.

    check [--option value]...   what was wrong, with what the options would put over the settings
    health                      one real query and one real request (image/health.py)
    --version, --help

Words that begin otherwise are settings, and are served with. Imported when something else was said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from appliance import __version__
from appliance.image.guest import machine

HELP: Final = """\
appliance: a whole internet host in one process.

  [serve] [--option value]...   serve the site and the zones that the image holds
  check [--option value]...     say what they are, and what is wrong with the options
  health [HTTP-PORT [DNS-PORT]] end with status 0 if the appliance beside this answers
  --version, --help             say so and end

Options, which stand over the settings that the image holds:"""
MISUSED: Final = 2


def is_asked(words: Sequence[str]) -> bool:
    """Whether words are not of serving."""
    first = words[0]
    return first in ("-h", "--help", "--version") or not (first == "serve" or first[:1] == "-")


def answer(words: Sequence[str], settings: Any, content: Any) -> int:
    """Do what is asked; returns the exit status. Raises StartError."""
    first, *rest = words
    if first == "--version":
        machine.say(f"appliance {__version__}")
    elif first in ("-h", "--help", "help"):
        from appliance.image.guest.overrides import known

        options = "".join(f"\n  {option}" for option in known())
        machine.say(HELP + options)
    elif first == "health":
        from appliance.image.health import main

        return main(rest)
    elif first == "check":
        from appliance.image.guest.overrides import override

        _, content = override(settings, content, rest)
        machine.say(f"{content.summary}; {content.errors} errors")
        return 1 if content.errors else 0
    else:
        machine.say(f"appliance: no such command: {first}; known are serve, check and health")
        return MISUSED
    return 0
