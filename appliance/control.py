"""How commands speak to a running appliance: one request, and its answers as they come.

Imports the standard library; the settings are read to find the socket.
"""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Iterator
from typing import Any

from appliance.commands import FAILED, MISUSED, complain, config_path, settings_arguments


class ControlError(Exception):
    """The appliance cannot be asked, or refuses; the text says why."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that every such command takes."""
    settings_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each answer")


def ask(options: argparse.Namespace, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Send `request` to the appliance of the settings; yields its answers.

    Raises ControlError.
    """
    from appliance.config import ConfigError, load

    path = config_path(options)
    if path is None:
        raise ControlError("")
    try:
        where = load(path).control.socket
    except ConfigError as exc:
        raise ControlError(str(exc.problems[0])) from exc
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        try:
            link.connect(str(where))
        except PermissionError:
            raise ControlError(f"{where} belongs to somebody else: run as its owner") from None
        except OSError:
            raise ControlError(f"no appliance listens on {where} (is it running?)") from None
        for answer in _answers(link, request, str(where)):
            if "error" in answer:
                raise ControlError(answer["error"])
            yield answer


def _answers(link: socket.socket, request: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """What comes back, as long as somebody is there; ControlError."""
    try:
        link.sendall(json.dumps(request).encode() + b"\n")
        with link.makefile("rb") as lines:
            for line in lines:
                yield json.loads(line)
    except (OSError, ValueError):  # a line that was cut off is no JSON
        raise ControlError(f"the appliance on {where} has ended meanwhile") from None


def failed(error: ControlError) -> int:
    """Tell the error; the command's status."""
    if str(error):
        complain(str(error))
        return FAILED
    return MISUSED
