"""`appliance fuzz replay`: one side of a recorded conversation against the stack.

Imports `fuzz.replay` when it runs.
"""

from __future__ import annotations

import argparse

from appliance.commands import FAILED, MISUSED, OK, complain, say

_MICRO = 1_000_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.add_argument(
        "capture", metavar="FILE.pcap", help="a capture of Ethernet frames, pcap or pcapng"
    )
    parser.add_argument(
        "--as", dest="side", choices=("server", "client"), default="server",
        help="the side that the stack plays (default: server, who was connected to)",
    )  # fmt: skip
    parser.add_argument(
        "--conversation", type=int, default=1, metavar="N", help="of several, which (default: 1)"
    )
    parser.add_argument("--list", action="store_true", help="tell the conversations and end")
    parser.add_argument("--seed", type=int, default=1, help="of the host's random choices")
    parser.add_argument("-q", "--quiet", action="store_true", help="tell differences and the sum")


def run(options: argparse.Namespace) -> int:
    """Play a conversation; 1 if our side sent other octets or ended in another way."""
    from appliance.fuzz.recorded import ReplayError, conversations
    from appliance.fuzz.replay import Replay

    try:
        found = conversations(options.capture)
        if not found:
            raise ReplayError("no TCP connection begins in it")
        if options.list:
            for number, conversation in enumerate(found, 1):
                say(f"{number}: {conversation}")
            return OK
        if not 1 <= options.conversation <= len(found):
            raise ReplayError(f"it has {len(found)} conversations, not {options.conversation}")
        chosen = found[options.conversation - 1]
        outcome = Replay(chosen, server=options.side == "server", seed=options.seed).play()
    except OSError as error:
        complain(f"fuzz replay: {options.capture}: {error.strerror}")
        return MISUSED
    except ReplayError as error:
        complain(f"fuzz replay: {options.capture}: {error}")
        return MISUSED
    width = max((len(line.recorded) for line in outcome.lines), default=0)
    for line in outcome.lines:
        if not options.quiet or line.mark in "!-+":
            text = f"{line.at / _MICRO:12.6f}  {line.mark}  {line.recorded:<{width}}  {line.ours}"
            say(text.rstrip())
    say(f"{chosen}; {outcome.verdict}")
    say(
        f"{outcome.differences()} differences, {outcome.clamped} acknowledgments of the recorded "
        f"peer were ahead of us"
    )
    return OK if outcome.same_stream else FAILED
