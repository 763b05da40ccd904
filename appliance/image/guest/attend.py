"""The machine's duties once it serves: the power button, the clock, and being woken from a
snapshot.

A machine that was saved and restored has a clock that stopped, peers that have gone, and secrets
that a second copy may share. All of it shows in one place: the hardware clock, which the hypervisor
kept, has run ahead of ours. Imports asyncio and the standard library.
"""

from __future__ import annotations

import asyncio
import fcntl
import glob
import os
import signal
import struct
import time
from typing import Any, Final

from appliance.image.guest import machine

RTC_RD_TIME: Final = 0x80247009
"""linux/rtc.h."""
RNDRESEEDCRNG: Final = 0x5207
"""linux/random.h: make the kernel's generator take in what it has collected."""
EV_KEY, KEY_POWER = 1, 116
"""linux/input-event-codes.h."""
_EVENT: Final = struct.Struct("llHHi")
LOOK: Final = 1.0
"""Seconds between two looks at the hardware clock, which costs one system call."""
AHEAD: Final = 2.0
"""Seconds by which it must be ahead: it ticks in whole ones, and ours is disciplined by nobody."""


async def begin(appliance: Any) -> None:
    """Watch the button and the clock from now on; returns at once."""
    machine.mount_kernel()
    machine.load_modules("later")
    _watch_button()
    try:
        clock = os.open("/dev/rtc0", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # a machine without one
    set_clock(clock)
    _look(clock, appliance, (read_clock(clock), time.monotonic()), corrected=False)


def _watch_button() -> None:
    """Have ACPI's power button end the appliance, as SIGTERM does."""
    loop = asyncio.get_running_loop()
    for path in sorted(glob.glob("/dev/input/event*")):
        button = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        loop.add_reader(button, _pressed, button)


def _pressed(button: int) -> None:
    data = os.read(button, _EVENT.size * 16)
    for _, _, kind, code, value in _EVENT.iter_unpack(data):
        if (kind, code, value) == (EV_KEY, KEY_POWER, 1):
            machine.say("init: the power button was pressed")
            os.kill(os.getpid(), signal.SIGTERM)


def read_clock(clock: int) -> float:
    """The hardware clock, in seconds since the epoch."""
    second, minute, hour, day, month, year, *_ = struct.unpack(
        "9i", fcntl.ioctl(clock, RTC_RD_TIME, bytes(36))
    )
    import calendar

    return float(calendar.timegm((1900 + year, month + 1, day, hour, minute, second)))


def set_clock(clock: int) -> bool:
    """Set our clock by the hardware's if that is ahead or far behind; says whether it was."""
    return _set(read_clock(clock))


def _set(theirs: float, *, aloud: bool = True) -> bool:
    ahead = theirs - time.time()
    # It ticks in whole seconds, so it reads up to one behind what it means.
    if -AHEAD <= ahead <= AHEAD:
        return False
    time.clock_settime(time.CLOCK_REALTIME, theirs + 0.5)
    if aloud:
        machine.say(f"init: the clock was {ahead:+.0f} s away from the machine's; set")
    return True


def _look(clock: int, appliance: Any, before: tuple[float, float], corrected: bool) -> None:
    """Compare the clocks with what they were, in seconds: the hardware's and ours.

    Our clock may well run wrong, measured as it is while a busy host lets an emulated machine wait:
    then it is set again and again, which is said once. What a machine has slept through is missing
    all at once.
    """
    try:
        now = read_clock(clock), time.monotonic()
        slept = (now[0] - before[0]) - (now[1] - before[1]) > AHEAD
        if _set(now[0], aloud=slept) and not (slept or corrected):
            machine.say("init: the clock runs wrong; it is set by the machine's from now on")
            corrected = True
        if slept:
            awake(appliance)
    except OSError as error:
        machine.say(f"init: the machine's clock: {error.strerror}")
        return
    asyncio.get_running_loop().call_later(LOOK, _look, clock, appliance, now, corrected)


def awake(appliance: Any) -> None:
    """Be a machine of its own after a restore: other random numbers, no connections of the past."""
    renew_random()
    ended = 0
    for stack in appliance._stacks:
        host = stack.host
        # What sequence numbers and cookies are keyed with; a second copy of us has the old one.
        host.tcp._secret = os.urandom(len(host.tcp._secret))
        for flow in list(host.tcp.flows.values()):
            if hasattr(flow, "abort"):
                user = flow.user
                flow.abort()
                user.tcp_closed(ConnectionResetError("the machine was restored from a snapshot"))
                ended += 1
        host.flush(time.monotonic())
    machine.say(f"init: restored; {ended} connections of the past were reset")


def renew_random() -> None:
    """Stir what the hypervisor's generator has, if there is one, into the kernel's."""
    fresh = b""
    try:
        source = os.open("/dev/hwrng", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fresh = os.read(source, 64)
        finally:
            os.close(source)
    except OSError:
        pass  # no such device: the processor's own, and the interrupts, have to do
    pool = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(pool, fresh + struct.pack("dd", time.time(), time.monotonic()))
        fcntl.ioctl(pool, RNDRESEEDCRNG)
    finally:
        os.close(pool)
