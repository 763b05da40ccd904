"""Compile the modules on the packet path when the package is built with a C compiler at hand.

mypyc turns the typed sources, unchanged, into an extension that sits beside them in the wheel.
Without a compiler, or with `APPLIANCE_COMPILE=0`, the wheel is pure Python: the same, slower.
An editable installation stays pure, so that an edited source is what runs; `APPLIANCE_COMPILE=1`
makes a failure to compile an error, and `APPLIANCE_OPTIMIZE=0` (to 3) tells the C compiler how hard
to try.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The walk of a packet, from the frame to the application and back, and what it is decided by.
COMPILED = (
    "seq", "checksum", "counters", "rtt", "hystart", "congestion", "newreno", "cubic", "flight",
    "rack", "prr", "plpmtud", "sack", "repair", "reassembly", "sendq", "isn", "syn_cookie",
    "syn_budget", "fast_open", "wire/tcp", "agenda", "path", "path6", "tcb", "tcp_output",
    "tcp_timers", "tcp", "syn_queue", "time_wait", "ip",
    "udp", "ephemeral", "upper", "network", "tcp_table", "udp_table", "stack", "vif/tap", "routes",
    "path_mtu", "transport_pause",
)  # fmt: skip
# The way of a plain query.
COMPILED_DNS = ("tally", "cache", "prepared", "quick", "datagrams")
# The walk of a TLS connection, around OpenSSL.
COMPILED_TLS = ("hello", "engine", "outgoing", "stream", "protocol")

_SETUP = """
import sys
from setuptools import setup
from mypyc.build import mypycify

out, level, *sources = sys.argv[1:]
setup(
    name="appliance-compiled",
    script_args=["--quiet", "build_ext", "--build-lib", out, "--build-temp", out + "/temp"],
    packages=[],
    ext_modules=mypycify(
        # The libraries and their types are absent when a wheel is built: `make check` is strict.
        ["--config-file=", "--ignore-missing-imports", *sources],
        target_dir=out + "/c",
        opt_level=level,
    ),
)
"""


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the compiled modules into the wheel."""

    PLUGIN_NAME = "custom"
    _folder: tempfile.TemporaryDirectory[str] | None = None  # what the compiler made

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        wanted = os.environ.get("APPLIANCE_COMPILE", "0" if version == "editable" else "auto")
        if self.target_name != "wheel" or wanted == "0":
            return
        root = Path(self.root)
        sources = [f"appliance/net/{name}.py" for name in COMPILED]
        sources += [f"appliance/dns/{name}.py" for name in COMPILED_DNS]
        sources += [f"appliance/tls/{name}.py" for name in COMPILED_TLS]
        # Gone when the wheel is finished, or with this object when it never is.
        self._folder = tempfile.TemporaryDirectory(prefix="appliance-compiled-")
        out = Path(self._folder.name)
        level = os.environ.get("APPLIANCE_OPTIMIZE", "3")
        result = subprocess.run(  # noqa: S603 - our own interpreter and sources
            [sys.executable, "-c", _SETUP, str(out), level, *sources],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        built = sorted(out.rglob("*.so"))
        if result.returncode or not built:
            self._folder.cleanup()
            reason = (result.stderr or result.stdout).strip().splitlines()[-1:]
            if wanted == "1":
                said = result.stdout + result.stderr
                raise RuntimeError(f"the packet path could not be compiled: {said}")
            self.app.display_warning(f"staying pure Python: {' '.join(reason)}")
            return
        for path in built:
            build_data["force_include"][str(path)] = str(path.relative_to(out))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled: the wheel has it."""
        if self._folder is not None:
            self._folder.cleanup()
