"""What a card and its kernel take off our hands: super-segments are cut by somebody, always."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import pytest

from tests.interop.conftest import ENVIRONMENT, require
from tests.interop.test_lan import cable

OPENS = """
import sys
from appliance.net.vif import packet
if sys.argv[1] == "without":
    packet._has_ip = lambda: False  # as an image's kernel, which has no IP stack
card = packet.open_packet("card0")
print(card.gso_max > 0, card.checksum_offload)
"""


@pytest.mark.parametrize(
    ("kernel", "tso", "cut"),
    [
        ("with", "on", True),
        ("with", "off", True),
        ("without", "on", True),
        ("without", "off", False),
    ],
)
def test_super_segments_go_to_who_cuts_them(kernel: str, tso: str, cut: bool) -> None:
    """QEMU's user network gives a card without TSO: whole pages were lost in such a machine."""
    require("ethtool")
    with ExitStack() as stack:
        house, _ = cable(stack)
        house.run("ethtool", "-K", "card0", "tso", tso)
        environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        said = house.run("env", *environment, sys.executable, "-c", OPENS, kernel)
    assert said.split() == [str(cut), "True"]
