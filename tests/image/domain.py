"""One life of a domain under a libvirtd that is started for it; run by test_libvirt.py, as

    unshare --mount --net python3 domain.py FOLDER

FOLDER has domain.xml and gets told.json: what was answered after each step, and how long it took.
Imports the standard library and libvirt.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACES = ("/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt",
          "/etc/libvirt")  # fmt: skip
HOST, GUEST = "10.0.0.1/24", "10.0.0.2"
QEMU = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
"""
PATIENCE = 90.0
"""Seconds for a step; emulated, ten is usual."""


def run(*words: str) -> str:
    """What a program says; empty when it fails."""
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def ask(patience: float = PATIENCE) -> dict[str, str]:
    """What the web and the name server answer, as soon as both do."""
    limit = time.monotonic() + patience
    while True:
        page = run("curl", "-sI", "--max-time", "2", f"http://{GUEST}/").partition("\n")[0]
        query = ("dig", f"@{GUEST}", "openmirage.org", "+short", "+tries=1", "+time=2")
        address = run(*query) if page else ""
        if (page and address) or time.monotonic() > limit:
            return {"page": page.strip(), "address": address}
        time.sleep(0.1)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for somebody else's program."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > limit:
            raise SystemExit(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.05)


def prepare() -> subprocess.Popen[bytes]:
    """Hide the host's libvirt, make a tap, start a libvirtd of our own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for place in PLACES:
        Path(place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    Path("/etc/libvirt/qemu.conf").write_text(QEMU)
    Path("/etc/libvirt/libvirtd.conf").write_text('auth_unix_rw = "none"\n')
    for words in (
        "tuntap add om0 mode tap vnet_hdr", f"address add {HOST} dev om0", "link set om0 up",
    ):  # fmt: skip
        subprocess.run(["ip", *words.split()], check=True)
    daemon = subprocess.Popen(["libvirtd", "-f", "/etc/libvirt/libvirtd.conf"])
    until(Path("/run/libvirt/libvirt-sock").exists, "libvirtd listens")
    return daemon


def live(text: str, console: Path) -> dict[str, dict[str, Any]]:
    """Each step of a domain's life, and what was answered after it."""
    import libvirt

    told: dict[str, dict[str, Any]] = {}

    def step(name: str, do: Callable[[], object], patience: float | None = None) -> None:
        began = time.monotonic()
        do()
        answers = ask(patience) if patience is not None else {}
        told[name] = answers | {"seconds": time.monotonic() - began}
        sys.stderr.write(f"{name}: {told[name]}\n")

    connection = libvirt.open("qemu:///system")
    step("define", lambda: connection.defineXML(text))
    domain = connection.lookupByName("appliance")
    try:
        step("start", domain.create)
        step("serve", lambda: None, PATIENCE)
        step("serve all", lambda: until(lambda: "init: all serve" in console.read_text(), "all"))
        step("suspend", domain.suspend, 1.0)
        step("resume", domain.resume, PATIENCE)
        step("save", domain.managedSave)
        step("restore", domain.create, PATIENCE)

        def shut_down() -> None:
            domain.shutdown()  # the power button, at which somebody has been since "all serve"
            until(lambda: not domain.isActive(), "it shuts down")

        step("shut down", shut_down)
    finally:
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
    return told


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    server = prepare()
    try:
        console = folder / "console.log"
        text = (folder / "domain.xml").read_text()
        # What a pseudoterminal shows has to be read by somebody; a file is.
        for kind in ("serial", "console"):
            text = text.replace(
                f'<{kind} type="pty">', f'<{kind} type="file"><source path="{console}"/>'
            )
        found = live(text, console)
        (folder / "told.json").write_text(json.dumps(found, indent=1))
    finally:
        server.terminate()
        server.wait(20)
