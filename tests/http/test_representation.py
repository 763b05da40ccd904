"""Representations: types, codings, validators and caching, all made at load."""

from __future__ import annotations

import gzip

import brotli
import pytest
import zstandard

from appliance.http.media import is_compressible, media_type
from appliance.http.representation import (
    CACHE_ASSETS,
    CACHE_FOREVER,
    CACHE_PAGES,
    CODERS,
    build,
    cache_policy,
    code,
    content_hash,
)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.html", "text/html; charset=utf-8"), ("a.CSS", "text/css; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"), ("a.js", "text/javascript; charset=utf-8"),
        ("a.json", "application/json; charset=utf-8"), ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.xml", "application/xml; charset=utf-8"), ("a.txt", "text/plain; charset=utf-8"),
        ("a.webmanifest", "application/manifest+json; charset=utf-8"), ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"), ("a.png", "image/png"), ("a.avif", "image/avif"),
        ("a.ico", "image/vnd.microsoft.icon"), ("a.tar.gz", "application/gzip"),
        ("a.unknown", "application/octet-stream"), ("html", "application/octet-stream"),
        ("a.", "application/octet-stream"),
    ],
)  # fmt: skip
def test_media_types(name: str, wanted: str) -> None:
    assert media_type(name) == wanted


def test_what_is_compressed() -> None:
    for name in ("a.html", "a.css", "a.mjs", "a.json", "a.svg", "a.atom", "a.wasm", "a.ttf"):
        assert is_compressible(media_type(name)), name
    for name in ("a.png", "a.jpg", "a.woff2", "a.gz", "a.zip", "a.mp4", "a.pdf", "a.unknown"):
        assert not is_compressible(media_type(name)), name


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("index.html", CACHE_PAGES), ("feed.atom", CACHE_PAGES), ("style.css", CACHE_ASSETS),
        ("app.3f2a9c1b.js", CACHE_FOREVER), ("app-3f2a9c1b04d1e6.css", CACHE_FOREVER),
        ("app.deadbeef.js", CACHE_ASSETS), ("2014-01-31.png", CACHE_ASSETS),
        ("app.3f2a9c1.js", CACHE_ASSETS), ("3f2a9c1b.js", CACHE_ASSETS),
    ],
)  # fmt: skip
def test_cache_policy(name: str, policy: bytes) -> None:
    """RFC 9111 §5.2, RFC 8246: pages are asked about, hashed names are kept for ever."""
    assert cache_policy(name, media_type(name)) == policy


def test_variants_are_kept_only_where_smaller() -> None:
    text = b"the same words again " * 100
    resource = build(text, "text/plain; charset=utf-8")
    assert resource.codings[-1] == b""
    assert set(resource.codings) == {b"br", b"zstd", b"gzip", b""}
    decoders = {
        b"br": brotli.decompress,
        b"zstd": zstandard.ZstdDecompressor().decompress,
        b"gzip": gzip.decompress,
        b"": bytes,
    }
    for variant in resource.variants:
        assert isinstance(variant.body, bytes)
        assert decoders[variant.coding](variant.body) == text
    lengths = [variant.length for variant in resource.variants]
    assert lengths == sorted(lengths)
    noise = gzip.compress(bytes(range(256)) * 4, mtime=0) * 9
    assert build(noise, "image/png").codings == (b"",)
    assert build(b"short", "text/plain").codings == (b"",)


def test_codings_are_made_by_the_coders_that_are_there() -> None:
    """A machine has Python's own alone."""

    def absent(body: bytes) -> bytes:
        raise ModuleNotFoundError("brotli")

    body = b"the same again and again; " * 100
    coded = code(body, {**CODERS, b"br": absent})
    assert set(coded) == {b"zstd", b"gzip"}


def test_rfc9110_entity_tags_name_exactly_the_octets() -> None:
    """RFC 9110 §8.8.3: strong, so equal if and only if the octets are."""
    one, same, other = (build(body * 99, "text/plain") for body in (b"abc", b"abc", b"abd"))
    tags = [variant.etag for variant in one.variants]
    assert len(set(tags)) == len(tags)
    assert tags == [variant.etag for variant in same.variants]
    assert not set(tags) & {variant.etag for variant in other.variants}
    assert content_hash([b"ab", b"c"]) == content_hash([b"abc"])


def test_a_large_file_needs_its_tag() -> None:
    from appliance.http.largefile import Identity, LargeFile

    with pytest.raises(ValueError, match="entity-tag"):
        build(LargeFile("x", Identity(0, 0, 5, 0)), "text/plain")
