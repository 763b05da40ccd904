"""The loopback harness: hosts and links in virtual time, with faults, oracles and scripts.

    World, Station, Switch, Cable    hosts, switches and cables (`world`)
    Router, RouterPort               routers between networks (`router`)
    Link, Burst                      what a cable does to frames (`link`)

`appliance fuzz` drives it from the command line, `appliance.fuzz.fixtures` from pytest.
"""

from appliance.fuzz.link import Burst, Link
from appliance.fuzz.router import Router, RouterPort
from appliance.fuzz.switch import Switch
from appliance.fuzz.world import Cable, LivelockError, Station, World

__all__ = [
    "Burst", "Cable", "Link", "LivelockError", "Router", "RouterPort", "Station", "Switch", "World",
]  # fmt: skip
