"""The machine around the appliance: console, devices, and how it is turned off.

In a container there is no machine: nothing is mounted, and ending is `os._exit`. Linux's calls that
Python lacks (mount, finit_module, reboot) go through ctypes, imported when one is needed. Imports
the standard library.
"""

from __future__ import annotations

import errno
import os
import sys
import time

MODULES = "/lib/modules"
"""The kernel's modules, and their names in order: `order` at once, `later` after the first
answer."""
COLD = "/lib/cold.squashfs"
"""Everything that the first answer can do without, where it has no drive of its own; mounted on
`USR` when it is first wanted."""
MARK = "/lib/machine"
"""What the root of a machine has and a container's has not."""
DRIVE = 2.0
"""Seconds for a drive to appear: its driver is loaded a moment before it is wanted."""
USR = "/usr"
COLD_MODULES = "/usr/lib/python"

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
"""linux/mount.h."""
RB_POWER_OFF, RB_AUTOBOOT = 0x4321FEDC, 0x01234567
"""linux/reboot.h."""
SYS_FINIT_MODULE = 313
"""asm/unistd_64.h."""
LOOP_SET_FD, LOOP_CTL_GET_FREE = 0x4C00, 0x4C82
"""linux/loop.h."""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
"""linux/sockios.h, linux/if.h."""
SEED, STATE, COLD_DRIVE = "appliance_seed", "appliance_state", "appliance_cold"
PROFILE = "appliance_profile"
"""Words of the kernel's command line, which hands them to PID 1 as its environment: the disks with
a seed, the state and the cold part, and whether to print a profile of the boot."""

_once: dict[str, object] = {}
"""What is made or done once: libc, the mount of the cold part."""
_notes: list[tuple[str, float]] = [("interpreter began", time.monotonic())]


def note(what: str) -> None:
    """Remember when the boot came this far, in seconds since the kernel began."""
    _notes.append((what, time.monotonic()))


def tell_notes() -> None:
    """Print the profile of the boot, if it was asked for."""
    if os.environ.get(PROFILE):
        for what, moment in _notes:
            say(f"profile: {moment:.3f} {what}")
    _notes.clear()


def since_boot() -> str:
    """How long the machine has been running; CLOCK_MONOTONIC begins with the kernel."""
    seconds = time.monotonic()
    return f"{seconds:.2f} s after the kernel began"


def memory() -> float:
    """What the kernel manages, in MB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def state_disk() -> str:
    """The device with the state; empty when state is kept in memory."""
    return os.environ.get(STATE, "")


def seed() -> str:
    """The device with a seed; empty when there is none."""
    return os.environ.get(SEED, "")


def say(line: str) -> None:
    """A line for the console."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def one_process(workers: int) -> str:
    """What there is to say of several workers, which are not in an image."""
    return (
        f"warning: workers = {workers} has no effect: an image serves with one process, "
        "since its machine has one processor"
    )


def in_container() -> bool:
    """Whether somebody else made this machine."""
    return not os.path.exists(MARK)


def begin() -> None:
    """Make the console usable and load the kernel's modules, if it has any."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    if in_container():
        return
    sys.meta_path.append(_Cold())  # type: ignore[arg-type]
    load_modules("order")


ABSENT = frozenset({"_scproxy", "_winapi", "java", "msvcrt", "nt", "org", "vms_lib", "winreg"})
"""Modules of other systems, which the library looks for on its way: no reason to mount anything."""


class _Cold:
    """The last finder: a module that is not among the hot ones is in the cold part."""

    def find_spec(self, name: str, path: list[str] | None = None, target: object = None) -> object:
        """Find a module there; the cold part is mounted for the first."""
        if name in ABSENT or not mount_cold():
            return None
        from importlib.machinery import PathFinder

        hot = sys.path[-2]  # .../lib/python3.11, before lib-dynload
        places = [COLD_MODULES] if path is None else [p.replace(hot, COLD_MODULES) for p in path]
        return PathFinder.find_spec(name, places)


def _call(name: str, *arguments: object) -> int:
    """A function of libc; raises OSError."""
    import ctypes

    libc = _once.setdefault("libc", ctypes.CDLL(None, use_errno=True))
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", arguments[0])
    return result


def load_modules(order: str) -> None:
    """Load the kernel's modules of a list; there is none when it has everything built in."""
    if os.path.exists(f"{MODULES}/{order}"):
        with open(f"{MODULES}/{order}", encoding="ascii") as names:
            for name in names.read().split():
                load_module(name)


