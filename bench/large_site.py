"""A large site: 20,000 pages and 500 MB, made from a fixed seed, and how long it takes to load.

    python -m bench.large_site DIR      makes DIR if it is not there, loads it cold and warm

Pages are Markdown of 2 to 6 KB in forty sections, with headings, lists, tables and code; the rest
of the octets are pictures, of random octets like any well-packed picture. Loading is measured in a
process of its own each time, as a start is: wall time, and processor time with that of children.
"""

from __future__ import annotations

import gc
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

PAGES, SECTIONS, OCTETS = 20_000, 40, 500_000_000
_SEED = 2013
_WORDS = (
    "packet", "window", "segment", "round", "trip", "queue", "timer", "zone", "record", "name",
    "answer", "cache", "header", "field", "stream", "frame", "octet", "buffer", "server", "client",
    "network", "address", "route", "link", "path", "loss", "order", "clock",
)  # fmt: skip


def _sentence(chance: random.Random) -> str:
    return " ".join(chance.choices(_WORDS, k=chance.randint(6, 16))).capitalize() + "."


def _page(number: int, chance: random.Random) -> str:
    parts = [f"---\ntitle: Page {number} about {chance.choice(_WORDS)}\n"]
    parts.append(f"date: {2000 + number % 25}-{number % 12 + 1:02d}-{number % 28 + 1:02d}\n")
    parts.append(f"summary: {_sentence(chance)}\n---\n")
    for _ in range(chance.randint(3, 8)):
        parts.append(f"\n## {_sentence(chance)}\n\n")
        parts.append(" ".join(_sentence(chance) for _ in range(chance.randint(3, 7))) + "\n")
    parts.append("\n" + "".join(f"- **{w}**: {_sentence(chance)}\n" for w in _WORDS[:4]))
    if number % 5 == 0:
        parts.append("\n```python\ndef f(x: int) -> int:\n    return x + 1\n```\n")
    if number % 7 == 0:
        parts.append("\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    return "".join(parts)


def write(root: Path) -> None:
    """Make the site."""
    chance = random.Random(_SEED)
    written = 0
    for number in range(PAGES):
        folder = root / f"s{number % SECTIONS}"
        if number < SECTIONS:
            folder.mkdir(parents=True)
            (folder / "index.md").write_text(f"---\ntitle: Section {number}\n---\nPages.\n")
        text = _page(number, chance)
        written += len(text)
        (folder / f"page-{number}.md").write_text(text)
    (root / "pictures").mkdir()
    picture = 0
    while written < OCTETS:
        octets = chance.randbytes(chance.randint(50_000, 350_000))
        (root / "pictures" / f"{picture}.jpg").write_bytes(octets)
        written += len(octets)
        picture += 1


def _load(root: Path, cache: Path) -> None:
    """Load once, in this process, and say how long it took."""
    from appliance.http import load_site

    gc.disable()  # as `appliance serve` does until it serves
    began = time.monotonic()
    loaded = load_site(root, "http://example.org", title="Large", cache=cache)
    wall = time.monotonic() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(usage.ru_utime + usage.ru_stime for usage in used)
    print(
        f"{wall:6.1f} s, {processor:6.1f} s of processor, {used[0].ru_maxrss / 1024:,.0f} MB, "
        f"{loaded.pages} pages, {loaded.files} files, {loaded.octets / 1e6:,.0f} MB served, "
        f"{len(loaded.problems)} problems",
        flush=True,
    )


def main() -> None:
    """Make, load cold, load warm twice."""
    if sys.argv[1] == "--load":
        _load(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    root = Path(sys.argv[1])
    if not root.exists():
        write(root)
    cache = root.parent / f"{root.name}-cache"
    shutil.rmtree(cache, ignore_errors=True)
    for name in ("cold", "warm", "warm"):
        print(f"{name}: ", end="", flush=True)
        command = [sys.executable, "-m", "bench.large_site", "--load", str(root), str(cache)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
