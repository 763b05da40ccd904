"""An image under QEMU: the command, the accelerator, the console, the power button, snapshots.

The network card's frames reach 127.0.0.1 through QEMU's own user-mode network, which needs no
privilege, or a tap that is there already. The guest's exit status is PID 1's last line on the
console; a guest that panics or resets has said none, and is started again a few times. Imports
asyncio, the standard library and this package.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Final

from appliance.files import beside, discard, place_beside
from appliance.image.graph import BuildError
from appliance.image.tools import find
from appliance.links import opposite

PROGRAM: Final = "qemu-system-x86_64"
PROBE: Final = 3.0
"""Seconds that a guest on KVM has for its first word; a working one needs a tenth of one."""
RESTARTS: Final = 3
"""Starts after a panic before it is given up; each has said why on the console."""
SERVING: Final = b"init: all serve"
"""What PID 1 says when there is nothing left to begin."""
QUICK: Final = (
    "rootfstype=ramfs cryptomgr.notests tsc=reliable no_timer_check acpi=noirq mitigations=off"
)
"""Kernel options: the root takes what memory it needs (a tmpfs may have half of what is free before
the initramfs is unpacked, which is less than an image in 128 MB); no tests of what QEMU has; cards'
interrupts by the firmware's table, where ACPI runs a program for each that builds 128 packages (a
tenth of a second, emulated); nothing against programs that spy on others, of which there are none.
"""
EMULATED: Final = "nolapic_timer"
"""When emulated: a timer that needs no two tenths of a second to be measured."""
PROCESSORS: Final = {"kvm": "host", "tcg": "max,la57=off,erms=off"}
"""Emulated: tables of four levels, not five, and copying by words rather than by octets."""
ENDED: Final = re.compile(rb"init: ended with status (\d+)")
"""PID 1's last line: how the guest's exit status comes out, whatever it runs on."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Machine:
    """What is started."""

    image: Path
    """The folder that `appliance build --target qemu` has filled."""
    memory: int = 128
    """MB."""
    forwards: tuple[tuple[str, int, int], ...] = ()
    """Protocol, port of 127.0.0.1, port of the guest."""
    tap: str = ""
    """An interface that is there; empty: the user-mode network."""
    state: Path | None = None
    seed: Path | None = None
    words: tuple[str, ...] = ()
    """For PID 1, as `--address 192.0.2.7/24`."""
    profile: bool = False
    accelerator: str = "tcg"
    loud: bool = False
    """The kernel says everything that it does."""
    extra: tuple[str, ...] = field(default=())
    """Further words for QEMU."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the image says of itself."""
        found: dict[str, Any] = json.loads((self.image / "settings.json").read_text())
        return found

    @property
    def kernel(self) -> Path:
        """The uncompressed kernel if there is one: it starts faster."""
        quick = self.image / "vmlinux"
        return quick if quick.exists() else self.image / "vmlinuz"

    @property
    def cold(self) -> Path:
        """What the first answer can do without, as a drive."""
        return self.image / "cold.squashfs"

    @property
    def drives(self) -> list[Path]:
        """The disks, in the order in which the machine finds them."""
        return [disk for disk in (self.state, self.seed, self.cold) if disk is not None]


def command_line(machine: Machine) -> str:
    """The kernel's command line; what stands behind `--` is PID 1's."""
    words = ["console=ttyS0", "panic=-1", QUICK]
    if machine.accelerator == "tcg":
        words.append(EMULATED)
    words.append("loglevel=7" if machine.loud else "quiet loglevel=4")
    disks = iter("abcd")  # in the order in which `drives` has them
    if machine.state is not None:
        words.append(f"appliance_state=/dev/vd{next(disks)}")
    if machine.seed is not None:
        words.append(f"appliance_seed=/dev/vd{next(disks)}")
    words.append(f"appliance_cold=/dev/vd{next(disks)}")
    if machine.profile:
        words.append("appliance_profile=1")
    if machine.words:
        words += ["--", *machine.words]
    return " ".join(words)


def command(machine: Machine, control: Path | None = None) -> list[str]:
    """QEMU's command."""
    made = [
        find(PROGRAM), "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
        "-machine", f"pc,accel={machine.accelerator},usb=off",
        "-cpu", PROCESSORS[machine.accelerator],
        "-m", str(machine.memory), "-serial", "stdio",
        "-kernel", str(machine.kernel), "-initrd", str(machine.image / "initramfs"),
        "-append", command_line(machine),
        "-device", "vmgenid,guid=auto",
        "-object", "rng-random,id=entropy,filename=/dev/urandom",
        "-device", "virtio-rng-pci,rng=entropy",
        "-netdev", _network(machine), "-device", "virtio-net-pci,netdev=cable,romfile=",
    ]  # fmt: skip
    for disk in machine.drives:
        # What is only read may lie in the host's cache: it is the same for every machine.
        how = "cache=none,readonly=off" if disk == machine.state else "readonly=on"
        file = str(disk).replace(",", ",,")  # QEMU's way of having one in a word of options
        made += ["-drive", f"file={file},format=raw,if=virtio,{how}"]
    if control is not None:
        made += ["-qmp", f"unix:{control},server=on,wait=off"]
    return [*made, *machine.extra]


