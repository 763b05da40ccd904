"""What a boot puts over the settings of the image: words of the command line, and a seed disk.

    ... -- --address 192.0.2.7/24 --gateway 192.0.2.1     on the kernel's command line
    appliance_seed=/dev/vdb                               a tar archive, written to a disk as it is

A seed may hold `appliance.toml` (only the keys that differ), `site/`, `zones/` and `host/NAME/` for
the site of the `[[host]]` of that name: each replaces the image's, which has the rest. Folders that
the seed's settings name are looked for in the seed. All of it is validated as `appliance serve`
would, which is why this is a module of its own: what validates lies in the cold part of the image.
Imports everything.
"""

from __future__ import annotations

import io
import os
import tarfile
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, Final

from appliance.app import StartError
from appliance.image.guest import machine

SEED: Final = "/tmp/seed"  # noqa: S108 - a machine without users
COMPUTED: Final = frozenset({"first"})
"""What `freeze` wrote down beside the settings' own keys, since it follows from them."""
FLAGS: Final = {"site.watch": True, "net.probe": False}
BARE: Final = frozenset(("--watch", "--no-probe"))
"""Options without a value, and what their keys have then."""
LARGEST_SEED: Final = 64 << 20
"""Octets of a seed's files together: it is unpacked into memory."""


def override(settings: Any, content: Any, words: Sequence[str]) -> tuple[Any, Any]:
    """Settings and content with seed and words put over them; raises StartError."""
    options = known()
    from appliance.config import OPTIONS, ConfigError, _validated

    document = as_document(settings)
    seeded = read_seed(machine.seed()) if machine.seed() else frozenset()
    if "appliance.toml" in seeded:
        merge(document, tomllib.loads(Path(SEED, "appliance.toml").read_text(encoding="utf-8")))
    zones = bool(seeded) and seat_all(document)
    given: dict[str, Any] = {}
    keys = {option: key for key, option in OPTIONS.items()}
    for option, value in pairs(words):
        if option not in keys:
            raise StartError(f"no such option: {option}; known are {', '.join(options)}")
        key = keys[option]
        if isinstance(_at(document, key), list):
            given.setdefault(key, []).append(value)
        elif key in FLAGS:
            given[key] = FLAGS[key]
        else:
            number = isinstance(_at(document, key), int) and value.isdecimal()
            given[key] = int(value) if number else value
    try:
        made = _validated(document, given, Path("/appliance.toml"), "")
    except ConfigError as error:
        raise StartError("; ".join(problem.message for problem in error.problems)) from error
    if made.net.workers > 1:
        machine.say(machine.one_process(made.net.workers))
    for key, place in (("site.directory", made.site.directory), ("dns.zones", made.dns.zones)):
        if key in given and not place.is_dir():
            raise StartError(f"{place} is not a directory ({OPTIONS[key]} DIR)")
    site = bool(seeded) or "site.directory" in given
    zones = zones or "dns.zones" in given
    if site or zones:
        from appliance.content import load_content

        content = replaced(content, load_content(made, kept=content), site, zones)
        for problem in content.problems:
            machine.say(f"{problem.severity}: {problem}")
    return made, content


def seat_all(document: dict[str, Any]) -> bool:
    """Have settings name what a seed has in place of the image's; tells whether it has zones."""
    seat(document["site"], "directory", "site")
    for host in document["host"] if isinstance(document["host"], list) else ():
        if isinstance(host, dict):
            seat(host, "directory", f"host/{host.get('name')}")
    return seat(document["dns"], "zones", "zones")


def seat(table: Any, key: str, usual: str) -> bool:
    """Have a key name a folder of the seed: the one that it names there, or the usual one.

    False if the seed has neither.
    """
    named = table.get(key) if isinstance(table, dict) else None
    for name in (named, usual):
        place = f"{SEED}/{name}"
        if isinstance(name, str) and not os.path.isabs(name) and os.path.isdir(place):
            table[key] = place
            return True
    return False


def replaced(old: Any, new: Any, site: bool, zones: bool) -> Any:
    """The image's content, with sites, zones or both of what was loaded."""
    if site and zones:
        return new
    of_zones = len(new.problems) - len(new.loaded.problems)  # which come last
    problems = new.problems[:of_zones] if site else new.problems[of_zones:]
    whole, other = (new, old) if site else (old, new)
    names = {key: getattr(other, key) for key in ("catalog", "loaded", "zones", "records")}
    return replace(whole, problems=problems, **names)


def known() -> list[str]:
    """The options that there are."""
    # What validates imports zoneinfo, which asks sysconfig where zones lie: an image has neither.
    os.environ.setdefault("PYTHONTZPATH", "")
    from appliance.config import OPTIONS

    return sorted(OPTIONS.values())


def pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """`--key value` and `--key=value` as pairs; raises StartError."""
    found: list[tuple[str, str]] = []
    rest = list(words)
    while rest:
        option, sign, value = rest.pop(0).partition("=")
        if not sign and option not in BARE:
            if not rest:
                raise StartError(f"{option} needs a value")
            value = rest.pop(0)
        found.append((option, value))
    return found


def as_document(value: Any) -> Any:
    """Settings as TOML would have them."""
    if isinstance(value, SimpleNamespace):
        inner = {key: as_document(item) for key, item in vars(value).items() if key not in COMPUTED}
        return {key: item for key, item in inner.items() if item is not None}
    if isinstance(value, tuple | list):
        return [as_document(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def merge(document: dict[str, Any], over: dict[str, Any]) -> None:
    """Put tables over tables and values over values."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            merge(document[key], value)
        else:
            document[key] = value


def _at(document: dict[str, Any], key: str) -> Any:
    table, _, name = key.partition(".")
    return document.get(table, {}).get(name)


def plain_members(archive: tarfile.TarFile, device: str) -> list[tarfile.TarInfo]:
    """All members, if they are files and folders below the archive's top; raises StartError."""
    members = archive.getmembers()
    for member in members:
        place = PurePosixPath(member.name)
        if not (member.isreg() or member.isdir()) or place.is_absolute() or ".." in place.parts:
            raise StartError(f"{device}: {member.name} is no file or folder below its top")
    return members


def read_seed(device: str) -> frozenset[str]:
    """Unpack a seed; returns what it has at its top. Raises StartError."""
    machine.mount_kernel()
    machine.load_modules("later")
    try:
        data = Path(device).read_bytes()[: LARGEST_SEED + 1]
        if len(data) > LARGEST_SEED:
            raise StartError(f"{device}: a seed holds at most {LARGEST_SEED >> 20} MB")
        os.makedirs(SEED, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(SEED, filter="data")
            else:  # Python before 3.11.4, as Debian 12 has it
                archive.extractall(SEED, plain_members(archive, device))  # noqa: S202 - looked at
    except (OSError, tarfile.TarError) as error:
        raise StartError(f"{device} is no seed (a tar archive): {error}") from error
    return frozenset(os.listdir(SEED))
