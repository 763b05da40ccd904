"""Batches of super-segments reuse their memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

BATCHES = 20
PAGES = 64 * 16  # of one batch: 64 frames of 64 KB

PROGRAM = f"""
import resource, sys
from appliance.net.vif.heap import keep_batches

def batches(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        frames = [bytes([7]) * 65_000 for _ in range(64)]
        del frames
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_batches()
batches(2)
print(batches({BATCHES}))
"""


def faults(way: str) -> int:
    command = [sys.executable, "-c", PROGRAM, way]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does with its heap")
def test_a_batch_faults_its_pages_in_once() -> None:
    assert faults("given back") > BATCHES * PAGES // 2
    assert faults("kept") < PAGES // 2
