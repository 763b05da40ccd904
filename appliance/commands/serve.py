"""`appliance serve`: serve the site and the zones until a signal ends it."""

from __future__ import annotations

import argparse
import gc
import os
import signal
from pathlib import Path
from typing import Any, Final

from appliance.commands import (
    FAILED,
    MISUSED,
    OK,
    complain,
    config_path,
    overrides,
    say,
    settings_arguments,
)

EPILOG: Final = """\
Without --link the stack runs inside the process and is offered on 127.0.0.1; no privilege needed.
Signals: SIGINT and SIGTERM finish what has begun (a second one does not), SIGHUP loads site and
zones again, SIGUSR1 opens the logs again."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    settings_arguments(parser)
    parser.add_argument(
        "--link",
        metavar="LINK",
        action=_OfLink,
        help="pair, tap:NAME (made if need be) or packet:IFACE; may be repeated, and what follows "
        "(--address, --gateway, --host-address) is of the link before it",
    )
    parser.add_argument(
        "--address",
        metavar="CIDR",
        action=_OfLink,
        help="an address of ours, as 10.0.0.2/24; may be repeated (default: it is found)",
    )
    parser.add_argument("--gateway", metavar="IP", action=_OfLink, help="next hop to elsewhere")
    parser.add_argument(
        "--host-address",
        metavar="CIDR",
        action=_OfLink,
        help="configure the host's side of the tap with this",
    )
    parser.add_argument(
        "--no-probe",
        action="store_const",
        const=False,
        help="use the IPv4 addresses given at once, without asking whether anybody else has them",
    )
    parser.add_argument("--pcap", metavar="FILE", type=Path, help="record every frame")
    parser.add_argument(
        "--trace", metavar="FILE", type=Path, help="what each TCP connection did, for `trace`"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help="processes, each on a queue of the same tap or card (default: 1)",
    )
    parser.add_argument(
        "--bind", metavar="IP", help="offer it on this address, with a pair (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--http-port", metavar="PORT", type=int, help="on 127.0.0.1, with a pair (default: 8080)"
    )
    parser.add_argument(
        "--dns-port", metavar="PORT", type=int, help="on 127.0.0.1, with a pair (default: 5353)"
    )
    parser.add_argument(
        "--watch",
        action="store_const",
        const=True,
        help="load pages and zones again when they change, and the open page with them",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")


class _OfLink(argparse.Action):
    """The first --link and what belongs to it overrides [net]; each further one is a [[net.more]].

    `options.more` has those: a list of tables as the file would have them.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        options: argparse.Namespace,
        value: object,
        option: str | None = None,
    ) -> None:
        name = self.dest
        more: list[dict[str, object]] = getattr(options, "more", None) or []
        if name == "link" and options.link is not None:
            options.more = [*more, {"link": value}]
            return
        of: dict[str, object] = more[-1] if more else vars(options)
        if name in ("address", "gateway"):
            known = of.get(name)
            of[name] = [*known, value] if isinstance(known, list) else [value]
        else:
            of[name] = value


def run(options: argparse.Namespace) -> int:
    """Serve."""
    # PID 1 of a container hears of no signal without a handler; and what is loaded just now need
    # not be loaded again.
    handlers: dict[int, Any] = {signal.SIGTERM: _leave}
    handlers |= dict.fromkeys((signal.SIGHUP, signal.SIGUSR1), signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not as nohup has it
        handlers[signal.SIGINT] = _leave
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        return _serve(options)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _: object) -> None:
    """Handle a signal before the appliance has handlers of its own: nothing is open yet.

    What a handler raises would be lost where a callback happens to run, as imports have them, and
    who pressed Ctrl-C would be served all the same.
    """
    os._exit(128 + number)


def _serve(options: argparse.Namespace) -> int:
    from appliance.config import ConfigError, load

    path = config_path(options)
    if path is None:
        return MISUSED
    try:
        settings = load(path, overrides(options))
    except ConfigError as exc:
        for problem in exc.problems:
            complain(str(problem))
        return MISUSED
    # Nothing made while starting is garbage, and looking for it took a tenth of the time until the
    # banner. The appliance turns the collector on when it serves.
    gc.disable()
    from appliance.app import StartError, run

    if settings.net.workers > 1:
        from appliance.workers import run
    try:
        run(settings, say=say, verbose=options.verbose)
    except StartError as exc:
        complain(str(exc))
        return FAILED
    return OK
