"""What every test shares: Hypothesis without a clock, and reproducible in CI."""

from __future__ import annotations

import os

from hypothesis import settings

# A slow machine is no failure; virtual time is what tests measure.
settings.register_profile("default", deadline=None)
# CI runs the same examples each time; new ones are looked for on people's own machines.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