def load_module(name: str) -> None:
    """Load a module; one that is there already is fine."""
    fd = os.open(f"{MODULES}/{name}.ko", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("syscall", SYS_FINIT_MODULE, fd, b"", 0)
    except FileExistsError:
        pass
    except OSError as error:
        # A driver of what this machine lacks, as KVM's clock under emulation, says so by these.
        if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP):
            say(f"init: module {name}: {error}")
    finally:
        os.close(fd)


def link_up(name: str) -> None:
    """Switch a network interface on: without it a card takes no frame. Raises OSError."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        asked = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
        flags = struct.unpack_from("H", asked, 16)[0] | IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags))


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount a file system; the mount point is made. Raises OSError."""
    os.makedirs(target, exist_ok=True)
    _call("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())


def unmount(target: str) -> None:
    """Take a file system off again; raises OSError."""
    _call("umount2", target.encode(), 0)


def mount_kernel() -> None:
    """/dev, /proc and /sys, as soon as somebody wants them."""
    for source, target in (("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")):
        if not os.path.exists(f"{target}/.") or not _mounted(target):
            try:
                mount(source, target, source, MS_NOSUID | (MS_NOEXEC if target != "/dev" else 0))
            except OSError as error:
                if error.errno != 16:  # EBUSY: mounted already
                    say(f"init: {error}")


def _mounted(target: str) -> bool:
    return os.stat(target).st_dev != os.stat("/").st_dev


def mount_cold() -> bool:
    """Mount what was left out so far, if it is not; says whether it is there."""
    if "cold" in _once:
        return True
    mount_kernel()
    load_modules("later")
    drive = os.environ.get(COLD_DRIVE, "")
    if drive:
        until = time.monotonic() + DRIVE
        while not os.path.exists(drive) and time.monotonic() < until:
            time.sleep(0.01)
        mount(drive, USR, "squashfs", MS_RDONLY | MS_NOSUID | MS_NODEV)
    else:
        _mount_file()
    _once["cold"] = True
    return True


def _mount_file() -> None:
    """Mount the cold part out of a file in memory."""
    import fcntl

    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    os.close(control)
    loop = os.open(f"/dev/loop{number}", os.O_RDONLY | os.O_CLOEXEC)
    file = os.open(COLD, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(loop, LOOP_SET_FD, file)
        mount(f"/dev/loop{number}", USR, "squashfs", MS_RDONLY | MS_NOSUID | MS_NODEV)
    finally:
        os.close(file)
        os.close(loop)


def remember_failure(failures: list[float], error: BaseException, window: float) -> list[float]:
    """Say why the appliance failed; returns the moments of failures within the window."""
    import traceback

    say("init: the appliance failed:")
    say("".join(traceback.format_exception(error)).rstrip())
    now = time.monotonic()
    return [*(moment for moment in failures if now - moment < window), now]


def end(status: int) -> None:
    """End with a status: a container's process, or the machine, which is turned off."""
    if in_container():
        os._exit(status)  # whoever runs it has the status
    say(f"init: ended with status {status}")
    if os.getpid() != 1:
        os._exit(status)
    try:
        mount_kernel()
        from appliance.image.guest import state

        state.unmount()
        os.sync()
        _call("reboot", RB_POWER_OFF)
    except BaseException as error:
        say(f"init: cannot turn the machine off: {error}")
    while True:
        time.sleep(3600)
