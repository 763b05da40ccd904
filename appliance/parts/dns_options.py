"""[dns] of the settings as what a name server is made from: keys, grants, limits, neighbours."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from random import SystemRandom
from time import time
from typing import TYPE_CHECKING, Final

from appliance import __version__
from appliance.dns import names
from appliance.dns.authority import Options
from appliance.dns.cookies import Cookies
from appliance.dns.edns import Extensions
from appliance.dns.errors import LocalError
from appliance.dns.notify import Notifier, Target
from appliance.dns.policy import Policy, rule
from appliance.dns.rrl import RateLimiter
from appliance.dns.secondary import Primary, Trust
from appliance.dns.transfer import Grant, Grants, Transfers, grant
from appliance.dns.tsig import Key, Keys, key
from appliance.links import PAIR

if TYPE_CHECKING:
    from appliance.settings import Dns, DnsKey, DnsPrimary, Settings

_SECRET: Final = re.compile(r'secret\s*:?\s*"?([A-Za-z0-9+/=]+)"?')
"""In what tsig-keygen (BIND) and keymgr (Knot) write."""
ANYWHERE: Final = ("0.0.0.0/0", "::/0")
PORT: Final = 53
TLS_PORT: Final = 853
"""RFC 9103 §7.3."""
COOKIE_SECRET: Final = 16
"""Octets (RFC 9018 §4)."""


class OptionsError(Exception):
    """The settings name something that cannot be used; the text says what."""


def options(settings: Settings) -> Options:
    """What the server is to be; OptionsError for keys and secrets that cannot be read."""
    dns = settings.dns
    keys = {one.name: _key(one) for one in dns.key}
    try:
        return _options(settings, dns, keys)
    except LocalError as error:
        raise OptionsError(f"[dns]: {error}") from None


def _options(settings: Settings, dns: Dns, keys: Mapping[str, Key]) -> Options:
    return Options(
        udp_size=dns.udp_size,
        minimal=dns.minimal,
        extensions=Extensions(
            nsid=dns.nsid.encode(),
            cookies=Cookies(_cookie_secrets(dns.cookie_secret)) if dns.cookies else None,
            keys=Keys(keys.values()),
            keepalive=dns.idle_seconds,
        ),
        limiter=_limiter(settings),
        transfers=_transfers(dns),
        notifier=_notifier(dns, keys),
        policy=Policy(
            rule(one.key, zone, one.names, one.types)
            for one in dns.update
            for zone in (one.zones or (None,))
        ),
        forward=_forward(dns),
        chaos=_chaos(dns),
        state=dns.state if dns.secondary or dns.primary or dns.update else None,
        journal_limit=dns.journal_mb << 20,
        secondaries=_primaries(dns, keys, "zones"),
        catalogs=_primaries(dns, keys, "catalogs"),
        produce=None if dns.catalog is None else names.from_text(dns.catalog),
    )


def secret_of(one: DnsKey) -> str:
    """The secret of a key's file, in base64; OptionsError."""
    try:
        text = one.file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise OptionsError(f"{one.file}: the key {one.name} cannot be read: {why}") from None
    found = _SECRET.search(text)
    return found[1] if found else "".join(text.split())


