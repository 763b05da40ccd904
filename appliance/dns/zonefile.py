"""Master files (RFC 1035 §5) to zones, strictly: every fault with file and line, all in one run.

    lexer ─ statement ┬ directive: $TTL $ORIGIN $INCLUDE $GENERATE
                      └ record: owner, TTL and class, type, rdata → ZoneBuilder → checks

This module owns what dnspython's own reader hides: lines, names outside the zone, bounds on
directives, and going on after a fault. Rdata is dnspython's to parse, but for the few forms that a
large zone consists of (addresses and bare names), since a million of them must not take a minute.

An included file must lie in the main file's directory or below, links followed, and begins with
a copy of the includer's state. Imports dnspython and the leaves of this package.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from appliance.dns import names
from appliance.dns.checks import check
from appliance.dns.consts import AAAA, DNAME, MAX_TTL, NAME_FIELDS, SOA, A
from appliance.dns.errors import LocalError, Problem, Severity, WireError, ZoneError
from appliance.dns.lexer import Statement, generate_range, generate_text, statements
from appliance.dns.reader import MAX_RDATA, check_rdata, is_meta
from appliance.dns.zone import Zone, ZoneBuilder, collector_paused

MAX_DEPTH: Final = 8
"""Includes within includes; a person's zone has one or two, and a loop ends here."""
MAX_FILES: Final = 1000
"""Files of one zone, repeated ones counted again."""
MAX_GENERATED: Final = 1 << 20
"""Records that one zone's $GENERATE lines make together: sixteen reverse /16 zones."""
MAX_PROBLEMS: Final = 1000
"""Errors of one zone, past which the file is no master file at all; warnings that are told."""
SUFFIX: Final = ".zone"
"""Ending of the files that `load_zones` takes for main files."""
PROGRESS_EVERY: Final = 10_000
"""Records between two calls of a progress function."""

_TTL: Final = re.compile(r"(?:[0-9]{1,10}[wdhms]?)+", re.IGNORECASE | re.ASCII)
_TTL_PART: Final = re.compile(r"([0-9]+)([wdhms]?)", re.ASCII)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LENGTH: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_CLASS: Final = re.compile(r"IN|CH|HS|CS|NONE|ANY|CLASS[0-9]+", re.IGNORECASE | re.ASCII)
_NAMES: Final = {
    **{rtype: count for rtype, (before, count) in NAME_FIELDS.items() if not before},
    DNAME: 1,
}
del _NAMES[SOA]
"""Types whose data are so many names; dnspython does not know the older of them (RFC 1035 §3.3)."""


Progress = Callable[[int, float], None]
"""Told the number of records read, and which part of the main file (0 to 1)."""


class _FaultError(Exception):
    """A statement is wrong; the message is for the person who wrote it."""


class _TooMuchError(Exception):
    """Reading is given up."""


@dataclass(slots=True)
class State:
    """What one statement hands to the next, and an includer to the included."""

    file: int
    origin: bytes | None
    owner: bytes | None = None
    default_ttl: int | None = None
    """Seconds, from $TTL (RFC 2308 §4)."""
    last_ttl: int | None = None
    """Seconds, from the last record that said any (RFC 1035 §5.1)."""


