"""A libvirt of its own, in namespaces, runs what `appliance run --target libvirt` prints.

Nothing of the host's libvirt is seen or touched: its folders are hidden below empty ones. Needs
root, libvirtd, and libvirt-python (Debian's python3-libvirt will do, run by Debian's Python).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image import machines

ROOT = Path(__file__).parents[2]
DOMAIN = Path(__file__).with_name("domain.py")
PROGRAMS = {
    "libvirtd": "libvirt-daemon-system libvirt-daemon-driver-qemu",
    "ip": "iproute2", "curl": "curl", "dig": "bind9-dnsutils", "unshare": "util-linux",
}  # fmt: skip
STEPS = [
    "define",
    "start",
    "serve",
    "serve all",
    "suspend",
    "resume",
    "save",
    "restore",
    "shut down",
]


def python_with_libvirt() -> str:
    """An interpreter that can import libvirt; empty when there is none."""
    for program in (sys.executable, "/usr/bin/python3"):
        tried = subprocess.run([program, "-c", "import libvirt"], capture_output=True)
        if tried.returncode == 0:
            return program
    return ""


def console(folder: Path) -> str:
    """What the machine said."""
    log = folder / "console.log"
    return log.read_text(errors="replace") if log.exists() else ""


@pytest.mark.interop
def test_a_domain_lives_a_whole_life(plain: Path, project: Path, tmp_path: Path) -> None:
    absent = [package for name, package in PROGRAMS.items() if not shutil.which(name)]
    python = python_with_libvirt()
    if not python:
        absent.append("python3-libvirt")
    reason = "needs root" if os.geteuid() else ""
    if absent:
        reason = f"apt-get install --no-install-recommends {' '.join(absent)}"
    if reason:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    # The project holds the image that was built last; what is printed names it.
    shutil.copytree(plain, project / "build" / "image" / "qemu", dirs_exist_ok=True)
    words = ["run", "--target", "libvirt", "--print", "--tap", "om0", "--accelerator", "tcg"]
    text = machines.appliance(project, *words)
    (tmp_path / "domain.xml").write_text(text)
    done = subprocess.run(
        ["unshare", "--mount", "--net", python, str(DOMAIN), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr + console(tmp_path)
    told = json.loads((tmp_path / "told.json").read_text())
    assert list(told) == STEPS
    for step in ("serve", "resume", "restore"):
        assert told[step]["page"].startswith("HTTP/1.1 200"), step
        assert told[step]["address"] == "10.0.0.2", step
    assert told["suspend"]["page"] == ""  # it was really stopped
    sys.stdout.write("".join(f"{step}: {told[step]['seconds']:.2f} s\n" for step in STEPS))
