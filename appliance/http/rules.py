"""`_redirects` and `_headers`: the two files that static hosts made common.

    # from            to                      status
    /old              /new                    301
    /news/*           /blog/:splat
    /:year/:title     /blog/:title            308
    /app/*            /app/index.html         200     another page under this path
    /gone/*           /404                    410!    `!`: even where a file is

    /assets/*
      Cache-Control: max-age=31536000
      X-Robots-Tag: noindex
    /assets/open/*
      ! X-Robots-Tag

A file wins over a redirect unless `!` forces it; the first rule that matches counts; header rules
all apply, in their order.  Rules are read once, and what can be decided at load is: a pattern is
only tried on a path that nothing else answers.  Imports `message`, `target`, `representation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from appliance.http.problem import Problem
from appliance.http.representation import Redirect
from appliance.http.target import location

# Patterns in one `_redirects`; each costs 0.3 µs on a path that is not found.
MAX_PATTERNS = 200
# Rules in either file; they are looked up, so this bounds memory alone.
MAX_RULES = 20_000

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# 200: serve another path's content here.  404 and 410: as if there were nothing.
STATUSES = REDIRECTS | {200, 404, 410}

_PLACEHOLDER = re.compile(r":([A-Za-z][A-Za-z0-9_]*)")
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
# What the server itself has to get right, for the message to end where it says; of a connection's
# own fields HTTP/2 has none (RFC 9113 §8.2.2).
_OURS = frozenset(
    {
        "accept-ranges", "connection", "content-encoding", "content-length", "content-range",
        "date", "etag", "http2-settings", "keep-alive", "last-modified", "proxy-connection",
        "server", "te", "trailer", "transfer-encoding", "upgrade", "vary",
    }
)  # fmt: skip


def _compile(pattern: str) -> re.Pattern[bytes]:
    """Turn `/a/:b/*` into a pattern over decoded paths; raises ValueError."""
    if not pattern.startswith("/"):
        raise ValueError("a path begins with /")
    if "*" in pattern[:-1]:
        raise ValueError("`*` may only come last")
    body, splat = (pattern[:-1], True) if pattern.endswith("*") else (pattern, False)
    parts: list[str] = []
    place = 0
    for match in _PLACEHOLDER.finditer(body):
        parts += [re.escape(body[place : match.start()]), f"(?P<{match[1]}>[^/]+)"]
        place = match.end()
    parts.append(re.escape(body[place:]))
    expression = "".join(parts)
    if splat:
        # `/news/*` matches `/news` and `/news/` as well, as on the hosts that made the format.
        expression = (
            expression.removesuffix("/") + r"(?:/(?P<splat>.*))?"
            if body.endswith("/")
            else expression + r"(?P<splat>.*)"
        )
    try:
        return re.compile(expression.encode(), re.DOTALL)
    except re.error as error:
        raise ValueError(f"{error.msg}") from error


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of `_redirects`."""

    path: bytes  # decoded
    target: str
    status: int
    forced: bool
    line: int
    pattern: re.Pattern[bytes] | None  # None: `path` is literal

    def resolve(self, path: bytes) -> Redirect | None:
        """Return where a path leads, or None if this rule is about another one."""
        if self.pattern is None:
            return self.redirect({}) if path == self.path else None
        match = self.pattern.fullmatch(path)
        return self.redirect(match.groupdict(b"")) if match is not None else None

    def redirect(self, found: Mapping[str, bytes]) -> Redirect:
        """Fill the placeholders of the target in; what a peer sent is percent-encoded."""

        def fill(match: re.Match[str]) -> str:
            value = found.get(match[1])
            return match[0] if value is None else location(value.lstrip(b"/")).decode()

        return Redirect(_PLACEHOLDER.sub(fill, self.target).encode(), self.status)


def _lines(text: str) -> list[tuple[int, str]]:
    """Return the lines that say something, with their numbers."""
    numbered = ((number, line.rstrip()) for number, line in enumerate(text.splitlines(), start=1))
    return [
        (number, line) for number, line in numbered if line and not line.lstrip().startswith("#")
    ]


def parse_redirects(text: str, file: str, problems: list[Problem]) -> list[Rule]:
    """Read a `_redirects` file; lines that cannot be used are told and left out."""
    rules: list[Rule] = []
    patterns = 0
    for number, line in _lines(text):
        try:
            rule = _redirect_rule(number, line.split(" #")[0].split())
        except ValueError as error:
            problems.append(Problem(file, number, "error", str(error)))
            continue
        patterns += rule.pattern is not None
        if len(rules) >= MAX_RULES or patterns > MAX_PATTERNS:
            problems.append(
                Problem(
                    file, number, "error",
                    f"more than {MAX_RULES} rules or {MAX_PATTERNS} patterns: the rest is left out",
                )
            )  # fmt: skip
            break
        rules.append(rule)
    return rules


