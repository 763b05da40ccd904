"""/.well-known/security.txt, made of a few settings (RFC 9116).

Tells whoever finds a hole whom to write to.  The file has an expiry, which people forget: unless
one is configured it lies half a year after the site was loaded, and a reload renews it.  Imports
the standard library only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

PATH = "/.well-known/security.txt"
# RFC 9116 §2.5.5: less than a year ahead is recommended.
LIFETIME = dt.timedelta(days=180)


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What a security.txt says; only the contacts are required."""

    contact: Sequence[str]  # URIs in order of preference: mailto:, https:, tel:
    expires: dt.date | None = None
    encryption: Sequence[str] = ()  # URIs of keys
    acknowledgments: Sequence[str] = ()  # URIs
    policy: Sequence[str] = ()  # URIs
    hiring: Sequence[str] = ()  # URIs
    languages: Sequence[str] = ()  # language tags, the most wanted first

    def faults(self, today: dt.date) -> list[str]:
        """Return what is wrong with these settings, in words."""
        found = [] if self.contact else ["security: at least one contact is required"]
        for name in ("contact", "encryption", "acknowledgments", "policy", "hiring"):
            for uri in getattr(self, name):
                scheme = urlsplit(uri).scheme
                if not scheme or not uri.isprintable() or " " in uri:
                    found.append(f"security: {name}: {uri!r} is no URI (mailto:… or https://…)")
                elif scheme == "http":
                    found.append(f"security: {name}: {uri} has to be https")
        if self.expires is not None and self.expires <= today:
            found.append(f"security: expired on {self.expires}")
        return found

    def text(self, base_url: str, today: dt.date) -> bytes:
        """Render the file (RFC 9116 §2.5)."""
        expires = self.expires or today + LIFETIME
        lines = [f"Contact: {uri}" for uri in self.contact]
        lines.append(f"Expires: {expires.isoformat()}T00:00:00Z")
        lines += [f"Encryption: {uri}" for uri in self.encryption]
        lines += [f"Acknowledgments: {uri}" for uri in self.acknowledgments]
        lines += [f"Policy: {uri}" for uri in self.policy]
        lines += [f"Hiring: {uri}" for uri in self.hiring]
        if self.languages:
            lines.append(f"Preferred-Languages: {', '.join(self.languages)}")
        # RFC 9116 §2.5.2: Canonical URIs are https; without one there is none to state.
        if base_url.startswith("https:"):
            lines.append(f"Canonical: {urljoin(base_url, PATH)}")
        return ("\n".join(lines) + "\n").encode()
