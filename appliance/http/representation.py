"""Resources and their representations, with every octet that does not change made at load.

A `Resource` is one path of the site; a `Variant` is its content under one content coding, with a
strong ETag of exactly those octets, so validators never collide between codings, reloads or
machines.  Codings are kept only where they are smaller.  A variant carries the header block of
its 200 as bytes; only Date, and Connection where it is needed, are added when it is sent.
Imports this package's values; brotli and zstandard when something is coded.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote_to_bytes

from appliance.http.largefile import FileSlice, LargeFile
from appliance.http.media import is_compressible
from appliance.http.message import NOSNIFF, SERVER, Answer, Part
from appliance.http.preconditions import http_date

# Octets; below this a coding saves less than its own header line costs.
MIN_CODED = 200

# RFC 9111 §5.2.2.4: pages are asked about each time, which costs a 304 of 300 octets.
CACHE_PAGES = b"no-cache"
# Seconds an asset may be old: long enough for a visit, short enough for a correction.
CACHE_ASSETS = b"max-age=600"
# RFC 8246: a name that holds a hash of its content never changes its content.
CACHE_FOREVER = b"max-age=31536000, immutable"
_FINGERPRINTED = re.compile(r"[.-](?=[0-9a-f]*[0-9])[0-9a-f]{8,64}\.[A-Za-z0-9]+$")


def cache_policy(name: str, content_type: str) -> bytes:
    """Choose Cache-Control by file name and type."""
    if _FINGERPRINTED.search(name):
        return CACHE_FOREVER
    if content_type.startswith("text/html") or content_type.endswith("xml; charset=utf-8"):
        return CACHE_PAGES
    return CACHE_ASSETS


def _gzip(body: bytes) -> bytes:
    # mtime 0: the same content gives the same octets, and so the same ETag, on every machine.
    return gzip.compress(body, compresslevel=9, mtime=0)


def _brotli(body: bytes) -> bytes:
    import brotli

    # Quality 5 codes 40 MB/s and beats gzip 9; 11 is a seventh smaller at a fiftieth of the speed.
    coded: bytes = brotli.compress(body, quality=5)
    return coded


def _zstd(body: bytes) -> bytes:
    import zstandard

    # RFC 9659: level 9 keeps its window under the 8 MB that a decoder has to have.
    return zstandard.ZstdCompressor(level=9).compress(body)


# Content codings made at load (RFC 1952, RFC 7932, RFC 8878).
CODERS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"br": _brotli,
    b"zstd": _zstd,
    b"gzip": _gzip,
}


def content_hash(parts: Sequence[bytes | memoryview]) -> bytes:
    """Return a strong entity-tag, quotes included: 120 bits of BLAKE2b in base64url."""
    digest = hashlib.blake2b(digest_size=15)
    for part in parts:
        digest.update(part)
    return b'"' + urlsafe_b64encode(digest.digest()) + b'"'


class Variant:
    """One representation: octets under one content coding, and the answers made of them."""

    __slots__ = ("body", "coding", "etag", "get", "head", "kept", "length")

    def __init__(
        self, body: bytes | LargeFile, coding: bytes, etag: bytes, entity: bytes, kept: bytes
    ) -> None:
        self.body = body
        self.coding = coding  # b"" for identity
        self.etag = etag
        self.length = len(body)  # octets
        self.kept = kept  # field lines that a 304, a 206 and a 200 share
        block = b"%s%sContent-Length: %d\r\nAccept-Ranges: bytes\r\n%s" % (
            kept, entity, self.length, NOSNIFF,
        )  # fmt: skip
        self.get = Answer(200, block, self.slice(0, self.length) if self.length else ())
        self.head = Answer(200, block)

    def slice(self, start: int, stop: int) -> tuple[Part, ...]:
        """Return octets [start, stop) as parts, without copying."""
        if isinstance(self.body, LargeFile):
            return (FileSlice(self.body, start, stop),)
        if start == 0 and stop == self.length:
            return (self.body,)
        return (memoryview(self.body)[start:stop],)


class Resource:
    """What one path serves: its variants, smallest first, and what they have in common."""

    __slots__ = ("codings", "content_type", "extra", "last_modified", "variants", "vary")

    def __init__(
        self, variants: Sequence[Variant], content_type: bytes, last_modified: int | None,
        vary: bytes, extra: bytes,
    ) -> None:  # fmt: skip
        self.variants = tuple(variants)
        self.codings = tuple(variant.coding for variant in variants)
        self.content_type = content_type
        self.last_modified = last_modified  # seconds since the epoch
        self.vary = vary  # the Vary field line, or b""
        self.extra = extra  # field lines that the site's `_headers` adds

    @property
    def identity(self) -> Variant:
        """The variant without a content coding, which every resource has."""
        return self.variants[self.codings.index(b"")]


class Redirect:
    """A path that lives elsewhere: a relative reference, so no host or port can leak."""

    __slots__ = ("location", "status")

    def __init__(self, location: bytes, status: int = 308) -> None:
        self.location = location  # encoded, begins with exactly one "/" unless absolute
        self.status = status

    @property
    def path(self) -> bytes:
        """Its decoded path; that of another host is none here."""
        return unquote_to_bytes(self.location.partition(b"#")[0].partition(b"?")[0])


def is_coded(body: bytes, content_type: str) -> bool:
    """Say whether codings of a body are worth trying."""
    return len(body) >= MIN_CODED and is_compressible(content_type)


def code(
    body: bytes, coders: Mapping[bytes, Callable[[bytes], bytes]] = CODERS
) -> dict[bytes, bytes]:
    """Return the codings of a body that are smaller than it."""
    coded = {}
    for coding, coder in coders.items():
        # A machine has the coders of Python alone: its pages were coded when it was built.
        with contextlib.suppress(ImportError):
            coded[coding] = coder(body)
    most = len(body) - MIN_CODED // 4
    return {coding: octets for coding, octets in coded.items() if len(octets) < most}


def build(
    body: bytes | LargeFile,
    content_type: str,
    *,
    etag: bytes | None = None,
    last_modified: int | None = None,
    cache_control: bytes = CACHE_ASSETS,
    extra: bytes = b"",
    coders: Mapping[bytes, Callable[[bytes], bytes]] = CODERS,
    coded: Mapping[bytes, bytes] | None = None,
) -> Resource:
    """Make a resource with every coding that is smaller than the identity.

    `coded` are those codings of the body, if they were made before (`code`).  A large file must
    bring its `etag`; an empty `cache_control` leaves the field out; `extra` holds further field
    lines, each ended by CRLF.
    """
    bodies: list[tuple[bytes, bytes | LargeFile]] = [(b"", body)]
    if coded is None:
        wanted = isinstance(body, bytes) and is_coded(body, content_type)
        coded = code(body, coders) if wanted and isinstance(body, bytes) else {}
    bodies += coded.items()
    bodies.sort(key=lambda pair: len(pair[1]))
    # RFC 9110 §12.5.5: every variant says what chose it, the identity as well.
    vary = b"Vary: Accept-Encoding\r\n" if len(bodies) > 1 else b""
    variants = []
    for coding, octets in bodies:
        if etag is not None and not coding:
            tag = etag
        elif isinstance(octets, bytes):
            tag = content_hash([octets])
        else:
            raise ValueError("a large file comes with its entity-tag")
        kept = b"%sETag: %s\r\n%s%s%s%s" % (
            SERVER,
            tag,
            b"Last-Modified: %s\r\n" % http_date(last_modified)
            if last_modified is not None
            else b"",
            vary,
            b"Cache-Control: %s\r\n" % cache_control if cache_control else b"",
            extra,
        )
        entity = b"Content-Type: %s\r\n" % content_type.encode()
        if coding:
            entity += b"Content-Encoding: %s\r\n" % coding
        variants.append(Variant(octets, coding, tag, entity, kept))
    return Resource(variants, content_type.encode(), last_modified, vary, extra)
