"""The probes, by area; each names the rule that it holds a server to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.http.probes import checks as c
from tests.http.probes.material import ABOUT, BIG, DIGITS, HOME, LOST, SMALL
from tests.http.probes.wire import Check, Response, Talk, talk

Address = tuple[str, int]
EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"
LATER = "Wed, 01 Jan 2020 00:00:00 GMT"  # the probed files are of 2014
FUTURE = "Fri, 31 Dec 2100 23:59:59 GMT"
TAG = r'(W/)?"[^"]*"'


def request(line: str, *lines: str, host: str | None = "probe.example") -> bytes:
    """A request head: `GET /path`, and fields."""
    if " HTTP/" not in line:
        line += " HTTP/1.1"
    rest = [f"Host: {host}"] if host is not None else []
    return "\r\n".join([line, *rest, *lines, "", ""]).encode("utf-8")


@dataclass
class Probe:
    """One question to a server."""

    area: str
    name: str
    rule: str  # the RFC, or what else it rests on
    octets: bytes | Sequence[bytes] | Callable[[Response], bytes]
    check: Check
    methods: Sequence[str] = ("GET",)
    first: bytes = b""  # asked before, for what `octets` makes of its response
    options: dict[str, object] = field(default_factory=dict)
    slow: float = 0.0  # seconds that it waits for

    def run(self, address: Address, hurry: float = 1.0) -> str:
        """Return what is wrong, "" when nothing is; waits are shortened by `hurry`."""
        octets = self.octets
        if callable(octets):
            octets = octets(talk(address, self.first).first)
        options = dict(self.options)
        if self.slow:
            options["patience"] = self.slow * hurry + 2.0
        try:
            return self.check(talk(address, octets, self.methods, **options))  # type: ignore[arg-type]
        except OSError as error:
            return type(error).__name__


PROBES: list[Probe] = []


def probe(
    area: str, name: str, rule: str, octets: bytes | Sequence[bytes] | Callable[[Response], bytes],
    *checks: Check, methods: str = "GET", first: bytes = b"", slow: float = 0.0,
    **options: object,
) -> None:  # fmt: skip
    """Add a probe; checks have all to be right."""
    PROBES.append(
        Probe(area, name, rule, octets, c.both(*checks), methods.split(), first, options, slow)
    )


SEE = {"see_close": True}
GET = request("GET /small.txt")
OK = (c.status(200), c.body(SMALL))

# -- methods ----------------------------------------------------------------------------------
A = "methods"
probe(A, "GET", "RFC 9110 §9.3.1", GET, *OK)
probe(
    A,
    "HEAD has no body",
    "RFC 9110 §9.3.2",
    request("HEAD /digits.txt") + GET,
    c.statuses(200, 200),
    c.body(SMALL),
    methods="HEAD GET",
)
probe(
    A,
    "HEAD says the length",
    "RFC 9110 §9.3.2",
    request("HEAD /digits.bin"),
    c.status(200),
    c.field("content-length", str(len(DIGITS))),
    methods="HEAD",
)
probe(
    A,
    "HEAD of an error has no body",
    "RFC 9110 §9.3.2",
    request("HEAD /nope") + GET,
    c.statuses(404, 200),
    c.body(SMALL),
    methods="HEAD GET",
)
probe(
    A,
    "OPTIONS",
    "RFC 9110 §9.3.7",
    request("OPTIONS /small.txt"),
    c.status(200, 204),
    c.lists("allow", "GET", "HEAD"),
    methods="OPTIONS",
)
probe(
    A, "OPTIONS *", "RFC 9112 §3.2.4", request("OPTIONS *"), c.status(200, 204), methods="OPTIONS"
)
for method in ("POST", "PUT", "DELETE", "PATCH"):
    probe(
        A,
        f"{method} is 405 with Allow",
        "RFC 9110 §15.5.6",
        request(f"{method} /small.txt", "Content-Length: 0"),
        c.status(405),
        c.lists("allow", "GET", "HEAD"),
        methods=method,
    )
probe(
    A,
    "TRACE is refused",
    "RFC 9110 §9.3.8",
    request("TRACE /"),
    c.status(405, 501),
    methods="TRACE",
)
probe(
    A,
    "CONNECT is refused",
    "RFC 9110 §9.3.6",
    request("CONNECT probe.example:80"),
    c.status(400, 405, 501),
    methods="CONNECT",
)
probe(
    A,
    "unknown method is 501",
    "RFC 9110 §9.1",
    request("BREW /small.txt"),
    c.status(501),
    methods="BREW",
)
probe(
    A,
    "methods are case-sensitive",
    "RFC 9110 §9.1",
    request("get /small.txt"),
    c.status(400, 405, 501),
)

# -- messages ---------------------------------------------------------------------------------
A = "messages"
probe(A, "an empty line before is ignored", "RFC 9112 §2.2", b"\r\n" + GET, *OK)
probe(A, "a head in pieces", "RFC 9112 §2", [GET[:5], GET[5:20], GET[20:]], *OK)
probe(
    A,
    "a head octet by octet",
    "RFC 9112 §2",
    [GET[n : n + 1] for n in range(len(GET))],
    *OK,
    pause=0.002,
)
probe(
    A,
    "three at once, in order",
    "RFC 9112 §9.3.2",
    GET + request("GET /nope") + request("GET /about.html"),
    c.in_order(200, 404),
    methods="GET GET GET",
)
probe(A, "fifty at once", "RFC 9112 §9.3.2", GET * 50, c.statuses(*[200] * 50), methods="GET " * 50)
for name, octets in {
    "bare LF as line ends": GET.replace(b"\r\n", b"\n"),
    "bare LF in one field": GET[:-2] + b"X: y\nZ: a\r\n\r\n",
    "bare CR in a value": request("GET /small.txt", "X: a\rb"),
    "NUL in a value": request("GET /small.txt", "X: a\0b"),
    "NUL in the target": request("GET /small\0.txt"),
    "folded field line": request("GET /small.txt", "X: a", " b"),
    "space before the colon": request("GET /small.txt", "X : a"),
    "field without a colon": request("GET /small.txt", "nonsense"),
    "field without a name": request("GET /small.txt", ": a"),
    "space in a field name": request("GET /small.txt", "X y: a"),
    "two spaces in the request line": request("GET  /small.txt"),
    "tab in the request line": request("GET\t/small.txt"),
    "space in the target": request("GET /a b.txt"),
    "HTTP/0.9": b"GET /small.txt\r\n\r\n",
    "lower-case http": request("GET /small.txt http/1.1"),
    "version 1.10": request("GET /small.txt HTTP/1.10"),
    "rubbish": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n",
    "Transfer-Encoding in HTTP/1.0": request("POST / HTTP/1.0", "Transfer-Encoding: chunked")
    + b"0\r\n\r\n",
}.items():
    probe(A, name, "RFC 9112 §2.2, §3, §5", octets, c.refused(400, 501, 505), **SEE)
probe(
    A,
    "HTTP/2.0 in a request line",
    "RFC 9112 §2.3",
    request("GET / HTTP/2.0"),
    c.refused(400, 505),
    **SEE,
)
probe(
    A,
    "HTTP/1.7 is served as 1.1",
    "RFC 9110 §2.5",
    request("GET /small.txt HTTP/1.7"),
    c.status(200),
)

# -- smuggling --------------------------------------------------------------------------------
A = "smuggling"
INNER = request("GET /about.html")
for name, lines in {
    "Content-Length and Transfer-Encoding": ("Content-Length: 5", "Transfer-Encoding: chunked"),
    "Transfer-Encoding and Content-Length": ("Transfer-Encoding: chunked", "Content-Length: 5"),
    "two Content-Lengths that differ": ("Content-Length: 0", f"Content-Length: {len(INNER)}"),
    "a list of Content-Lengths": (f"Content-Length: 0, {len(INNER)}",),
    "Content-Length: +5": ("Content-Length: +5",),
    "Content-Length: -1": ("Content-Length: -1",),
    "Content-Length: 0x5": ("Content-Length: 0x5",),
    "Content-Length: five": ("Content-Length: five",),
    "Content-Length: 5 5": ("Content-Length: 5 5",),
    "Content-Length of 40 digits": ("Content-Length: " + "9" * 40,),
    "an empty Content-Length": ("Content-Length:",),
    "chunked twice": ("Transfer-Encoding: chunked, chunked",),
    "chunked in two fields": ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunked not last": ("Transfer-Encoding: chunked, gzip",),
    "an unknown transfer coding": ("Transfer-Encoding: xchunked",),
    "identity as transfer coding": ("Transfer-Encoding: identity",),
    "Transfer-Encoding: \\vchunked": ("Transfer-Encoding: \x0bchunked",),
}.items():
    probe(
        A,
        name,
        "RFC 9112 §6.1, §6.3",
        request("POST /small.txt", *lines) + b"0\r\n\r\n" + INNER,
        c.refused(400, 413, 501),
        c.answered_once,
        methods="POST GET",
        **SEE,
    )
for name, chunks in {
    "a chunk size of nothing": b"\r\nab\r\n0\r\n\r\n",
    "a chunk size with a sign": b"+2\r\nab\r\n0\r\n\r\n",
    "a chunk size with 0x": b"0x2\r\nab\r\n0\r\n\r\n",
    "a chunk longer than it said": b"1\r\nabc\r\n0\r\n\r\n",
    "a chunk that ends in bare LF": b"2\nab\n0\n\n",
}.items():
    probe(
        A,
        name,
        "RFC 9112 §7.1",
        request("POST /small.txt", "Transfer-Encoding: chunked") + chunks + INNER,
        c.answered_once,
        c.shut,
        methods="POST GET",
        **SEE,
    )
probe(
    A,
    "a chunk size of 20 digits does not overflow",
    "RFC 9112 §7.1",
    request("POST /small.txt", "Transfer-Encoding: chunked")
    + b"1"
    + b"0" * 16
    + b"2\r\nab\r\n0\r\n\r\n"
    + INNER,
    c.answered_once,
    methods="POST GET",
    patience=1.0,
)
probe(
    A,
    "a body is no request",
    "RFC 9112 §6",
    request("POST /small.txt", f"Content-Length: {len(INNER)}") + INNER + GET,
    lambda t: "answers the body" if len([s for s in t.statuses if s >= 200]) > 2 else "",
    c.both(lambda t: "" if t.statuses[:1] == [405] or t.closed else str(t.statuses)),
    methods="POST GET GET",
    patience=0.7,
)
probe(
    A,
    "a chunked body, extensions and trailers are skipped",
    "RFC 9112 §7.1",
    request("POST /small.txt", "Transfer-Encoding: chunked")
    + b"5;a=b\r\nGET /\r\n0\r\nX: y\r\n\r\n",
    c.status(405),
    c.answered_once,
    methods="POST GET",
)
probe(
    A,
    "GET with a body",
    "RFC 9110 §9.3.1",
    request("GET /small.txt", "Content-Length: 3") + b"abc" + GET,
    lambda t: "" if t.statuses in ([200, 200], [200], [400], [413]) else str(t.statuses),
    methods="GET GET",
)

# -- host -------------------------------------------------------------------------------------
A = "host"
probe(A, "missing Host", "RFC 9112 §3.2", request("GET /small.txt", host=None), c.status(400))
probe(A, "two Hosts", "RFC 9112 §3.2", request("GET /small.txt", "Host: other"), c.status(400))
probe(
    A, "HTTP/1.0 without Host", "RFC 9112 §3.2", request("GET /small.txt HTTP/1.0", host=None), *OK
)
for host in ("a b", "a/b", "a@b", "a:b", "[::1", "a\\b", "a,b c"):
    probe(A, f"Host: {host}", "RFC 9112 §3.2", request("GET /small.txt", host=host), c.status(400))
probe(A, "Host with a port", "RFC 9110 §7.2", request("GET /small.txt", host="a.example:8080"), *OK)
probe(A, "absolute-form", "RFC 9112 §3.2.2", request("GET http://probe.example/small.txt"), *OK)

# -- targets ----------------------------------------------------------------------------------
A = "targets"
for name, target in {
    "%00": "/small.txt%00",
    "a bad percent": "/%zz",
    "a cut percent": "/small%2",
    "..": "/../x",
    "%2e%2e": "/%2e%2e/secret.txt",
    "..%2f": "/..%2fsecret.txt",
    ".. in the middle": "/dir/../../secret.txt",
    "%5c..": "/..%5csecret.txt",
    "%0d%0a": "/small.txt%0d%0aX:y",
    "control characters": "/%01",
}.items():
    codes = (400,) if name not in ("%5c..", "..") else (400, 404)
    probe(
        A,
        name,
        "RFC 3986 §2.1, RFC 9110 §17.3",
        request(f"GET {target}"),
        c.status(*codes),
        c.secret,
    )
probe(A, "%7E is ~: decoded once", "RFC 3986 §2.4", request("GET /%2573mall.txt"), c.status(404))
probe(A, "an unreserved letter may be encoded", "RFC 3986 §2.3", request("GET /%73mall.txt"), *OK)
probe(A, "an encoded space", "RFC 3986 §2.1", request("GET /a%20b.txt"), *OK)
probe(A, "UTF-8", "RFC 3987 §3.1", request("GET /gr%C3%BC%C3%9Fe.txt"), *OK)
probe(A, "a query is ignored", "RFC 9110 §4.2", request("GET /small.txt?a=b&c"), *OK)
probe(
    A,
    "a fragment is no part of a target",
    "RFC 9112 §3.2",
    request("GET /small.txt#a"),
    c.status(400),
)
probe(
    A,
    "/dir is redirected, relatively",
    "RFC 9110 §10.2.2",
    request("GET /dir"),
    c.status(301, 308),
    c.relative,
)
probe(
    A,
    "//dir is no open redirect",
    "RFC 9110 §17.9",
    request("GET //dir"),
    lambda t: c.relative(t) if t.first.status in (301, 302, 307, 308) else "",
)
probe(
    A,
    "//evil.example/.. is no open redirect",
    "RFC 9110 §17.9",
    request("GET //evil.example/%2e%2e"),
    lambda t: c.relative(t) if t.first.status in (301, 302, 307, 308) else "",
)
probe(
    A,
    "clean URL: /about",
    "what static hosts do",
    request("GET /about"),
    c.status(200),
    c.body(ABOUT),
)
probe(
    A,
    "a custom 404 page, with status 404",
    "RFC 9110 §15.5.5",
    request("GET /nope"),
    c.status(404),
    c.body(LOST),
)
probe(A, "the index of a directory", "RFC 9110 §4.2.3", request("GET /dir/"), c.body(HOME))

# -- files ------------------------------------------------------------------------------------
A = "files"
for path in ("/.env", "/.git/config", "/dir/.htpasswd"):
    probe(
        A, path, "what nobody meant to serve", request(f"GET {path}"), c.status(403, 404), c.secret
    )
probe(A, "/.well-known/ is served", "RFC 8615 §3", request("GET /.well-known/test.txt"), *OK)
probe(
    A,
    "a link out of the root",
    "RFC 9110 §17.3",
    request("GET /link-out.txt"),
    c.status(403, 404),
    c.secret,
)
probe(A, "a link inside the root", "RFC 9110 §4.2", request("GET /link-in.txt"), *OK)
probe(
    A,
    "an empty file",
    "RFC 9110 §8.6",
    request("GET /empty.txt"),
    c.status(200),
    c.field("content-length", "0"),
    c.body(b""),
)
probe(
    A,
    "a large file",
    "RFC 9110 §8.6",
    request("GET /big.bin"),
    c.status(200),
    c.body(BIG),
    patience=20.0,
)
probe(
    A,
    "no listing of directories",
    "RFC 9110 §17.3",
    request("GET /.well-known/"),
    c.status(403, 404),
)

# -- fields -----------------------------------------------------------------------------------
A = "fields"
probe(A, "Date", "RFC 9110 §6.6.1", GET, c.field("date", r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT"))
probe(A, "Date on errors", "RFC 9110 §6.6.1", request("GET /nope"), c.field("date", ".+GMT"))
probe(A, "ETag", "RFC 9110 §8.8.3", GET, c.field("etag", TAG))
probe(A, "Last-Modified", "RFC 9110 §8.8.2", GET, c.field("last-modified", ".+GMT"))
probe(
    A,
    "Accept-Ranges",
    "RFC 9110 §14.3",
    request("GET /digits.bin"),
    c.field("accept-ranges", "bytes"),
)
probe(A, "nosniff", "Fetch, §3.6", GET, c.field("x-content-type-options", "nosniff"))
probe(
    A,
    "no version in Server",
    "RFC 9110 §10.2.4",
    GET,
    lambda t: t.first["server"] if any(ch.isdigit() for ch in t.first["server"]) else "",
)
for name, kind in {
    "index.html": "text/html; ?charset=utf-8",
    "style.css": "text/css; ?charset=utf-8",
    "app.js": "(text|application)/javascript; ?charset=utf-8",
    "module.mjs": "(text|application)/javascript; ?charset=utf-8",
    "data.json": "application/json(; ?charset=utf-8)?",
    "icon.svg": r"image/svg\+xml(; ?charset=utf-8)?",
    "pixel.png": "image/png",
    "font.woff2": "font/woff2",
    "code.wasm": "application/wasm",
    "page.webp": "image/webp",
    "small.txt": "text/plain; ?charset=utf-8",
}.items():
    path = "/" if name == "index.html" else f"/{name}"
    probe(
        A,
        f"type of {name}",
        "RFC 9110 §8.3",
        request(f"GET {path}"),
        c.status(200),
        c.field("content-type", kind),
    )
probe(
    A,
    "a fingerprinted name is immutable",
    "RFC 8246",
    request("GET /index-2f9c1ab34d.js"),
    c.field("cache-control", ".*immutable.*"),
)

# -- conditions -------------------------------------------------------------------------------
A = "conditions"


def tagged(make: str, path: str = "/small.txt") -> Callable[[Response], bytes]:
    """A request whose fields have {tag} and {date} of an earlier response in them."""

    def octets(response: Response) -> bytes:
        tag, date = response["etag"], response["last-modified"]
        lines = make.format(tag=tag, opaque=tag.removeprefix("W/"), date=date, epoch=EPOCH,
                            future=FUTURE).split("\n")  # fmt: skip
        return request(f"GET {path}", *lines)

    return octets


for name, made, code in (
    ("If-None-Match", "If-None-Match: {tag}", 304),
    ("If-None-Match, in a list", 'If-None-Match: "a", {tag}, "b"', 304),
    ("If-None-Match, weak comparison", "If-None-Match: W/{opaque}", 304),
    ("If-None-Match: *", "If-None-Match: *", 304),
    ("If-None-Match of another", 'If-None-Match: "other"', 200),
    (
        "If-None-Match goes before If-Modified-Since",
        'If-None-Match: "other"\nIf-Modified-Since: {date}',
        200,
    ),
    ("If-Modified-Since", "If-Modified-Since: {date}", 304),
    ("If-Modified-Since, later than the file", f"If-Modified-Since: {LATER}", 304),
    ("If-Modified-Since, in the future", "If-Modified-Since: {future}", 200),
    ("If-Modified-Since, earlier", "If-Modified-Since: {epoch}", 200),
    ("If-Modified-Since, no date", "If-Modified-Since: yesterday", 200),
    ("If-Match", "If-Match: {tag}", 200),
    ("If-Match: *", "If-Match: *", 200),
    ("If-Match of another", 'If-Match: "other"', 412),
    ("If-Match, weak", "If-Match: W/{opaque}", 412),
    ("If-Unmodified-Since", "If-Unmodified-Since: {date}", 200),
    ("If-Unmodified-Since, earlier", "If-Unmodified-Since: {epoch}", 412),
):
    wanted = (code,)
    if name == "If-Modified-Since, in the future":
        wanted = (200, 304)  # RFC 9110 §13.1.3: a date later than now is ignored
    probe(A, name, "RFC 9110 §13", tagged(made), c.status(*wanted), first=GET)
probe(
    A,
    "304 has ETag and no body",
    "RFC 9110 §15.4.5",
    tagged("If-None-Match: {tag}"),
    c.status(304),
    c.field("etag", TAG),
    c.without("content-type"),
    first=GET,
)

# -- ranges -----------------------------------------------------------------------------------
A = "ranges"


def ranged(spec: str, *lines: str, path: str = "/digits.bin") -> bytes:
    return request(f"GET {path}", f"Range: {spec}", *lines)


LAST = len(DIGITS) - 1
for name, spec, start, stop in (
    ("0-9", "bytes=0-9", 0, 10),
    ("100-", "bytes=100-", 100, LAST + 1),
    ("-10", "bytes=-10", LAST - 9, LAST + 1),
    ("-99999", "bytes=-99999", 0, LAST + 1),
    ("0-99999", "bytes=0-99999", 0, LAST + 1),
    ("the unit in capitals", "BYTES=0-9", 0, 10),
):
    probe(
        A,
        name,
        "RFC 9110 §14.1.2",
        ranged(spec),
        c.status(206),
        c.field("content-range", f"bytes {start}-{stop - 1}/{LAST + 1}"),
        c.body(DIGITS[start:stop]),
    )
for name, spec in {"past the end": "bytes=20000-", "-0": "bytes=-0"}.items():
    probe(
        A,
        name,
        "RFC 9110 §15.5.17",
        ranged(spec),
        c.status(416),
        c.field("content-range", rf"bytes \*/{LAST + 1}"),
    )
for name, spec in {
    "an unknown unit": "lines=0-9",
    "backwards": "bytes=9-0",
    "no digits": "bytes=a-b",
    "nothing": "bytes=",
    "a dash": "bytes=-",
}.items():
    probe(A, f"ignored: {name}", "RFC 9110 §14.2", ranged(spec), c.status(200), c.body(DIGITS))
probe(
    A,
    "two ranges",
    "RFC 9110 §14.6",
    ranged("bytes=0-9,1000-1009"),
    c.status(206),
    c.field("content-type", "multipart/byteranges; ?boundary=.+"),
    lambda t: (
        ""
        if t.first.body.count(b"Content-Range: bytes") == 2
        or t.first.body.lower().count(b"content-range: bytes") == 2
        else "not two parts"
    ),
)
probe(
    A,
    "overlapping ranges never cost more than the file",
    "RFC 9110 §17.15",
    ranged("bytes=" + ",".join(["0-"] * 100)),
    c.body_size(LAST + 1),
)
probe(
    A,
    "many small ranges never cost more than the file",
    "RFC 9110 §17.15",
    ranged("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2000, 2))),
    c.body_size(LAST + 1),
)
probe(
    A,
    "HEAD ignores Range",
    "RFC 9110 §14.2",
    request("HEAD /digits.bin", "Range: bytes=0-9"),
    c.status(200),
    methods="HEAD",
)
probe(
    A,
    "If-Range with the tag",
    "RFC 9110 §13.1.5",
    tagged("Range: bytes=0-9\nIf-Range: {tag}", "/digits.bin"),
    c.status(206),
    first=request("GET /digits.bin"),
)
probe(
    A,
    "If-Range with another tag",
    "RFC 9110 §13.1.5",
    ranged("bytes=0-9", 'If-Range: "other"'),
    c.status(200),
    c.body(DIGITS),
)
probe(
    A,
    "If-Range with an earlier date",
    "RFC 9110 §13.1.5",
    ranged("bytes=0-9", f"If-Range: {EPOCH}"),
    c.status(200),
    c.body(DIGITS),
)
probe(
    A,
    "a range of a large file",
    "RFC 9110 §14.2",
    request("GET /big.bin", "Range: bytes=5000000-5000009"),
    c.status(206),
    c.body(BIG[5000000:5000010]),
)

# -- codings ----------------------------------------------------------------------------------
A = "codings"


def accept(value: str, *lines: str, path: str = "/digits.txt") -> bytes:
    return request(f"GET {path}", f"Accept-Encoding: {value}", *lines)


probe(A, "gzip", "RFC 9110 §12.5.3", accept("gzip"), c.decoded(DIGITS, "gzip"))
probe(A, "br", "RFC 7932", accept("br"), c.decoded(DIGITS, "br"))
probe(A, "zstd", "RFC 8878", accept("zstd"), c.decoded(DIGITS, "zstd"))
probe(
    A,
    "what browsers say",
    "RFC 9110 §12.5.3",
    accept("gzip, deflate, br, zstd"),
    c.decoded(DIGITS, "any"),
)
probe(
    A,
    "nothing said: identity",
    "RFC 9110 §12.5.3",
    request("GET /digits.txt"),
    c.decoded(DIGITS, ""),
)
probe(A, "gzip;q=0", "RFC 9110 §12.4.2", accept("gzip;q=0"), c.decoded(DIGITS, ""))
probe(
    A,
    "gzip;q=0.000, identity",
    "RFC 9110 §12.4.2",
    accept("gzip;q=0.000, identity"),
    c.decoded(DIGITS, ""),
)
probe(
    A,
    "br;q=0.1, gzip;q=0.9",
    "RFC 9110 §12.4.2",
    accept("br;q=0.1, gzip;q=0.9"),
    c.decoded(DIGITS, "gzip"),
)
probe(
    A,
    "identity;q=1, gzip;q=0.5",
    "RFC 9110 §12.4.2",
    accept("identity;q=1, gzip;q=0.5"),
    c.decoded(DIGITS, ""),
)
probe(A, "*", "RFC 9110 §12.5.3", accept("*"), c.decoded(DIGITS, "any"))
probe(A, "*;q=0, gzip", "RFC 9110 §12.5.3", accept("gzip, *;q=0"), c.decoded(DIGITS, "gzip"))
probe(A, "x-gzip is gzip", "RFC 9110 §8.4.1.3", accept("x-gzip"), c.decoded(DIGITS, "gzip"))
probe(
    A, "codings are case-insensitive", "RFC 9110 §8.4.1", accept("GZIP"), c.decoded(DIGITS, "gzip")
)
probe(A, "gzipped is not gzip", "RFC 9110 §8.4.1", accept("gzipped"), c.decoded(DIGITS, ""))
probe(
    A, "Vary on the coded", "RFC 9110 §12.5.5", accept("gzip"), c.lists("vary", "accept-encoding")
)
probe(
    A,
    "Vary on the identity",
    "RFC 9110 §12.5.5",
    request("GET /digits.txt"),
    c.lists("vary", "accept-encoding"),
)
probe(
    A,
    "Vary on 304",
    "RFC 9110 §15.4.5",
    tagged("If-None-Match: {tag}", "/digits.txt"),
    c.status(304),
    c.lists("vary", "accept-encoding"),
    first=request("GET /digits.txt"),
)
probe(
    A,
    "Vary on 206",
    "RFC 9110 §12.5.5",
    ranged("bytes=0-9", path="/digits.txt"),
    c.status(206),
    c.lists("vary", "accept-encoding"),
)
probe(
    A,
    "no coding for images",
    "RFC 9110 §8.4",
    accept("gzip, br", path="/pixel.png"),
    c.without("content-encoding"),
)
probe(
    A,
    "identity's tag does not match the coded",
    "RFC 9110 §8.8.3.3",
    tagged("If-None-Match: {tag}\nAccept-Encoding: gzip", "/digits.txt"),
    lambda t: (
        ""
        if t.first.status == 200 and t.first["content-encoding"] == "gzip"
        else f"{t.first.status} {t.first['content-encoding']}".strip()
    ),
    first=request("GET /digits.txt"),
)

# -- connections ------------------------------------------------------------------------------
A = "connections"
probe(
    A,
    "keep-alive",
    "RFC 9112 §9.3",
    [GET, GET],
    c.statuses(200, 200),
    c.open_still,
    methods="GET GET",
)
probe(
    A,
    "Connection: close",
    "RFC 9112 §9.6",
    request("GET /small.txt", "Connection: close"),
    c.body(SMALL),
    c.shut,
    **SEE,
)
probe(
    A,
    "Connection: Close, in a list",
    "RFC 9112 §9.6",
    request("GET /small.txt", "Connection: foo, Close"),
    c.body(SMALL),
    c.shut,
    **SEE,
)
probe(
    A,
    "HTTP/1.0 closes",
    "RFC 9112 §9.3",
    request("GET /small.txt HTTP/1.0"),
    c.body(SMALL),
    c.shut,
    **SEE,
)
probe(
    A,
    "a half-closed peer gets its answers",
    "RFC 9112 §9.6",
    GET * 2,
    c.statuses(200, 200),
    methods="GET GET",
    half_close=True,
)
probe(
    A,
    "an upgrade is ignored",
    "RFC 9110 §7.8",
    request("GET /small.txt", "Connection: Upgrade", "Upgrade: websocket"),
    *OK,
)
probe(
    A,
    "Expect: 100-continue on GET",
    "RFC 9110 §10.1.1",
    request("GET /small.txt", "Expect: 100-continue"),
    lambda t: "" if [s for s in t.statuses if s >= 200] == [200] else str(t.statuses),
)
probe(
    A,
    "an unknown expectation is 417",
    "RFC 9110 §10.1.1",
    request("GET /small.txt", "Expect: the-unexpected"),
    c.status(417),
)
probe(
    A,
    "no reset under the last answer",
    "RFC 9112 §9.6",
    [request("GET /small.txt", "Connection: close") + b"x" * 100, b"y" * 1000],
    c.body(SMALL),
    lambda t: "reset" if t.reset else "",
    **SEE,
)

# -- limits -----------------------------------------------------------------------------------
A = "limits"
probe(A, "a target of 7,000 octets", "RFC 9112 §3", request("GET /" + "a" * 7000), c.status(404))
probe(
    A,
    "a target of 100,000 octets",
    "RFC 9110 §15.5.15",
    request("GET /" + "a" * 100_000),
    c.refused(414),
    lambda t: "" if t.statuses else "no 414",
    **SEE,
)
probe(
    A,
    "a field of 100,000 octets",
    "RFC 6585 §5",
    request("GET /", "X: " + "a" * 100_000),
    c.refused(431),
    lambda t: "" if t.statuses else "no 431",
    **SEE,
)
probe(A, "1,000 fields", "RFC 6585 §5", request("GET /", *["X: y"] * 1000), c.status(431, 400))
probe(
    A,
    "a body nobody wants is refused or read",
    "RFC 9110 §15.5.14",
    request("POST /small.txt", "Content-Length: 100000000") + bytes(100_000),
    c.status(405, 413),
    methods="POST",
)
probe(
    A,
    "a slow head is 408",
    "RFC 9110 §15.5.9",
    [b"GET / HTTP/1.1\r\n", b"Host: a\r\n"],
    c.refused(408),
    slow=12.0,
    **SEE,
)
probe(
    A,
    "a trickled head is 408",
    "RFC 9110 §15.5.9",
    [b"GET / HTTP/1.1\r\nHost: a\r\n", *[b"X: y\r\n"] * 6],
    c.refused(408),
    slow=12.0,
    pause=0.3,
    **SEE,
)


def _after(talk_: Talk) -> str:
    return "" if talk_.statuses[-1:] == [200] else str(talk_.statuses)


probe(
    A,
    "an idle moment does no harm",
    "RFC 9112 §9.3",
    [GET, GET],
    _after,
    methods="GET GET",
    pause=0.5,
)
