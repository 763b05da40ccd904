"""What hostile octets are tried on: a live host, the name server, the web server, TLS.

A `Target` has seeds, a mutator that knows their structure, and `try_one`, which raises when a rule
is broken: whatever escapes is a finding. The same targets serve the plain mode and the
coverage-guided one. Imports the targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from appliance.fuzz.target import PATIENCE, BrokenRuleError, Target, corpus
from appliance.fuzz.target_frames import Frames
from appliance.fuzz.target_servers import Dns, Http
from appliance.fuzz.target_tls import Tls

__all__ = [
    "PATIENCE", "TARGETS", "BrokenRuleError", "Dns", "Frames", "Http", "Target", "Tls", "corpus",
]  # fmt: skip

TARGETS: Final[Mapping[str, Callable[[], Target]]] = {
    "frames": Frames, "dns": Dns, "http": Http, "tls": Tls,
}  # fmt: skip