def _network(machine: Machine) -> str:
    if machine.tap:
        return f"tap,id=cable,ifname={machine.tap},script=no,downscript=no"
    settings = machine.settings
    static = [IPv4Interface(cidr) for cidr in settings["address"] if ":" not in cidr]
    words, address = ["user,id=cable,ipv6=off"], ""  # the one that QEMU's DHCP server lends first
    if static:
        router = opposite(settings["address"], settings["gateway"])
        if router is None:
            raise BuildError(f"the network of {static[0]} has no room for a router: use --tap")
        address = str(static[0].ip)
        network, host = static[0].network, router.partition("/")[0]
        words.append(f"net={network},host={host},dhcpstart={address}")
    for protocol, port, inner in machine.forwards:
        words.append(f"hostfwd={protocol}:127.0.0.1:{port}-{address}:{inner}")
    return ",".join(words)


def accelerator(image: Path, say: Say) -> str:
    """Choose "kvm" if a guest runs on it, or "tcg"; tried once for each boot of this host."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    note = image.parent / "kvm"
    if note.exists():
        known, _, found = note.read_text().strip().partition(" ")
        if known == boot:
            return found
    found = "kvm" if probe(image) else "tcg"
    if found == "tcg":
        say("/dev/kvm is here, but no guest runs on it; emulating")
    with contextlib.suppress(OSError):  # somebody else's folder: tried again the next time
        note.write_text(f"{boot} {found}\n")
    return found


def probe(image: Path) -> bool:
    """Whether a kernel on KVM says its first word before the deadline."""
    kernel = image / "vmlinux" if (image / "vmlinux").exists() else image / "vmlinuz"
    words = [
        find(PROGRAM), "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
        "-machine", "pc,accel=kvm", "-cpu", "host", "-m", "128", "-serial", "stdio",
        "-kernel", str(kernel), "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1",
    ]  # fmt: skip
    with subprocess.Popen(  # noqa: S603 - our own words
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as guest:
        assert guest.stdout is not None
        os.set_blocking(guest.stdout.fileno(), False)
        until = time.monotonic() + PROBE
        said = b""
        while time.monotonic() < until and guest.poll() is None and b"Linux version" not in said:
            said += guest.stdout.read() or b""
            time.sleep(0.02)
        guest.kill()
    return b"Linux version" in said


class Control:
    """QEMU's own interface: commands in JSON over a socket of ours (QMP)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Connect, as soon as QEMU listens; raises OSError when it does not within 5 seconds."""
        until = time.monotonic() + 5.0
        while True:
            try:
                self._reader, self._writer = await asyncio.open_unix_connection(str(self._path))
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.02)
        await self._reader.readline()
        await self.ask("qmp_capabilities")

    async def ask(self, name: str, **arguments: Any) -> Any:
        """Give a command; returns what came back. Raises BuildError when it was refused."""
        assert self._reader is not None
        assert self._writer is not None
        order = {"execute": name} | ({"arguments": arguments} if arguments else {})
        async with self._turn:
            self._writer.write(json.dumps(order).encode() + b"\n")
            await self._writer.drain()
            while line := await self._reader.readline():
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise BuildError(f"QEMU: {answer['error']['desc']}")
        raise BuildError("QEMU has ended")

    def close(self) -> None:
        """Let go of it."""
        if self._writer is not None:
            self._writer.close()


def start(machine: Machine, say: Say, snapshot: Path | None = None) -> int:
    """Run a machine until it ends; see `run`."""
    return asyncio.run(run(machine, say, snapshot))


async def run(machine: Machine, say: Say, snapshot: Path | None = None) -> int:
    """Run a machine until it ends; returns the guest's exit status.

    SIGINT and SIGTERM press its power button; a second one cuts the power. With `snapshot` it is
    restored from there, or saved there once it serves.
    """
    for start in range(RESTARTS + 1):
        if start:
            say(f"the machine panicked or was reset; starting it again ({start} of {RESTARTS})")
        status = await _once(machine, say, snapshot)
        if status is not None:
            return status
    say("the machine does not stay up; the console says why")
    return 1


