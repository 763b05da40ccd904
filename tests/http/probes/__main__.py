"""Probe ours, nginx and Caddy where they are installed, or any server by address.

python -m tests.http.probes                     a table of all that are here
python -m tests.http.probes --at 192.0.2.1:80   one that serves the site of --write DIR
python -m tests.http.probes --write DIR         make that site
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.http.probes.catalogue import PROBES, Address
from tests.http.probes.material import write_site
from tests.http.probes.servers import PEERS, installed, ours


def main() -> int:
    """Print the table; 1 if ours is wrong anywhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--at", metavar="HOST:PORT", help="probe this server only")
    parser.add_argument("--write", metavar="DIR", type=Path, help="make the site to be probed")
    parser.add_argument("--markdown", action="store_true", help="print rows of a Markdown table")
    parser.add_argument("-k", metavar="WORD", default="", help="probes whose name or area has WORD")
    options = parser.parse_args()
    if options.write:
        write_site(options.write)
        return 0
    with ExitStack() as stack:
        servers: dict[str, Address] = {}
        if options.at:
            host, _, port = options.at.rpartition(":")
            servers[options.at] = (host, int(port))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.chmod(0o755)
            site = write_site(folder / "site")
            servers["ours"] = stack.enter_context(ours(site))
            for name in installed():
                place = folder / name
                place.mkdir()
                servers[name] = stack.enter_context(PEERS[name](site, place))
        return _table(servers, options.k, options.markdown)


def _table(servers: dict[str, Address], word: str, markdown: bool) -> int:
    wrong: Counter[str] = Counter()
    count = 0
    area = ""
    for probe in PROBES:
        if word not in probe.area and word not in probe.name:
            continue
        if probe.area != area and not markdown:
            area = probe.area
            print(f"\n{area:48s}" + "".join(f"{name:24s}" for name in servers))
        count += 1
        cells = []
        for name, address in servers.items():
            found = probe.run(address)
            wrong[name] += bool(found)
            cells.append(found or "yes")
        if markdown:
            print(f"| {probe.area}: {probe.name} | " + " | ".join(cells) + " |", flush=True)
        else:
            row = "".join(f"{cell[:22]:24s}" for cell in cells)
            print(f"  {probe.name[:44]:46s}{row}".rstrip(), flush=True)
    for name in servers:
        print(f"{name}: {count - wrong[name]} of {count} right", file=sys.stderr)
    return 1 if wrong[next(iter(servers))] else 0


if __name__ == "__main__":
    raise SystemExit(main())
