"""Media types by file name: our own table, so that every machine answers alike.

The `mimetypes` module reads the host's files and calls `.mjs` text/plain on some of them; a
server whose answers are computed at load cannot depend on that.  Text types carry their charset
here, because every text file of a site is UTF-8 by this project's rule.  The table also says
which types are worth compressing.  Imports the standard library only.
"""

from __future__ import annotations

import re

# Source: IANA media types registry; RFC 9239 for JavaScript, RFC 4287 §7 for Atom.
_TYPES = {
    "aac": "audio/aac",
    "apng": "image/apng",
    "atom": "application/atom+xml",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "br": "application/octet-stream",
    "bz2": "application/x-bzip2",
    "css": "text/css",
    "csv": "text/csv",
    "eot": "application/vnd.ms-fontobject",
    "epub": "application/epub+zip",
    "flac": "audio/flac",
    "gif": "image/gif",
    "gz": "application/gzip",
    "htm": "text/html",
    "html": "text/html",
    "ico": "image/vnd.microsoft.icon",
    "ics": "text/calendar",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "jsonld": "application/ld+json",
    "jxl": "image/jxl",
    "m4a": "audio/mp4",
    "m4v": "video/mp4",
    "map": "application/json",
    "md": "text/markdown",
    "mjs": "text/javascript",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "ogv": "video/ogg",
    "opus": "audio/ogg",
    "otf": "font/otf",
    "pcap": "application/vnd.tcpdump.pcap",
    "pdf": "application/pdf",
    "png": "image/png",
    "ps": "application/postscript",
    "py": "text/x-python",
    "rss": "application/rss+xml",
    "sh": "application/x-sh",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "toml": "application/toml",
    "ttf": "font/ttf",
    "txt": "text/plain",
    "vtt": "text/vtt",
    "wasm": "application/wasm",
    "wav": "audio/wav",
    "weba": "audio/webm",
    "webm": "video/webm",
    "webmanifest": "application/manifest+json",
    "webp": "image/webp",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "xhtml": "application/xhtml+xml",
    "xml": "application/xml",
    "xsd": "application/xml",
    "xsl": "application/xslt+xml",
    "xz": "application/x-xz",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
    "zst": "application/zstd",
}

# RFC 9110 §8.3: octets of no known kind.
UNKNOWN = "application/octet-stream"

# Text by another name: these get a charset and are compressed like text/*.
_TEXTUAL = re.compile(
    r"text/.+|application/(?:json|toml|yaml|x-sh|postscript|xml|(?:.+\+)?(?:xml|json))|image/svg\+xml"
)
# Formats that are not text and still carry no compression of their own.
_DENSE_NOT = frozenset(
    {"application/wasm", "font/ttf", "font/otf", "application/vnd.ms-fontobject", "image/bmp",
     "image/vnd.microsoft.icon", "application/x-tar"}
)  # fmt: skip


def media_type(name: str) -> str:
    """Return the Content-Type for a file name, with `; charset=utf-8` where it is text."""
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    base = _TYPES.get(suffix, UNKNOWN)
    # RFC 8259 §11 gives JSON no charset parameter; UTF-8 is implied, and saying so harms nobody.
    return f"{base}; charset=utf-8" if _TEXTUAL.fullmatch(base) else base


def is_compressible(content_type: str) -> bool:
    """Say whether representations of this Content-Type are worth a content coding."""
    base = content_type.partition(";")[0].strip()
    return bool(_TEXTUAL.fullmatch(base)) or base in _DENSE_NOT