class Reader:
    """Reads one zone; use once."""

    def __init__(
        self,
        root: Path | None,
        progress: Progress | None = None,
        *,
        judge: bool = True,
    ) -> None:
        """Included files must lie below `root`; None: there are none. `judge`: check the whole."""
        self.judge = judge
        self.root = root
        self.progress = progress
        self._line = 0
        self._lines_of_main = 1
        self.problems: list[Problem] = []
        self.files: list[str] = []
        self.builder: ZoneBuilder | None = None
        self.digest = hashlib.sha256()
        self._early: list[tuple[bytes, int, int, bytes, int]] = []
        """Records before the SOA, which alone says what the zone is called."""
        self._generated = 0
        self._told: dict[Severity, int] = {"error": 0, "warning": 0}
        self._count = 0
        self._types: dict[str, dns.rdatatype.RdataType] = {}
        self._owners: tuple[str, bytes | None, bytes] = ("", None, b"")
        """The last owner's text, origin and name: records of one name stand together."""
        self._origin_name: tuple[bytes | None, dns.name.Name | None] = (None, None)

    # Files.

    def read(self, name: str, text: str, state: State, depth: int = 0) -> None:
        """Read one file's text."""
        self.digest.update(text.encode("utf-8", "surrogateescape"))
        if depth == 0 and self.progress is not None:
            self._lines_of_main = text.count("\n") + 1
        self._lines(StringIO(text), name, state, depth)

    def text_of(self, path: Path) -> str:
        """A file's content; OSError."""
        return text_of(path)

    def _lines(self, lines: Iterable[str], name: str, state: State, depth: int) -> None:
        def fault(line: int, message: str) -> None:
            self.problem(name, line, "error", message)

        for statement in statements(lines, fault):
            if depth == 0:
                self._line = statement.line
            try:
                if statement.words[0][0] == "$" and not statement.indented:
                    self._directive(statement, state, depth)
                else:
                    self._record(statement, state)
            except (_FaultError, LocalError) as error:
                fault(statement.line, str(error))

    def problem(self, file: str, line: int, severity: Severity, message: str) -> None:
        """Note a problem; past `MAX_PROBLEMS` a warning is counted, an error is _TooMuchError."""
        self._told[severity] += 1
        if self._told[severity] <= MAX_PROBLEMS:
            self.problems.append(Problem(file, line, severity, message))
        elif severity == "error":
            raise _TooMuchError

    # Directives.

    def _directive(self, statement: Statement, state: State, depth: int) -> None:
        word, *words = statement.words
        match word.upper():
            case "$TTL":
                if len(words) != 1 or not _TTL.fullmatch(words[0]):
                    raise _FaultError("$TTL wants one time, like 3600 or 1h30m")
                state.default_ttl = _ttl(words[0])
            case "$ORIGIN":
                if len(words) != 1:
                    raise _FaultError("$ORIGIN wants one name")
                state.origin = self._name(words[0], state.origin)
            case "$INCLUDE":
                self._include(words, state, depth)
            case "$GENERATE":
                self._generate(statement.line, words, state)
            case _:
                raise _FaultError(f"unknown directive {word}")

    def _include(self, words: list[str], state: State, depth: int) -> None:
        if not 1 <= len(words) <= 2:
            raise _FaultError("$INCLUDE wants a file and perhaps an origin")
        if self.root is None:
            raise _FaultError("$INCLUDE is possible in files only")
        if depth >= MAX_DEPTH:
            raise _FaultError(f"more than {MAX_DEPTH} files include one another; is there a loop?")
        if len(self.files) >= MAX_FILES:
            raise _FaultError(f"more than {MAX_FILES} files")
        written = words[0].strip('"')
        path = Path(self.files[state.file]).parent / written
        try:
            if not path.resolve(strict=True).is_relative_to(self.root.resolve()):
                raise _FaultError(f"{written} lies outside the directory of the zone")
            text = self.text_of(path)
        except (OSError, RuntimeError) as error:
            raise _FaultError(f"cannot read {written}: {reason(error)}") from None
        origin = self._name(words[1], state.origin) if len(words) == 2 else state.origin
        inner = dataclasses.replace(state, file=len(self.files), origin=origin)
        self.files.append(str(path))
        self.read(str(path), text, inner, depth + 1)

    def _generate(self, line: int, words: list[str], state: State) -> None:
        if len(words) < 4:
            raise _FaultError("$GENERATE wants a range, an owner, a type and rdata")
        numbers = generate_range(words[0])
        self._generated += len(numbers)
        if self._generated > MAX_GENERATED:
            raise _FaultError(f"$GENERATE makes more than {MAX_GENERATED} records")
        for number in numbers:
            made = [generate_text(word, number) for word in words[1:]]
            self._record(Statement(line, False, made, line), state)

    # Records.

    def _record(self, statement: Statement, state: State) -> None:
        words = statement.words
        at = 0
        if not statement.indented:
            state.owner = self._owner(words[0], state.origin)
            at = 1
        owner = state.owner
        if owner is None:
            raise _FaultError("the first record has no owner")
        ttl: int | None = None
        seen_class = False
        while at < len(words):
            word = words[at]
            if ttl is None and _TTL.fullmatch(word):
                ttl = _ttl(word)
            elif not seen_class and _CLASS.fullmatch(word):
                seen_class = True
                if word.upper() not in ("IN", "CLASS1"):
                    raise _FaultError(f"class {word}: only IN is served")
            else:
                break
            at += 1
        else:
            raise _FaultError("the record has no type")
        rtype = self._type(words[at])
        rdata = self._rdata(rtype, words[at], words[at + 1 :], state.origin)
        if len(rdata) > MAX_RDATA:
            raise _FaultError(f"{len(rdata)} octets of data are too many for any message")
        ttl = self._effective_ttl(ttl, rtype, rdata, statement.line, state)
        # A plain number: what an image pickles must not bring dnspython with it.
        self._add(owner, int(rtype), ttl, rdata, state.file << 32 | statement.line)

    def _owner(self, word: str, origin: bytes | None) -> bytes:
        text, below, name = self._owners
        if text != word or below is not origin:
            name = self._name(word, origin)
            self._owners = (word, origin, name)
        return name

    def _name(self, word: str, origin: bytes | None) -> bytes:
        if word.isascii():
            return names.from_text(word, origin)
        # RFC 5890: what a person writes in another script goes into the zone as A-labels.
        try:
            wire = dns.name.from_text(word, self._dnspython_origin(origin)).to_wire()
        except (dns.exception.DNSException, UnicodeError) as error:
            raise _FaultError(f"{word}: {error}") from None
        assert wire is not None
        return wire

    def _dnspython_origin(self, origin: bytes | None) -> dns.name.Name | None:
        if self._origin_name[0] is not origin:
            name = None if origin is None else dns.name.Name([*names.labels(origin), b""])
            self._origin_name = (origin, name)
        return self._origin_name[1]

    def _type(self, word: str) -> dns.rdatatype.RdataType:
        rtype = self._types.get(word)
        if rtype is None:
            try:
                rtype = dns.rdatatype.from_text(word)
            except (dns.exception.DNSException, ValueError):
                raise _FaultError(f"unknown type {word}") from None
            if is_meta(rtype):
                raise _FaultError(f"{word} cannot stand in a zone")
            self._types[word] = rtype
        return rtype

    def _rdata(
        self, rtype: dns.rdatatype.RdataType, type_word: str, words: list[str], origin: bytes | None
    ) -> bytes:
        if len(words) == 1:
            word = words[0]
            try:
                if rtype == A:
                    return socket.inet_pton(socket.AF_INET, word)
                if rtype == AAAA:
                    return socket.inet_pton(socket.AF_INET6, word)
            except (OSError, UnicodeError, ValueError):
                raise _FaultError(f"{word} is no IPv{4 if rtype == A else 6} address") from None
        if words and words[0] == "\\#":
            return _generic(rtype, type_word, words[1:])
        if len(words) == _NAMES.get(rtype) and all(map(_is_plain, words)):
            return b"".join([names.from_text(word, origin) for word in words])
        try:
            rdata = dns.rdata.from_text(
                dns.rdataclass.IN,
                rtype,
                " ".join(words),
                origin=self._dnspython_origin(origin),
                relativize=False,
            ).to_wire()
            assert rdata is not None
            if rtype in _NAMES:
                check_rdata(rtype, rdata)
            return rdata
        except Exception as error:  # its rdata modules raise whatever int(), base64 and struct do
            what = " ".join(str(error).split()) or type(error).__name__
            raise _FaultError(f"bad {type_word.upper()} data: {what}") from None

    def _effective_ttl(
        self, ttl: int | None, rtype: int, rdata: bytes, line: int, state: State
    ) -> int:
        if ttl is not None:
            state.last_ttl = ttl
            return ttl
        if state.default_ttl is not None:
            return state.default_ttl
        if state.last_ttl is not None:
            return state.last_ttl
        if rtype != SOA:
            raise _FaultError("the record has no TTL and there is no $TTL")
        # RFC 1035 §5.1 leaves the first record's TTL open; before RFC 2308 it was this.
        state.last_ttl = min(int.from_bytes(rdata[-4:], "big"), MAX_TTL)
        message = f"no $TTL: the SOA's last field, {state.last_ttl}, is taken"
        self.problem(self.files[state.file], line, "warning", message)
        return state.last_ttl

    def _add(self, owner: bytes, rtype: int, ttl: int, rdata: bytes, where: int) -> None:
        builder = self.builder
        if builder is None:
            if rtype != SOA:
                self._early.append((owner, rtype, ttl, rdata, where))
                return
            builder = self.builder = ZoneBuilder(owner)
            for record in self._early:
                self._put(builder, *record)
            self._early.clear()
        self._put(builder, owner, rtype, ttl, rdata, where)
        self._count += 1
        if self.progress is not None and self._count % PROGRESS_EVERY == 0:
            self.progress(self._count, min(self._line / self._lines_of_main, 1.0))

    def _put(
        self, builder: ZoneBuilder, owner: bytes, rtype: int, ttl: int, rdata: bytes, where: int
    ) -> None:
        name = owner.lower()
        if name not in builder.nodes and not names.is_below(name, builder.origin):
            zone = names.to_text(builder.origin)
            self._at(where, "error", f"{names.to_text(owner)} lies outside the zone {zone}")
        elif rtype == SOA and name != builder.origin:
            zone = names.to_text(builder.origin)
            self._at(where, "error", f"SOA at {names.to_text(owner)}, not at {zone}")
        else:
            complaint = builder.add(owner, rtype, ttl, rdata, where)
            if complaint is not None:
                self._at(where, "warning", complaint)

    def _at(self, where: int, severity: Severity, message: str) -> None:
        self.problem(self.files[where >> 32], where & 0xFFFFFFFF, severity, message)

    # The end.

    def zone(self, expected: bytes | None) -> Zone:
        """The zone, or ZoneError with all problems; `expected` is what it must be called."""
        main = self.files[0]
        zone: Zone | None = None
        if self.builder is None:
            self.problem(main, 0, "error", "there is no SOA record, so this is no zone")
        else:
            zone = self.builder.finish(tuple(self.files), self.digest.digest())
            if expected is not None and zone.origin != expected.lower():
                line = zone.soa.where & 0xFFFFFFFF
                wanted = names.to_text(expected)
                self.problem(main, line, "error", f"the SOA is {zone.name}'s, not {wanted}'s")
            for problem in check(zone) if self.judge else ():
                self.problem(problem.file, problem.line, problem.severity, problem.message)
        problems = sorted(self.problems)
        untold = self._told["warning"] - MAX_PROBLEMS
        if untold > 0:
            problems.append(Problem(main, 0, "warning", f"{untold} more warnings like these"))
        if zone is None or any(problem.severity == "error" for problem in problems):
            raise ZoneError(problems)
        zone.problems = tuple(problems)
        return zone


