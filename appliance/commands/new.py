"""`appliance new`: a site, a zone and settings for a domain, ready to be served."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from appliance.commands import FAILED, MISUSED, OK, complain, say

FILES: Final = Path(__file__).with_name("new_files")
"""What is copied, with @NAME@ put in; a leading `dot-` becomes a dot, `_` of `_zone` the domain."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="made if it is not there")
    parser.add_argument("--domain", metavar="NAME", required=True, help="as example.org")
    parser.add_argument("--title", metavar="TEXT", help="of the site (default: the domain)")
    parser.add_argument(
        "--address", metavar="IP", default="10.0.0.2", help="of the server (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Write the files; nothing that is there is changed."""
    import ipaddress

    from appliance.settings import host_name

    try:
        domain = host_name(options.domain)
    except ValueError:
        domain = ""
    if "." not in domain:
        complain(f"--domain {options.domain}: must be a domain name, like example.org")
        return MISUSED
    try:
        address = str(ipaddress.IPv4Address(options.address))
    except ValueError:
        complain(f"--address {options.address}: must be an IPv4 address, like 203.0.113.7")
        return MISUSED
    directory: Path = options.directory
    title = " ".join((options.title or domain).split()) or domain
    today = dt.datetime.now(dt.UTC).date()
    values = {
        "DOMAIN": domain,
        "TITLE": title.replace("\\", "\\\\").replace('"', '\\"'),
        "ADDRESS": address,
        "TODAY": today.isoformat(),
        "SERIAL": f"{today:%Y%m%d}01",
        "EXPIRES": (today + dt.timedelta(days=350)).isoformat(),
    }
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            complain(f"{directory} is there and not empty; nothing was written")
            return FAILED
        for name, text in _files(values).items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        complain(f"{error.filename or directory}: {error.strerror or error}")
        return FAILED
    say(f"{directory}: a site and a zone for {domain}")
    say("")
    say(f"  cd {directory}")
    say("  appliance serve --watch    pages and zones reload while you write")
    say("  appliance check            before anybody else sees it")
    say("")
    say(f"README.md there says how {domain} gets on the air.")
    return OK


def _files(values: Mapping[str, str]) -> dict[str, str]:
    """Texts by the names that they are written under."""
    found: dict[str, str] = {}
    for source in sorted(FILES.rglob("*")):
        if not source.is_file():
            continue
        text = source.read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        name = source.relative_to(FILES).as_posix()
        name = name.replace("dot-", ".").replace("domain.zone", f"{values['DOMAIN']}.zone")
        found[name] = text
    return found
