"""Request targets: which resource is meant, decided strictly.

Four forms exist (RFC 9112 §3.2); all become a decoded path, a query and perhaps an authority.
Percent-encoding is decoded once and exactly; whatever could mean two things (bad percent, NUL,
control characters, `..` in any spelling) is refused, so that no path ever reaches the disk: the
caller looks the result up in a dictionary.  Imports `message` and the standard library.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from appliance.http.message import Refusal


class Target(NamedTuple):
    """A request target taken apart."""

    path: bytes  # decoded, begins with "/", no empty or dot segments; b"*" for OPTIONS *
    canonical: bool  # False: slashes or "." segments were collapsed on the way
    query: bytes  # with its "?", as sent; b"" when there was none
    authority: bytes  # lower case; b"" when the target named none


# RFC 3986 §3.2.2: an IP literal, or a registered name (IPv4 is one of its spellings), and a port.
_AUTHORITY = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,}\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?"
)
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def is_authority(value: bytes) -> bool:
    """Say whether a Host field value is a host with an optional port (RFC 9110 §7.2)."""
    return _AUTHORITY.fullmatch(value) is not None


def parse_target(method: bytes, target: bytes) -> Target:
    """Take a request-target apart (RFC 9112 §3.2).

    Raises Refusal 400 for a target that is malformed or tries to climb out of the root.
    """
    authority = b""
    if target[:1] != b"/":
        if target == b"*" and method == b"OPTIONS":
            return Target(b"*", True, b"", b"")
        if method == b"CONNECT" and is_authority(target):
            # RFC 9112 §3.2.3: authority-form, for CONNECT alone.
            return Target(b"/", True, b"", target.lower())
        match = _ABSOLUTE.fullmatch(target)
        if match is None or not is_authority(match[2]):
            raise Refusal(400, "malformed request target")
        authority, target = match[2].lower(), match[3]
        if target[:1] != b"/":
            # RFC 9112 §3.2.4: OPTIONS with an empty path asks about the server as a whole.
            if method == b"OPTIONS" and not target:
                return Target(b"*", True, b"", authority)
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    if b"#" in target:
        raise Refusal(400, "a request target has no fragment")
    if b"%" in path:
        if _BAD_PERCENT.search(path):
            raise Refusal(400, "malformed percent-encoding")
        # RFC 3986 §2.2: an encoded slash is data, not a separator, so it may not become one.
        # No file name holds a slash: encoded again, it finds nothing.
        decoded = unquote_to_bytes(_ENCODED_SLASH.sub(b"%252f", path))
        if _CONTROL.search(decoded):
            raise Refusal(400, "control character in the path")
        if b".." in unquote_to_bytes(path).split(b"/"):
            raise Refusal(400, "the path climbs out of the root")
        path = decoded
    canonical = True
    if b"//" in path or b"/." in path:
        path, canonical = _collapse(path)
    return Target(path, canonical, mark + query, authority)


def _collapse(path: bytes) -> tuple[bytes, bool]:
    """Drop empty and `.` segments; refuse `..`, which no client sends unless it is climbing."""
    segments = path.split(b"/")
    if b".." in segments:
        raise Refusal(400, "the path climbs out of the root")
    kept = [segment for segment in segments[:-1] if segment not in {b"", b"."}]
    last = segments[-1]
    collapsed = b"/" + b"".join(segment + b"/" for segment in kept)
    if last != b".":
        collapsed += last
    return collapsed, collapsed == path


def origin_form(target: bytes) -> bytes:
    """Return path and query of a target in absolute-form, any other as it is (RFC 9112 §3.2.2)."""
    match = _ABSOLUTE.fullmatch(target) if target[:1] != b"/" else None
    if match is None or not is_authority(match[2]):
        return target
    return match[3] if match[3][:1] == b"/" else b"/" + match[3]


def location(path: bytes) -> bytes:
    """Encode a decoded path for Location: an absolute path, so no host or port can leak."""
    return quote_from_bytes(path, safe="/~!$&'()*+,;=:@").encode()