def _generic(rtype: int, type_word: str, words: list[str]) -> bytes:
    """RFC 3597 §5: octets, of a type that is known or not."""
    try:
        data = bytes.fromhex("".join(words[1:]))
        if not _LENGTH.fullmatch(words[0]) or int(words[0]) != len(data):
            raise _FaultError(f"bad {type_word.upper()} data: {len(data)} octets, not {words[0]}")
        check_rdata(rtype, data)
    except (ValueError, IndexError):
        message = f"bad {type_word.upper()} data: \\# wants a length and octets in hexadecimal"
        raise _FaultError(message) from None
    except WireError as error:
        raise _FaultError(f"bad {type_word.upper()} data: {error}") from None
    return data


def _is_plain(word: str) -> bool:
    """True for a name that `names` can read."""
    return word.isascii() and '"' not in word


def _ttl(word: str) -> int:
    """Seconds of `3600` or `1h30m`."""
    seconds = sum(int(number) * _UNITS[unit] for number, unit in _TTL_PART.findall(word.lower()))
    if seconds > MAX_TTL:
        raise _FaultError(f"TTL {word} is more than {MAX_TTL} seconds (RFC 2181 §8)")
    return seconds


def reason(error: Exception) -> str:
    """Why a file cannot be read, without its name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def text_of(path: Path) -> str:
    """A master file's text; OSError."""
    # Comments may be in any encoding; what is not UTF-8 elsewhere fails where it is used.
    return path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def read(
    reader: Reader, name: str, text: str, origin: bytes | None, expected: bytes | None
) -> Zone:
    """Read a zone by a reader of one's own; as `read_text` otherwise."""
    reader.files.append(name)
    try:
        with collector_paused():
            reader.read(name, text, State(0, origin))
            return reader.zone(expected)
    except _TooMuchError:
        last = Problem(
            name, 0, "error", f"more than {MAX_PROBLEMS} problems; the rest was not read"
        )
        raise ZoneError(sorted([*reader.problems, last])) from None


