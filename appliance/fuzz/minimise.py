"""Keep of many inputs the fewest and shortest that reach what all of them reach.

    python -m appliance.fuzz.minimise TARGET FROM INTO

Reaching is measured in arcs (from one line to the next) of the rooms that are tried, by Python's
own tracing, from a target that is new for each input. Inputs are taken shortest first, and kept
when they bring an arc; then each is tried without. The corpora of this package were made this way,
of what `guided` had found. Imports `targets`.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any, Final

from appliance.fuzz.targets import TARGETS, Target

_ROOMS: Final = ("/appliance/net/", "/appliance/dns/", "/appliance/http/", "/appliance/tls/")

Arc = tuple[str, int, int]


def arcs(target: Target, data: bytes) -> set[Arc]:
    """The arcs that an input takes through the code that is tried."""
    taken: set[Arc] = set()
    last: dict[int, int] = {}

    def within(frame: FrameType, event: str, _: Any) -> Any:
        name, line = frame.f_code.co_filename, frame.f_lineno
        if event == "line":
            taken.add((name, last.get(id(frame), 0), line))
            last[id(frame)] = line
        return within

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        if any(room in frame.f_code.co_filename for room in _ROOMS):
            last[id(frame)] = 0
            return within
        return None

    target.renew()
    sys.settrace(enter)
    try:
        target.try_one(data)
    finally:
        sys.settrace(None)
    return taken


def minimise(target: Target, inputs: list[bytes]) -> list[bytes]:
    """Choose from `inputs`."""
    reached: set[Arc] = set()
    kept: list[tuple[bytes, set[Arc]]] = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        taken = arcs(target, data)
        if not taken <= reached:
            reached |= taken
            kept.append((data, taken))
    # What came early for its shortness may be covered by what came later.
    at = 0
    while at < len(kept):
        others = set().union(*(taken for n, (_, taken) in enumerate(kept) if n != at))
        if kept[at][1] <= others:
            del kept[at]
        else:
            at += 1
    return [data for data, _ in kept]


def main(words: list[str]) -> None:
    """Read a folder of inputs and write the chosen ones into another."""
    name, source, into = words[0], Path(words[1]), Path(words[2])
    inputs = [path.read_bytes() for path in source.iterdir() if path.is_file()]
    chosen = minimise(TARGETS[name](), inputs)
    into.mkdir(parents=True, exist_ok=True)
    for data in chosen:
        (into / f"{sha256(data).hexdigest()[:12]}.bin").write_bytes(data)
    sys.stdout.write(f"{name}: {len(chosen)} of {len(inputs)} inputs kept\n")


if __name__ == "__main__":
    main(sys.argv[1:])
