#!/python/bin/python3 -IS
"""PID 1 of an image, and the only program in it.

Runs the appliance, starts it again when it fails, a bounded number of times and with the reason on
the console, and turns the machine off when it has ended. Nothing here may raise: the kernel panics
when PID 1 ends.
"""

import gc
import sys

RESTARTS = 5
"""Failures within `WINDOW` seconds that are answered by another start; the next one ends it."""
WINDOW = 60.0

gc.disable()  # nothing made while starting is garbage; the appliance turns it on when it serves
# asyncio imports ssl, if it can, for transports over sockets, of which there are none here: ours
# has a TLS of its own. hashlib has digests of its own. That is 5 MB of OpenSSL less in an image.
sys.modules["ssl"] = sys.modules["_hashlib"] = None  # type: ignore[assignment]


def main() -> None:
    """Run, again if need be, and end the machine."""
    from appliance.image.guest import machine, made

    made.lend()  # before anything is imported that compiles
    machine.begin()
    failures: list[float] = []
    while True:
        try:
            from appliance.image.guest.boot import run

            status = run(sys.argv[1:])
            break
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            break
        except BaseException as error:
            status = 70  # EX_SOFTWARE of sysexits.h
            failures = machine.remember_failure(failures, error, WINDOW)
            if len(failures) > RESTARTS:
                machine.say(f"init: failed {len(failures)} times within {WINDOW:.0f} s; giving up")
                break
            machine.say(f"init: starting again ({len(failures)} of {RESTARTS})")
    machine.end(status)


main()