def digest_of(files: Iterable[str]) -> bytes:
    """What `Zone.digest` is for these files, in the order of reading; empty if one is missing."""
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(text_of(Path(file)).encode("utf-8", "surrogateescape"))
    except OSError:
        return b""
    return digest.digest()


def read_text(text: str, origin: str | None = None) -> Zone:
    """Read a zone from a string; with `origin` the SOA must be that name's. Raises ZoneError."""
    reader = Reader(None)
    try:
        expected = None if origin is None else names.from_text(origin, names.ROOT)
    except LocalError as error:
        raise ZoneError([Problem("<text>", 0, "error", str(error))]) from None
    return read(reader, "<text>", text, expected, expected)


def read_file(
    path: Path,
    *,
    root: Path | None = None,
    progress: Progress | None = None,
    judge: bool = True,
) -> Zone:
    """Read a zone from a file; names in it are relative to the file's own name at first.

    Included files must lie below `root`, by default the file's directory. `progress` is called
    with the number of records, and the part of the file that they took, every `PROGRESS_EVERY`.
    Without `judge` the zone is taken as it is, if it can be read. Raises ZoneError.
    """
    try:
        text = text_of(path)
    except OSError as error:
        problem = Problem(str(path), 0, "error", f"cannot be read: {reason(error)}")
        raise ZoneError([problem]) from None
    try:
        origin = names.from_text(path.name.removesuffix(SUFFIX), names.ROOT)
    except LocalError:
        origin = None
    reader = Reader(root or path.parent, progress, judge=judge)
    return read(reader, str(path), text, origin, None)
