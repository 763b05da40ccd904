"""Namespaces, cables and child processes: the laboratory, taken down again whatever happens.

Used by the benchmark and by the interop tests. Everything made here carries a name of its own and
belongs to the `ExitStack` of the caller; nothing on the host outside these namespaces changes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Debian's package for each program that the laboratory drives.
PACKAGES = {
    "chromium": "chromium",
    "curl": "curl",
    "dig": "bind9-dnsutils",
    "dnsmasq": "dnsmasq-base",
    "dnsperf": "dnsperf",
    "ip": "iproute2",
    "h2load": "nghttp2-client",
    "nginx": "nginx-light",
    "nsd": "nsd",
    "ping": "iputils-ping",
    "radvd": "radvd",
    "setpriv": "util-linux",
    "sysctl": "procps",
    "taskset": "util-linux",
    "tshark": "tshark",
    "wrk": "wrk",
}
_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")  # µs in one unit of /proc/PID/stat
_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
_STOP_SECONDS = 10.0  # a server has this long to leave on SIGTERM, then it is killed


class LabError(RuntimeError):
    """Something outside the appliance is missing or went wrong; the message says what to do."""


def missing(programs: list[str]) -> str:
    """Say why the laboratory cannot open with these programs, or return an empty string."""
    if os.geteuid() != 0:
        return "needs root: it opens network namespaces and a tap"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun: modprobe tun"
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        wanted = " ".join(sorted({PACKAGES[program] for program in absent}))
        return f"needs {', '.join(absent)}: apt-get install {wanted}"
    return ""


def run(*command: str, timeout: float = 60.0) -> str:
    """Run a command and return what it prints; `LabError` with its words when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end within {timeout:g} s: {' '.join(command)}") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-2000:]
        raise LabError(f"exit {done.returncode}: {' '.join(command)}\n{words}")
    return done.stdout


@dataclass(frozen=True)
class Namespace:
    """A network namespace with a name; made by `namespace()`."""

    name: str

    def command(self, *command: str) -> list[str]:
        """Return the command that runs this one inside the namespace, in the same process."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """Run a command inside the namespace and return what it prints."""
        return run(*self.command(*command), timeout=timeout)

    def tap(self, device: str, cidr: str) -> None:
        """Make a persistent tap whose kernel side has this address; it dies with the namespace."""
        run("ip", "-n", self.name, "tuntap", "add", "dev", device, "mode", "tap", "vnet_hdr")
        self.address(device, cidr)

    def address(self, device: str, cidr: str) -> None:
        """Give a device an address and bring it up."""
        run("ip", "-n", self.name, "address", "add", cidr, "dev", device)
        run("ip", "-n", self.name, "link", "set", device, "up")


@contextmanager
def namespace(suffix: str) -> Iterator[Namespace]:
    """Open a network namespace, named after this process, and delete it at the end."""
    here = Namespace(f"appliance-{os.getpid()}-{suffix}")
    try:  # an interrupt may come while the namespace is being made
        run("ip", "netns", "add", here.name)
        run("ip", "-n", here.name, "link", "set", "lo", "up")
        yield here
    finally:
        subprocess.run(["ip", "netns", "delete", here.name], stderr=subprocess.DEVNULL, check=False)


def veth(left: Namespace, left_cidr: str, right: Namespace, right_cidr: str) -> None:
    """Join two namespaces by a cable, `veth0` on either side."""
    run(
        *("ip", "-n", left.name, "link", "add", "veth0", "type", "veth"),
        *("peer", "name", "veth0", "netns", right.name),
    )
    left.address("veth0", left_cidr)
    right.address("veth0", right_cidr)


@contextmanager
def workspace(octets: int) -> Iterator[Path]:
    """Open a folder in memory with room for this many octets, and delete it at the end."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * octets
    with tempfile.TemporaryDirectory(prefix="appliance-", dir=memory if roomy else None) as folder:
        yield Path(folder)


class Server:
    """A server process and its children: processor time, resident memory, and a certain end."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        """Watch a process that was started already, its output going to `log`."""
        self.name = name
        self.process = process
        self.log = log

    def pids(self) -> list[int]:
        """Return the process and all its living descendants."""
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found.extend(int(child) for child in task.read_text().split())
        return found

    def cpu_us(self) -> int:
        """Return user and system time used so far, in µs, with living and dead descendants."""
        ticks = 0
        for pid in self.pids():
            # proc(5): utime, stime, cutime, cstime are fields 14 to 17; the name may hold blanks.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
        return ticks * _TICK_US

    def rss_kb(self) -> int:
        """Return resident memory in KB, descendants included."""
        return sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_KB for pid in self.pids()
        )

    def words(self) -> str:
        """Return the end of what the server printed."""
        return self.log.read_text(errors="replace")[-3000:].strip()

    def wait(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready()`; `LabError` with the server's words if it dies or takes longer."""
        end = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None:
                raise LabError(f"{self.name} left with {self.process.returncode}:\n{self.words()}")
            if time.monotonic() > end:
                raise LabError(f"{self.name} does not answer after {seconds:g} s:\n{self.words()}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Ask the server to leave, kill it and its children if it does not, return its status."""
        family = self.pids()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in family:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return self.process.wait(_STOP_SECONDS)


@contextmanager
def serve(
    name: str, command: list[str], folder: Path, *, env: dict[str, str] | None = None
) -> Iterator[Server]:
    """Start a server in the foreground, and see that it is gone at the end.

    It gets a session of its own, so that Ctrl-C reaches only this process, which then stops it.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=None if env is None else os.environ | env,
        )
    server = Server(name, process, log)
    try:
        yield server
    finally:
        server.stop()
