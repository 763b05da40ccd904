"""The fixtures that the package offers to everybody."""

from appliance.fuzz.fixtures import pytest_runtest_makereport, scenario, world

__all__ = ["pytest_runtest_makereport", "scenario", "world"]
