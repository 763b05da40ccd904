"""What a request means to an origin of static content: a request in, an answer out.

The one place where RFC 9110 is decided, the same for every version of HTTP.  The order is: method,
target, host, resource, content coding, preconditions, range.  Pure: nothing here knows the time, a
connection or the disk.  Imports this package's other pure rooms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from appliance.http import coding, preconditions, ranges
from appliance.http.message import NOSNIFF, SERVER, Answer, Part, Refusal, Request, plain
from appliance.http.representation import Redirect, Resource, Variant
from appliance.http.target import Target, location, parse_target

# RFC 9110 §10.2.1: what every resource of the site can do.
ALLOW = b"Allow: GET, HEAD, OPTIONS\r\n"
_SERVED = frozenset({b"GET", b"HEAD", b"OPTIONS"})
# Source: IANA HTTP method registry.  Known and not allowed is 405; unknown is 501 (RFC 9110 §9.1).
_REGISTERED = frozenset(
    b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK "
    b"MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH "
    b"POST PRI PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK "
    b"UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)


class Content(Protocol):
    """What the semantics ask of a site."""

    resources: Mapping[bytes, Resource | Redirect]  # by decoded path
    not_found: Resource  # sent with status 404
    loaded_at: int  # seconds since the epoch, not earlier than any Last-Modified

    def otherwise(self, path: bytes) -> Resource | Redirect | None:
        """Say what a path leads to that is none of the resources."""


class Hosting(Protocol):
    """A choice of sites by authority; a single site is one, too."""

    def at(self, authority: bytes) -> Content | Redirect | None:
        """Return the site of an authority; a redirect to another host; None if it is unknown."""


def decide(hosting: Hosting, request: Request) -> Answer:
    """Answer a request; never raises for anything a peer can send."""
    method = request.method
    try:
        if method not in _SERVED:
            if method in _REGISTERED:
                return plain(405, extra=ALLOW)
            return plain(501)
        target = parse_target(method, request.target)
        # RFC 9112 §3.2.2: the authority of an absolute-form target goes before Host.
        site = hosting.at(target.authority or request.authority)
        if site is None:
            return plain(421, "no such site here", with_body=method != b"HEAD")
        if isinstance(site, Redirect):
            there = b"" if target.path == b"*" else location(target.path)
            elsewhere = Redirect(site.location + there, site.status)
            return _redirect(elsewhere, target.query, with_body=method != b"HEAD")
        found = find(site, target)
    except Refusal as refusal:
        return plain(refusal.status, refusal.reason, with_body=method != b"HEAD")
    if method == b"OPTIONS":
        if found is None and target.path != b"*":
            return _not_found(site, request)
        # RFC 9110 §9.3.7, §8.6: 204 carries no Content-Length.
        return Answer(204, SERVER + ALLOW + NOSNIFF)
    if found is None:
        return _not_found(site, request)
    if isinstance(found, Redirect):
        return _redirect(found, target.query, with_body=method == b"GET")
    return _serve(site, found, request)


def find(site: Content, target: Target) -> Resource | Redirect | None:
    """Look a target up; a path with collapsed segments is a redirect to the plain one."""
    found = site.resources.get(target.path)
    if found is None and target.path != b"*":
        found = site.otherwise(target.path)
    if target.canonical or found is None or isinstance(found, Redirect):
        return found
    return Redirect(location(target.path))


def _redirect(found: Redirect, query: bytes, *, with_body: bool) -> Answer:
    # A target with a query of its own keeps that; the query goes before a fragment.
    place, mark, fragment = found.location.partition(b"#")
    if b"?" not in place:
        place += query
    return plain(
        found.status,
        extra=b"Location: %s%s%s\r\nCache-Control: no-cache\r\n" % (place, mark, fragment),
        with_body=with_body,
    )


def _not_found(site: Content, request: Request) -> Answer:
    resource = site.not_found
    index = coding.choose(request.fields.get(b"accept-encoding"), resource.codings)
    variant = resource.variants[index] if index >= 0 else resource.identity
    head = request.method == b"HEAD"
    # An error has no validators: it is not the representation that was asked for.
    block = b"%sContent-Type: %s\r\n%sContent-Length: %d\r\n%sCache-Control: no-cache\r\n%s%s" % (
        SERVER,
        resource.content_type,
        b"Content-Encoding: %s\r\n" % variant.coding if variant.coding else b"",
        variant.length,
        resource.vary,
        resource.extra,
        NOSNIFF,
    )
    return Answer(404, block, () if head else variant.get.parts)


def _serve(site: Content, resource: Resource, request: Request) -> Answer:
    fields = request.fields
    index = coding.choose(fields.get(b"accept-encoding"), resource.codings)
    if index < 0:
        return plain(
            406,
            "no acceptable content coding",
            b"Vary: Accept-Encoding\r\n",
            with_body=request.method == b"GET",
        )
    variant = resource.variants[index]
    status = preconditions.evaluate(fields, variant.etag, resource.last_modified, site.loaded_at)
    if status == 304:
        return Answer(304, variant.kept)
    if status == 412:
        return plain(412, extra=resource.vary, with_body=request.method == b"GET")
    if request.method == b"HEAD":
        return variant.head
    # RFC 9110 §14.2: Range is defined for GET alone.
    wanted = fields.get(b"range")
    if wanted is not None and preconditions.range_applies(
        fields, variant.etag, resource.last_modified, site.loaded_at
    ):
        return _partial(resource, variant, wanted)
    return variant.get


def _partial(resource: Resource, variant: Variant, wanted: bytes) -> Answer:
    size = variant.length
    selected = ranges.select(wanted, size)
    if selected is None:
        return variant.get
    if not selected:
        # RFC 9110 §15.5.17: say how long it really is.
        return plain(416, extra=b"Content-Range: bytes */%d\r\n%s" % (size, resource.vary))
    encoding = b"Content-Encoding: %s\r\n" % variant.coding if variant.coding else b""
    if len(selected) == 1:
        start, stop = selected[0]
        block = b"%sContent-Type: %s\r\n%sContent-Length: %d\r\n%s%s" % (
            variant.kept,
            resource.content_type,
            encoding,
            stop - start,
            b"Content-Range: bytes %d-%d/%d\r\n" % (start, stop - 1, size),
            NOSNIFF,
        )
        return Answer(206, block, variant.slice(start, stop))
    return _multipart(resource, variant, encoding, selected)


def _multipart(
    resource: Resource, variant: Variant, encoding: bytes, selected: list[tuple[int, int]]
) -> Answer:
    """Make a multipart/byteranges answer (RFC 9110 §14.6)."""
    # The boundary is the content's own hash: no octets of a body can be made to contain it.
    boundary = b"part-" + variant.etag.strip(b'"')
    parts: list[Part] = []
    for start, stop in selected:
        parts.append(
            b"%s--%s\r\nContent-Type: %s\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"
            % (
                b"\r\n" if parts else b"", boundary, resource.content_type,
                start, stop - 1, variant.length,
            )
        )  # fmt: skip
        parts += variant.slice(start, stop)
    parts.append(b"\r\n--%s--\r\n" % boundary)
    total = sum(map(len, parts))
    if total >= variant.length:
        return variant.get  # many small ranges never cost more than the whole (§17.15)
    block = b"%sContent-Type: multipart/byteranges; boundary=%s\r\n%sContent-Length: %d\r\n%s" % (
        variant.kept, boundary, encoding, total, NOSNIFF,
    )  # fmt: skip
    return Answer(206, block, tuple(parts))
