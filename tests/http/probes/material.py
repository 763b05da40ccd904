"""The site that is probed: a directory that every server can serve."""

from __future__ import annotations

import os
from pathlib import Path

DIGITS = b"".join(b"%09d\n" % number for number in range(2000))  # 20,000 octets
SMALL = b"a small text\n"
HOME = b"<!doctype html>\n<title>Home</title>\n<h1>Home</h1>\n" + b"<p>All work.</p>\n" * 40
ABOUT = b"<!doctype html>\n<title>About</title>\n<h1>About</h1>\n" + b"<p>No play.</p>\n" * 40
LOST = b"<!doctype html>\n<title>Lost</title>\n<h1>A page of our own</h1>\n"
PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2
BIG = DIGITS * 300  # 6,000,000 octets

MODIFIED = 1391212800  # Sat, 01 Feb 2014 00:00:00 GMT

TYPES = {
    "index.html": "text/html", "style.css": "text/css", "app.js": "text/javascript",
    "module.mjs": "text/javascript", "data.json": "application/json", "icon.svg": "image/svg+xml",
    "pixel.png": "image/png", "font.woff2": "font/woff2", "code.wasm": "application/wasm",
    "page.webp": "image/webp", "feed.atom": "application/atom+xml", "small.txt": "text/plain",
}  # fmt: skip


def write_site(root: Path) -> Path:
    """Fill a directory and return it."""
    files = dict.fromkeys(TYPES, SMALL) | {
        "index.html": HOME, "about.html": ABOUT, "dir/index.html": HOME, "404.html": LOST,
        "small.txt": SMALL, "digits.txt": DIGITS, "digits.bin": DIGITS, "empty.txt": b"",
        "pixel.png": PIXEL, "big.bin": BIG, "a b.txt": SMALL, "grüße.txt": SMALL,
        "style.css": b"p { color: green }\n" * 100, "app.js": b"let a = 1;\n" * 100,
        "module.mjs": b"export let a = 1;\n" * 100, "index-2f9c1ab34d.js": b"let b = 1;\n" * 100,
        ".env": b"SECRET=1\n", ".git/config": b"SECRET\n", "dir/.htpasswd": b"SECRET\n",
        ".well-known/test.txt": SMALL,
    }  # fmt: skip
    for name, octets in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets)
        os.utime(path, (MODIFIED, MODIFIED))
    (root.parent / "secret.txt").write_bytes(b"SECRET\n")
    (root / "link-out.txt").symlink_to(root.parent / "secret.txt")
    (root / "link-in.txt").symlink_to("small.txt")
    return root
