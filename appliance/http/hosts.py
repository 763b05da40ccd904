"""Several sites by name on one listener.

`Hosts` stands where a site stands: it picks one by the authority of the request, sends an alias
(the apex, or `www`) to the name that counts, and leaves a name that nobody configured to the
default site, or to 421.  Names are compared without port and without a dot at the end.  Imports
`representation` and `semantics`.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.http.representation import Redirect
from appliance.http.semantics import Content


def host_of(authority: bytes) -> bytes:
    """Return the host of `host:port`, lower case; an IP literal keeps its brackets."""
    host = authority.lower()
    if not host.endswith(b"]"):
        name, colon, port = host.rpartition(b":")
        if colon and (port.isdigit() or not port):
            host = name
    return host.removesuffix(b".")


def in_ascii(name: str) -> bytes:
    """Return a host name as it is on the wire; UnicodeError."""
    # Most names need no tables of Unicode, a megabyte that a machine then reads only if it must.
    return name.encode("ascii" if name.isascii() else "idna")


class Hosts:
    """A choice of sites; immutable, and swapped as a whole like a site."""

    __slots__ = ("_aliases", "_default", "_sites")

    def __init__(
        self,
        sites: Mapping[str, Content],
        *,
        aliases: Mapping[str, str] | None = None,
        default: Content | None = None,
    ) -> None:
        """Serve `sites` by host name.

        `aliases` maps a host name to the base URL it redirects to, as `https://www.example.org`;
        `default` answers for every other name, and for requests by address.
        """
        self._sites = {in_ascii(name.lower()): site for name, site in sites.items()}
        self._aliases = {
            in_ascii(name.lower()): url.rstrip("/").encode()
            for name, url in (aliases or {}).items()
        }
        if overlap := self._sites.keys() & self._aliases.keys():
            raise ValueError(f"both a site and an alias: {min(overlap).decode()}")
        self._default = default

    def at(self, authority: bytes) -> Content | Redirect | None:
        """Return the site of an authority, where its name redirects to, or None."""
        host = host_of(authority)
        site = self._sites.get(host)
        if site is not None:
            return site
        url = self._aliases.get(host)
        return Redirect(url) if url is not None else self._default


class Elsewhere:
    """A host whose every path lives under another scheme: all of http sent to https."""

    __slots__ = ("_fallback", "_port", "_scheme")

    def __init__(self, scheme: str, port: int, fallback: str) -> None:
        """Redirect to `scheme`, at `port`; `fallback` is the host for who names none."""
        self._scheme = scheme.encode()
        default = {"https": 443, "http": 80}.get(scheme)
        self._port = b"" if port == default else b":%d" % port
        self._fallback = in_ascii(fallback)

    def at(self, authority: bytes) -> Redirect:
        """Return where the paths of an authority are."""
        host = host_of(authority) or self._fallback
        return Redirect(b"%s://%s%s" % (self._scheme, host, self._port))
