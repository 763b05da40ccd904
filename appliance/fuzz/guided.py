"""Coverage-guided fuzzing of one target, with atheris (`pip install appliance[fuzz]`).

    python -P appliance/fuzz/guided.py TARGET FOLDER [libFuzzer's own options]

A process of its own, and a file rather than a module, since atheris instruments what is imported
after it, and never returns. New inputs
that reach new code go to FOLDER; those of the package's corpus are put there first. The rule that
breaks ends the process with the input in a file, as libFuzzer does.
"""

from __future__ import annotations

import random as random_module
import sys
from hashlib import sha256
from pathlib import Path


def main(words: list[str]) -> None:
    """Fuzz one target until told to stop."""
    import atheris

    with atheris.instrument_imports(
        include=[f"appliance.{room}" for room in ("net", "dns", "http", "tls")]
    ):
        from appliance.fuzz.targets import TARGETS

        # Targets import what they try when they are made.
        target = TARGETS[words[0]]()

    folder = Path(words[1])
    folder.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (folder / sha256(data).hexdigest()[:16]).write_bytes(data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        random = random_module.Random(seed)
        if random.random() < 0.2:
            return bytes(atheris.Mutate(data, most))
        return target.mutate(data, random)[:most]

    def try_one(data: bytes) -> None:
        target.try_one(data)

    atheris.Setup([sys.argv[0], *words[2:], str(folder)], try_one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
