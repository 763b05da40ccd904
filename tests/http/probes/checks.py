"""What a probe can expect; each check says what is wrong, in words short enough for a table."""

from __future__ import annotations

import gzip
import re
import zlib

from tests.http.probes.wire import Check, Talk


def both(*checks: Check) -> Check:
    """All of these."""

    def check(talk: Talk) -> str:
        return next((wrong for each in checks if (wrong := each(talk))), "")

    return check


def status(*wanted: int) -> Check:
    """The first final response has one of these statuses."""

    def check(talk: Talk) -> str:
        final = [code for code in talk.statuses if code >= 200]
        if not final:
            return "closed" if talk.closed else "silent"
        return "" if final[0] in wanted else str(final[0])

    return check


def statuses(*wanted: int) -> Check:
    """The responses have exactly these statuses."""

    def check(talk: Talk) -> str:
        return "" if talk.statuses == list(wanted) else str(talk.statuses)

    return check


def in_order(*begins: int) -> Check:
    """Three responses, of which the first have these statuses."""

    def check(talk: Talk) -> str:
        right = len(talk.responses) == 3 and talk.statuses[: len(begins)] == list(begins)
        return "" if right else str(talk.statuses)

    return check


def refused(*wanted: int) -> Check:
    """An error of these, or the connection closed without a word; and closed in any case."""

    def check(talk: Talk) -> str:
        if talk.statuses and talk.statuses[-1] not in wanted:
            return str(talk.statuses[-1])
        return "" if talk.closed else "goes on"

    return check


def field(name: str, pattern: str) -> Check:
    """A field of the last response matches as a whole, and stands there once."""

    def check(talk: Talk) -> str:
        if not talk.responses:
            return "silent"
        values = talk.responses[-1].all(name)
        if len(values) != 1:
            return f"{len(values)} × {name}"
        return "" if re.fullmatch(pattern, values[0], re.IGNORECASE) else f"{name}: {values[0]}"

    return check


def without(*names: str) -> Check:
    """The last response has none of these fields."""

    def check(talk: Talk) -> str:
        if not talk.responses:
            return "silent"
        return next((f"{name} sent" for name in names if talk.responses[-1].all(name)), "")

    return check


def lists(name: str, *members: str) -> Check:
    """A field of the last response lists all of these."""

    def check(talk: Talk) -> str:
        if not talk.responses:
            return "silent"
        found = {part.strip().lower() for part in talk.responses[-1][name].split(",")}
        missing = [member for member in members if member.lower() not in found]
        return f"no {missing[0]} in {name}" if missing else ""

    return check


def body(wanted: bytes) -> Check:
    """The last response has exactly this body."""

    def check(talk: Talk) -> str:
        if not talk.responses:
            return "silent"
        found = talk.responses[-1]
        return "" if found.body == wanted and found.complete else f"{len(found.body)} octets"

    return check


def body_size(most: int) -> Check:
    """All responses together have at most so many octets of body."""

    def check(talk: Talk) -> str:
        total = sum(response.octets for response in talk.responses)
        return "" if total <= most else f"{total} octets"

    return check


def decoded(wanted: bytes, coding: str) -> Check:
    """The body is this one under a content coding; "" for none, "any" for one that is smaller."""

    def check(talk: Talk) -> str:
        found = talk.first["content-encoding"].lower()
        if coding == "any":
            if not found:
                return "not coded"
        elif found != coding:
            return found or "identity"
        try:
            plain = _DECODERS[found](talk.first.body)
        except (KeyError, OSError, zlib.error, ValueError) as error:
            return f"{found}: {error}"
        return "" if plain == wanted else "other octets"

    return check


def _brotli(octets: bytes) -> bytes:
    import brotli

    plain: bytes = brotli.decompress(octets)
    return plain


def _zstd(octets: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(octets)


_DECODERS = {"": bytes, "gzip": gzip.decompress, "br": _brotli, "zstd": _zstd}


def open_still(talk: Talk) -> str:
    """The connection was not closed."""
    return "closes" if talk.closed else ""


def shut(talk: Talk) -> str:
    """The connection was closed."""
    return "" if talk.closed else "goes on"


def answered_once(talk: Talk) -> str:
    """There is one response at most: nothing was smuggled."""
    final = [code for code in talk.statuses if code >= 200]
    return f"answers {len(final)}" if len(final) > 1 else ""


def secret(talk: Talk) -> str:
    """Nothing of a file that is not to be served was sent."""
    if any(b"SECRET" in response.body or b"root:" in response.body for response in talk.responses):
        return "served"
    return ""


def relative(talk: Talk) -> str:
    """Location is a path on this host, without host or port, and no protocol-relative one."""
    location = talk.first["location"]
    if not location.startswith("/") or location.startswith(("//", "/\\")):
        return f"Location: {location}"
    return ""
