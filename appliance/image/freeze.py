"""Site and zones become one file that a booting machine has only to read: run as a program.

    PYTHONPATH=... PYTHONHASHSEED=0 python -S -s -P freeze.py DATE OUT LINK

in a folder with appliance.toml as the build wrote it down, and what it names. DATE (seconds since
the epoch) is every file's date, so the same content gives the same octets whenever it is built.
OUT gets `content.pickle` and `settings.json`. Problems go to standard error; status 1 if one is an
error.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

COMPUTED = ("first",)
"""What settings work out of others, for `appliance.image.guest.overrides` to leave out."""


def plain(value: Any) -> Any:
    """Settings without the library that validated them."""
    if hasattr(type(value), "model_fields"):
        fields = type(value).model_fields
        inner = {name: plain(getattr(value, name)) for name in fields}
        inner |= {name: getattr(value, name) for name in COMPUTED if hasattr(value, name)}
        return SimpleNamespace(**inner)
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, Path) and not value.is_absolute():
        # Keys, journals, sockets: what must not lie in an image. state/dns is /state/dns.
        return Path("/", value) if value.parts[:1] == ("state",) else Path("/state", value)
    return value


def freeze(date: int, out: Path, link: str) -> int:
    """Load, judge, write; the number of errors."""
    from appliance.config import load
    from appliance.content import load_content

    settings = load(Path("appliance.toml"), {"site.directory": "site", "dns.zones": "zones"})
    hosts = [
        host.model_copy(update={"directory": Path("host", host.name)}) for host in settings.host
    ]
    settings = settings.model_copy(update={"host": tuple(hosts)})
    content = load_content(settings, now=date)
    for problem in content.problems:
        sys.stderr.write(f"{problem.severity}: {problem}\n")
    if content.errors:
        return content.errors
    for site in (content.site, *content.others):
        site.origins = {}  # where things were found on the machine that builds
        site.pages = ()
    frozen = plain(settings)
    if link == "pair":
        frozen.net.link, frozen.gateway.bind = link, "0.0.0.0"  # noqa: S104 - of a container
    elif not frozen.net.link.startswith("packet:"):
        frozen.net.link = link
    # What is recorded of every frame would fill the memory of a machine, and its disk.
    frozen.net.host_address = frozen.net.pcap = frozen.net.trace = None
    frozen.net.workers = 1  # as `configure` and `build` say
    # Only cards are in a machine; and one that boots in a second asks nobody for five, unless told.
    frozen.net.more = tuple(one for one in frozen.net.more if one.link.startswith("packet:"))
    for cable in (frozen.net, *frozen.net.more):
        cable.host_address, cable.probe = None, bool(cable.probe)
    object.__setattr__(content, "problems", ())
    data = pickle.dumps((frozen, content), protocol=5)
    for inner in (str(Path.cwd()), *sys.path):
        if inner and inner.encode() in data:
            sys.stderr.write(f"error: {inner} got into what is served\n")
            return 1
    (out / "content.pickle").write_bytes(data)
    (out / "settings.json").write_text(
        json.dumps({"address": list(frozen.net.address), "gateway": list(frozen.net.gateway),
                    "http": frozen.http.port, "dns": frozen.dns.port, "zones": content.zones})
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    if freeze(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]):
        raise SystemExit(1)
