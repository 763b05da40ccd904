"""What an image serves without OpenSSL, which it leaves out (image/guest/init.py)."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
sys.modules["ssl"] = sys.modules["_hashlib"] = None
from appliance.parts.observer import _prometheus
library = _prometheus()
registry = library.CollectorRegistry()
library.Gauge("tried", "A figure.", registry=registry).set(7)
assert b"tried 7.0" in library.generate_latest(registry)
assert sys.modules["ssl"] is None
"""


def test_metrics_need_no_openssl() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