def _redirect_rule(number: int, words: Sequence[str]) -> Rule:
    if len(words) < 2:
        raise ValueError("expected: from to [status]")
    path, target = unquote(words[0]), words[1]
    status, forced = 301, False
    asks = "=" in target and not target.startswith(("/", "http://", "https://"))
    if asks or "?" in words[0] or "#" in words[0]:
        raise ValueError("conditions on the query are not supported")
    if len(words) > 2:
        match = re.fullmatch(r"(\d{3})(!?)", words[2])
        if match is None or int(match[1]) not in STATUSES:
            allowed = ", ".join(map(str, sorted(STATUSES)))
            raise ValueError(
                f"unknown status {words[2]} (known: {allowed}, each with ! or without)"
            )
        status, forced = int(match[1]), match[2] == "!"
    if len(words) > 3:
        raise ValueError(f"conditions are not supported: {' '.join(words[3:])}")
    pattern = _compile(path) if "*" in path or _PLACEHOLDER.search(path) else None
    if pattern is None and not path.startswith("/"):
        raise ValueError("a path begins with /")
    scheme = re.match(r"https?://[^/:]+(?::[0-9]+)?(?=/|$)", target)
    if scheme is None and (not target.startswith("/") or target.startswith("//")):
        raise ValueError("the target has to begin with / or be an http(s) URL with a fixed host")
    if scheme is not None and status not in REDIRECTS:
        raise ValueError("another host's content cannot be served from here")
    if not target.isascii() or not target.isprintable():
        raise ValueError("the target has to be percent-encoded")
    names = {"splat", *(pattern.groupindex if pattern is not None else ())}
    rest = target[scheme.end() :] if scheme is not None else target
    for placeholder in _PLACEHOLDER.findall(rest):
        if placeholder not in names or pattern is None:
            raise ValueError(f"`:{placeholder}` is not in the path")
    if path == target:
        raise ValueError("leads to itself")
    return Rule(path.encode(), target, status, forced, number, pattern)


@dataclass(frozen=True, slots=True)
class Presentation:
    """What `_headers` says of one path."""

    content_type: str | None = None  # None: by the file's name
    cache_control: bytes | None = None  # None: by the file's name; b"": none
    extra: bytes = b""  # further field lines, each ended by CRLF


@dataclass(slots=True)
class HeaderRules:
    """The lines of a `_headers` file, by pattern, in their order."""

    rules: list[tuple[re.Pattern[bytes], list[tuple[str, str | None]]]] = field(
        default_factory=list
    )

    def forget(self, name: str) -> None:
        """Leave a field out of every rule; `name` in lower case."""
        for _, lines in self.rules:
            lines[:] = [line for line in lines if line[0].lower() != name]

    def apply(self, path: bytes) -> Presentation:
        """Return what is said of a path."""
        said: dict[str, tuple[str, list[str]]] = {}
        for pattern, lines in self.rules:
            if not pattern.fullmatch(path):
                continue
            for name, value in lines:
                key = name.lower()
                before = said.get(key, (name, []))[1]
                said[key] = (name, [] if value is None else [*before, value])
        # RFC 9110 §8.3: there is but one, so the last word counts.
        content_type = said.pop("content-type", ("", []))[1][-1:]
        cache_control = said.pop("cache-control", None)
        # RFC 9110 §5.3: a field said twice is a list, or in several lines if it is Set-Cookie.
        extra = [
            f"{name}: {value}\r\n"
            for key, (name, values) in said.items()
            for value in (values if key == "set-cookie" else [", ".join(values)])
            if value
        ]
        return Presentation(
            content_type[0] if content_type else None,
            None if cache_control is None else ", ".join(cache_control[1]).encode(),
            "".join(extra).encode(),
        )


def parse_headers(text: str, file: str, problems: list[Problem]) -> HeaderRules:
    """Read a `_headers` file; lines that cannot be used are told and left out."""
    found = HeaderRules()
    current: list[tuple[str, str | None]] | None = None
    fault: Callable[[int, str], None] = lambda number, why: problems.append(  # noqa: E731
        Problem(file, number, "error", why)
    )
    for number, line in _lines(text)[:MAX_RULES]:
        if line[0] not in " \t":
            current = []
            try:
                found.rules.append((_compile(unquote(line.strip())), current))
            except ValueError as error:
                fault(number, str(error))
            continue
        if current is None:
            fault(number, "a field before any path")
            continue
        try:
            name, value = _field(line.strip())
        except ValueError as error:
            fault(number, str(error))
        else:
            # Every answer carries this already, and nobody is helped by another value.
            if name.lower() != "x-content-type-options":
                current.append((name, value))
    return found


def _field(line: str) -> tuple[str, str | None]:
    if line.startswith("!"):
        name, value = line[1:].strip(), None
    else:
        name, colon, text = line.partition(":")
        value = text.strip()
        if not colon or not _FIELD_VALUE.fullmatch(value):
            raise ValueError("expected: Name: value")
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError(f"`{name}` is not a field name")
    if name.lower() in _OURS:
        raise ValueError(f"`{name}` is the server's to say")
    if name.lower() == "strict-transport-security":
        # RFC 6797 §7.2: never over plain HTTP, which serves the same files.
        raise ValueError(f"`{name}` is said by the setting tls.hsts, where it may be")
    return name, value
