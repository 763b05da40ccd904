"""`appliance configure`: check everything that an image is built of, and write it down.

Asks nothing. What it makes beside the lock are keys that the settings name and that are not there
yet, readable by their owner alone; they stay outside images.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.commands import FAILED, MISUSED, OK, config_path, of_images, say

if TYPE_CHECKING:
    from appliance.image.project import Project
    from appliance.settings import DnsSecondary, Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="settings")
    parser.add_argument(
        "--target", choices=("qemu", "disk", "oci"), help="what to build (default: qemu)"
    )
    parser.add_argument(
        "--kernel",
        choices=("debian", "own"),
        help="Debian's for clouds (default), or our own without an IP stack, compiled once",
    )
    parser.add_argument(
        "--keys", action="store_true", help="make the secrets that are missing, and nothing else"
    )


def run(options: argparse.Namespace) -> int:
    """Check, make keys, write the lock, tell what others need to know."""
    path = config_path(options)
    if path is None:
        return MISUSED
    return of_images(partial(_configure, options, path))


def _configure(options: argparse.Namespace, path: Path) -> int:
    from appliance.image import lock as locks
    from appliance.image.project import load

    project = load(path)
    if options.keys:
        for line in _keys(project):
            say(line)
        return OK
    for line in project.notes():
        say(line)
    if _faulty(project.settings):
        return FAILED
    before = locks.read(project.lock_path) if project.lock_path.exists() else None
    target = options.target or (before.target if before else "qemu")
    kind = options.kernel or (before.kernel["kind"] if before else "debian")
    locked = dict(before.kernel) if before else {}
    # A container brings none.
    kernel = {"kind": kind} | locked if target == "oci" else _kernel(kind, locked)
    made = locks.Lock(
        target,
        kernel,
        locks.python_facts(),
        locks.package_facts(),
        before.content if before else {},
    )
    made = locks.with_content(made, project.content_digest())
    locks.write(project.lock_path, made)
    for line in _keys(project):
        say(line)
    for line in _neighbours(project):
        say(line)
    kernel_text = " ".join(
        v for k, v in made.kernel.items() if k in ("package", "version", "source")
    )
    say(f"target {target}; kernel {kind} {kernel_text}".rstrip())
    say(f"locked in {project.lock_path.name}; next: appliance build")
    return OK


def _faulty(settings: Settings) -> bool:
    """Tell every problem of site and zones; whether one is an error."""
    from appliance.content import load_content

    content = load_content(settings)
    for problem in content.problems:
        say(f"{problem.severity}: {problem}")
    return bool(content.errors)


def _kernel(kind: str, before: dict[str, str]) -> dict[str, str]:
    """The kernel to lock; the newest there is. Raises BuildError."""
    from appliance.image import kernel

    if kind == "own":
        source = kernel.newest_source()
        return {"kind": "own", "source": str(source)}
    return kernel.newest_debian(before)


def _keys(project: Project) -> list[str]:
    """Make the secrets that the settings name and that are missing."""
    import base64
    import secrets

    from appliance.files import write_whole

    lines = []
    for key in project.settings.dns.key:
        if not key.file.exists():
            key.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            secret = base64.b64encode(secrets.token_bytes(32)) + b"\n"
            write_whole(key.file, secret, mode=0o600)
            lines.append(f"made {key.file}, readable by its owner: the secret of {key.name}")
        elif key.file.stat().st_mode & 0o077:
            lines.append(f"warning: others can read {key.file}: chmod 600")
    return lines


def _neighbours(project: Project) -> list[str]:
    """What the parent zones and the secondaries need to know."""
    from ipaddress import IPv4Address

    from appliance.dns import load_zones, names
    from appliance.dns.consts import NS, A

    dns = project.settings.dns
    address = project.settings.net.first
    lines = []
    for zone in load_zones(dns.zones).zones:
        servers = zone.apex.rrsets[NS].rdatas
        lines.append(f"{zone.name} (serial {zone.serial}), for its parent:")
        for server in servers:
            lines += [f"  {zone.name} NS {names.to_text(server)}"]
            node = zone.nodes.get(server.lower())  # glue, where the name is the zone's own
            for glue in node.rrsets[A].rdatas if node is not None and A in node.rrsets else ():
                lines.append(f"  {names.to_text(server)} A {IPv4Address(glue)}")
        lines.append(f"  its secondaries have it from {address}, port {dns.port}")
    for secondary in dns.secondary:
        key = f" with key {secondary.key}" if secondary.key else ""
        lines.append(f"secondary {secondary.address or secondary.networks} may transfer{key}")
        if secondary.key:
            lines += _stanzas(project, secondary)
    return lines


def _stanzas(project: Project, secondary: DnsSecondary) -> list[str]:
    """What a secondary's NSD, Knot or BIND needs; the secret is in it, so it goes there alone."""
    from appliance.dns import load_zones
    from appliance.parts.dns_options import secret_of
    from appliance.tls.keys import SOFTWARE, TsigKey, stanza

    dns = project.settings.dns
    one = next(key for key in dns.key if key.name == secondary.key)
    shared = TsigKey(one.name, one.algorithm, secret_of(one))
    zones = secondary.zones or tuple(str(zone.name) for zone in load_zones(dns.zones).zones)
    lines = []
    for software in SOFTWARE:
        lines.append(
            f"  for its {software.upper() if software != 'knot' else 'Knot'}, with the secret:"
        )
        text = stanza(software, shared, zones, project.settings.net.first, dns.port)
        lines += [f"    {line}" for line in text.splitlines()]
    return lines
