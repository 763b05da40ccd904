"""Containers for tests: podman with a store of its own, in a network namespace of the test's.

Works without an engine that runs, without cgroups of a session and without the internet. Skips with
the reason where root or a program is missing; on CI a missing one is a failure.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.lab import LabError, Namespace

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds for a container to begin; it needs one."""
LIMITS = 'default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'
"""Podman asks for more than a container within a machine may have."""


PACKAGES = {"curl": "curl", "dig": "bind9-dnsutils", "ip": "iproute2"}


def require(*programs: str) -> None:
    """Skip, or fail on CI, without root or one of the programs."""
    absent = [program for program in ("ip", *programs) if shutil.which(program) is None]
    if os.geteuid() == 0 and not absent:
        return
    wanted = " ".join(PACKAGES.get(program, program) for program in absent)
    reason = f"needs {wanted}: apt-get install {wanted}" if absent else "needs root"
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@dataclass(frozen=True)
class Vessels:
    """Where images and containers are kept."""

    folder: Path
    driver: str
    """Of the store: overlay, or vfs, which copies, where overlays cannot be had."""

    def words(self, program: str, *arguments: str) -> list[str]:
        """A command of podman or buildah for this store."""
        made = [program, "--root", str(self.folder / "store"), "--runroot", str(self.folder / "r")]
        made += ["--storage-driver", self.driver]
        if program == "podman":
            made += ["--runtime", "runc", "--cgroup-manager=cgroupfs", "--events-backend=file"]
        return [*made, *arguments]

    def run(self, program: str, *arguments: str, timeout: float = 60.0) -> str:
        """Run podman or buildah; returns what it printed."""
        done = subprocess.run(
            self.words(program, *arguments),
            env=os.environ | {"CONTAINERS_CONF": str(self.folder / "containers.conf")},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def podman(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run podman; returns what it printed."""
        return self.run("podman", *arguments, timeout=timeout)

    def program(self) -> Path:
        """Podman for this store, as a program for others to call."""
        path = self.folder / "podman"
        settings = f"CONTAINERS_CONF={self.folder / 'containers.conf'}"
        path.write_text(f'#!/bin/sh\nexec env {settings} {shlex.join(self.words("podman"))} "$@"\n')
        path.chmod(0o755)
        return path

    def log(self, name: str) -> str:
        """What a container has said so far."""
        done = subprocess.run(
            self.words("podman", "logs", name), capture_output=True, text=True, timeout=30
        )
        return done.stdout + done.stderr

    @contextmanager
    def running(self, space: Namespace, image: str, *options: str) -> Iterator[str]:
        """A container, read-only, in a namespace; `options` of podman, behind `--` the image's."""
        name = "appliance-test"
        ours, theirs = list(options), []
        if "--" in ours:
            at = ours.index("--")
            ours, theirs = ours[:at], ours[at + 1 :]
        self.podman(
            "run", "--detach", "--name", name, "--network", f"ns:/run/netns/{space.name}",
            "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            *ours, image, *theirs,
        )  # fmt: skip
        try:
            yield name
        finally:
            self.podman("rm", "--force", "--volumes", "--time", "1", name)


@contextmanager
def vessels(folder: Path) -> Iterator[Vessels]:
    """A store that is taken away at the end."""
    require("podman", "runc", "curl", "dig")
    folder.mkdir(exist_ok=True)
    (folder / "containers.conf").write_text(f"[containers]\n{LIMITS}")
    made = Vessels(folder, "overlay" if _has_overlays(folder) else "vfs")
    try:
        yield made
    finally:
        subprocess.run(made.words("podman", "rm", "-fa", "-t", "0"), capture_output=True)
        subprocess.run(["umount", "-q", str(folder / "store" / "overlay")], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _has_overlays(folder: Path) -> bool:
    """Whether a store there can have overlays: podman wants none below it, as a container has."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True)
    if kind.stdout.strip() == "overlayfs":
        return False
    trial = folder / "trial"
    options = []
    for name in ("lowerdir", "upperdir", "workdir", "merged"):
        (trial / name).mkdir(parents=True)
        options.append(f"{name}={trial / name}")
    words = ["mount", "-t", "overlay", "overlay", "-o", ",".join(options[:3]), trial / "merged"]
    mounted = subprocess.run(words, stderr=subprocess.DEVNULL).returncode == 0
    if mounted:
        subprocess.run(["umount", trial / "merged"], check=True)
    shutil.rmtree(trial)
    return mounted


def until(condition: Callable[[], bool], why: Callable[[], str] = str) -> None:
    """Wait for another program, which has no virtual clock."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, why()
        time.sleep(0.05)


def page(space: Namespace, url: str) -> str:
    """What curl gets; empty when nobody answers."""
    try:
        return space.run("curl", "-sS", "--max-time", "5", url)
    except LabError:
        return ""


def address(space: Namespace, server: str, port: int = 5353, name: str = "openmirage.org") -> str:
    """What dig gets for a name; empty when nobody answers."""
    try:
        return space.run(
            "dig", f"@{server}", "-p", str(port), name, "+short", "+tries=1", "+time=3"
        ).strip()
    except LabError:
        return ""