async def _once(machine: Machine, say: Say, snapshot: Path | None) -> int | None:
    """One life of a machine; None when it ended without a status."""
    with tempfile.TemporaryDirectory() as folder:
        control = Control(Path(folder, "control"))
        words = command(machine, Path(folder, "control"))
        restored = snapshot if snapshot is not None and _usable(snapshot, machine, say) else None
        with contextlib.ExitStack() as opened:
            handed = []
            if restored is not None:
                # The file itself: a pipe would cost as much again as the restoring.
                handed.append(opened.enter_context(restored.open("rb")).fileno())
                words += ["-incoming", f"fd:{handed[0]}"]
            guest = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                start_new_session=True, pass_fds=handed,
            )  # fmt: skip
        buttons = asyncio.create_task(_buttons(control, guest, say, restored is not None))
        saved: asyncio.Task[None] | None = None
        ended: int | None = None
        try:
            assert guest.stdout is not None
            while line := await guest.stdout.readline():
                if found := ENDED.search(line):
                    ended = int(found[1])
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                if SERVING in line and snapshot is not None and restored is None and saved is None:
                    saved = asyncio.create_task(_save(control, machine, snapshot, say))
            status = await guest.wait()
        finally:
            for task in (buttons, saved):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, BuildError, OSError):
                        await task
            control.close()
            if guest.returncode is None:
                guest.kill()
                await guest.wait()
    if status < 0:
        return 128 - status
    if status:
        raise BuildError(f"QEMU ended with status {status}")
    return ended


async def _buttons(
    control: Control, guest: asyncio.subprocess.Process, say: Say, restored: bool
) -> None:
    """Let a restored machine go on; turn signals into the power button, then into a power cut."""
    pressed: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, pressed.put_nowait, int(number))
    try:
        await control.open()
        if restored:
            await _go_on(control)
        await pressed.get()
        say("pressing the power button (again: cutting the power)")
        await control.ask("system_powerdown")
        await pressed.get()
        guest.kill()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _go_on(control: Control) -> None:
    """Start the processors of a machine that was stopped when it was saved.

    What was saved includes that it was stopped, so QEMU restores it as stopped.
    """
    while True:
        about = await control.ask("query-status")
        if about["status"] != "inmigrate":
            break
        await asyncio.sleep(0.005)
    await control.ask("cont")


def _stamp(machine: Machine) -> str:
    """What a saved machine must have been started as, to be restored."""
    parts = []
    for path in (machine.kernel, machine.image / "initramfs"):
        about = path.stat()  # a build never changes a file in place; reading it would take longer
        parts.append(f"{path} {about.st_size} {about.st_mtime_ns} {about.st_ino}")
    parts += [f"{machine.memory} {machine.tap} {machine.accelerator} {command_line(machine)}"]
    parts += [str(machine.state), str(machine.seed), _network(machine), *machine.extra]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _note(snapshot: Path) -> Path:
    return snapshot.with_name(snapshot.name + ".of")


def _usable(snapshot: Path, machine: Machine, say: Say) -> bool:
    if not snapshot.exists():
        return False
    discard(snapshot)
    note = _note(snapshot)
    if note.exists() and note.read_text().strip() == _stamp(machine):
        return True
    say(f"{snapshot} is of another image or machine; it is made again")
    return False


def _keep(fresh: Path, snapshot: Path, machine: Machine) -> int:
    """Put a whole snapshot into its place, with what it is of; returns its octets."""
    fresh.rename(snapshot)
    _note(snapshot).write_text(_stamp(machine) + "\n")
    return snapshot.stat().st_size


async def _save(control: Control, machine: Machine, snapshot: Path, say: Say) -> None:
    """Write the machine's memory and devices down, and let it run on."""
    try:
        with beside(snapshot, wait=False):
            await _save_beside(control, machine, snapshot, say)
    except BlockingIOError:
        say(f"not saved: another machine is being saved as {snapshot}")


async def _save_beside(control: Control, machine: Machine, snapshot: Path, say: Say) -> None:
    began = time.monotonic()
    fresh = place_beside(snapshot)
    await control.ask("stop")
    await control.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 33})
    await control.ask("migrate", uri=f"exec:cat > {shlex.quote(str(fresh))}")
    while True:
        about = await control.ask("query-migrate")
        if about["status"] in ("completed", "failed", "cancelled"):
            break
        await asyncio.sleep(0.02)
    if about["status"] == "completed":
        size = _keep(fresh, snapshot, machine) / 1e6
        say(f"saved as {snapshot} ({size:.0f} MB) in {time.monotonic() - began:.1f} s")
    else:
        say(f"not saved: {about.get('error-desc', about['status'])}")
    await control.ask("cont")


def words_of(line: Sequence[str]) -> str:
    """A command as a person would type it."""
    return shlex.join(line)