def _key(one: DnsKey) -> Key:
    text = secret_of(one)
    try:
        return key(one.name, one.algorithm, base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        # Never the text itself: it may be the secret.
        why = str(error) if isinstance(error, LocalError) else "there is no base64 in it"
        raise OptionsError(f"{one.file}: {why}") from None


def _cookie_secrets(path: Path | None) -> list[bytes]:
    if path is None:
        return [secrets.token_bytes(COOKIE_SECRET)]
    try:
        lines = path.read_text().split()
        found = [bytes.fromhex(line) for line in lines]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "each line is 32 hexadecimal digits"
        raise OptionsError(f"{path}: {why}") from None
    if not found or any(len(one) != COOKIE_SECRET for one in found):
        raise OptionsError(f"{path}: each line is 32 hexadecimal digits")
    return found


def _limiter(settings: Settings) -> RateLimiter | None:
    dns = settings.dns
    # Behind the gateway of a pair everybody has its address, so nobody could be told apart.
    if not dns.rate_limit or settings.net.link == PAIR:
        return None
    return RateLimiter(
        secrets.token_bytes(16),
        rate=dns.rate_limit,
        total=dns.rate_total,
        slip=dns.rate_slip,
        exempt=dns.rate_exempt,
    )


def _transfers(dns: Dns) -> Transfers:
    """Who may have which zone."""
    everywhere: list[Grant] = []
    some: dict[str, list[Grant]] = {}
    for one in dns.secondary:
        networks = one.networks
        if not networks:
            # A key says more than an address; without a key the address must do.
            networks = ANYWHERE if one.key is not None else (str(ip_network(str(one.address))),)
        grants = [grant(network, one.key, tls=one.tls) for network in networks]
        if not one.zones:
            everywhere += grants
        for zone in one.zones:
            some.setdefault(zone, []).extend(grants)
    return Transfers(
        {zone: [*grants, *everywhere] for zone, grants in some.items()}, default=everywhere
    )


def _forward(dns: Dns) -> Grants:
    """Whose updates go on to primaries."""
    everywhere: list[Grant] = []
    some: dict[str, list[Grant]] = {}
    for one in dns.forward:
        grants = [grant(network, one.key) for network in one.networks or ANYWHERE]
        if not one.zones:
            everywhere += grants
        for zone in one.zones:
            some.setdefault(zone, []).extend(grants)
    return Grants({zone: [*grants, *everywhere] for zone, grants in some.items()}, everywhere)


def _notifier(dns: Dns, keys: Mapping[str, Key]) -> Notifier | None:
    everywhere: list[Target] = []
    some: dict[str, list[Target]] = {}
    for one in dns.secondary:
        if one.address is None or not one.notify:
            continue
        target = Target(one.address, one.port, keys[one.key] if one.key is not None else None)
        if not one.zones:
            everywhere.append(target)
        for zone in one.zones:
            some.setdefault(zone, []).append(target)
    if not everywhere and not some:
        return None
    return Notifier(
        {zone: [*targets, *everywhere] for zone, targets in some.items()},
        default=everywhere,
        random=SystemRandom(),
        wall=time,
    )


def _primaries(dns: Dns, keys: Mapping[str, Key], what: str) -> dict[bytes, tuple[Primary, ...]]:
    found: dict[bytes, tuple[Primary, ...]] = {}
    for one in dns.primary:
        known = keys[one.key] if one.key is not None else None
        port = one.port or (TLS_PORT if one.tls else PORT)
        primary = Primary(one.address, port, known, _trust(one))
        for zone in getattr(one, what):
            origin = names.from_text(zone)
            found[origin] = (*found.get(origin, ()), primary)
    return found


def _trust(one: DnsPrimary) -> Trust | None:
    """How a primary is to show who it is, if that is wanted."""
    if not one.tls:
        return None
    if one.tls_ca_file is not None:
        from cryptography.x509 import load_pem_x509_certificates

        try:
            load_pem_x509_certificates(one.tls_ca_file.read_bytes())
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "there are no certificates in it"
            raise OptionsError(f"{one.tls_ca_file}: tls_ca_file cannot be read: {why}") from None
    pins = frozenset(base64.b64decode(pin) for pin in one.tls_pins)
    return Trust(one.tls_name or "", one.tls_ca_file, pins)


def _chaos(dns: Dns) -> dict[bytes, bytes]:
    """TXT rdata of what is told in class CHAOS (RFC 4892 §3): nothing unless it is set."""
    found: dict[bytes, bytes] = {}
    version = dns.version.replace("%v", __version__).encode()
    identity = dns.identity.encode()
    for text, some in (
        (version, ("version.bind.", "version.server.")),
        (identity, ("hostname.bind.", "id.server.")),
    ):
        if text:
            for name in some:
                found[names.from_text(name)] = bytes((len(text),)) + text
    return found
