"""A changed zone into the master file that a person wrote, touching as little as can be.

A record that goes takes its line along; one that comes stands behind its likes, in their columns; a
record of the same name and type that replaces one takes its place, and its comment stays; of the
SOA only the words change that must. Everything else, comments and order too, stays as it is,
included files likewise. A $GENERATE line of whose records one changes is written out. What comes of
it is read again, and if it is not exactly the zone (there are files too clever for this), the whole
zone is written anew in one file under the old one's first comment.

Gives texts; writes no files. Imports the leaves of this package.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.dns import names
from appliance.dns.consts import SOA
from appliance.dns.errors import LocalError, ZoneError
from appliance.dns.lexer import Statement
from appliance.dns.serial import Record, records
from appliance.dns.text import rdata_text, relative, type_name
from appliance.dns.writer import TYPE_WIDTH, zone_text
from appliance.dns.zone import Zone, canonical
from appliance.dns.zonefile import Reader, State, read, text_of

_WORD: Final = re.compile(r'(?:[^\s;()"\\]|\\.|"(?:[^"\\\n]|\\.)*")+')
_COMMENT: Final = re.compile(r'(?:[^;"\\]|\\.|"(?:[^"\\\n]|\\.)*")*')
"""Everything on a line before its comment."""
_OWNER: Final = re.compile(r"\S+\s*|\s+")

Key = tuple[bytes, int, bytes]
"""Owner in lower case, type, canonical rdata."""


@dataclass
class _Entry:
    """One record as it stands in a file."""

    file: int
    first: int
    last: int
    indented: bool
    generated: bool
    record: Record
    owner_word: str
    origin: bytes
    default_ttl: int | None
    """What $TTL says there."""


@dataclass
class _File:
    """One file under edit: lines by number from 1; None: gone."""

    lines: list[str | None]
    behind: dict[int, list[str]] = field(default_factory=dict)
    """Lines to come behind a line."""

    def text(self) -> str:
        out: list[str] = []
        for number, line in enumerate(self.lines):
            if number and line is not None:
                out.append(line)
            out.extend(self.behind.get(number, ()))
        return "".join(line + "\n" for line in out)


class _Tracker(Reader):
    """Reads a zone and remembers where every record stands."""

    def __init__(self, root: Path, texts: dict[str, str] | None = None) -> None:
        """`texts`: contents that files would have, by name."""
        super().__init__(root)
        self.entries: list[_Entry] = []
        self.texts = texts if texts is not None else {}
        self._statement = Statement(0, False, [])
        self._state = State(0, None)
        self._generating = False

    def text_of(self, path: Path) -> str:
        found = self.texts.get(str(path))
        return text_of(path) if found is None else found

    def _generate(self, line: int, words: list[str], state: State) -> None:
        self._generating = True
        try:
            super()._generate(line, words, state)
        finally:
            self._generating = False

    def _record(self, statement: Statement, state: State) -> None:
        self._statement, self._state = statement, state
        super()._record(statement, state)

    def _add(self, owner: bytes, rtype: int, ttl: int, rdata: bytes, where: int) -> None:
        super()._add(owner, rtype, ttl, rdata, where)
        statement, state = self._statement, self._state
        self.entries.append(
            _Entry(
                where >> 32,
                statement.line,
                statement.end,
                statement.indented,
                self._generating,
                (owner, rtype, ttl, rdata),
                "" if statement.indented else statement.words[0],
                state.origin or names.ROOT,
                state.default_ttl,
            )
        )


def _key(record: Record) -> Key:
    return record[0].lower(), record[1], canonical(record[1], record[3])


class Rewriter:
    """Makes the texts for one zone; use once. Reads the files as they are now."""

    def __init__(self, zone: Zone, main: Path, root: Path) -> None:
        """`zone`: what the files are to say; OSError, ZoneError if they cannot be read."""
        self._zone = zone
        self._main = main
        self._root = root
        tracker = _Tracker(root)
        text = text_of(main)
        origin = zone.apex.owner
        self.before = read(tracker, str(main), text, _first_origin(main), None)
        if self.before.origin != origin.lower():
            raise LocalError(f"{main} is another zone's file now")
        self._entries = tracker.entries
        self._names = tracker.files
        self._files = [
            _File(["", *text_of(Path(name)).removesuffix("\n").split("\n")])
            for name in tracker.files
        ]
        self.whole = False
        """The zone had to be written anew."""

    def texts(self) -> dict[str, str]:
        """New contents by file name, only of files that change; LocalError if there is no way."""
        old = {_key(record): record for record in records(self.before)}
        new = {_key(record): record for record in records(self._zone)}
        gone = [old[key] for key in old if key not in new or new[key][2] != old[key][2]]
        come = [new[key] for key in new if key not in old or new[key][2] != old[key][2]]
        try:
            self._change(gone, come)
            self._soa()
            out = self._changed_texts()
            if self._is_right(out):
                return out
        except (LocalError, ValueError, IndexError, KeyError):
            pass
        self.whole = True
        out = {str(self._main): self._anew()}
        if not self._is_right(out):
            # It would not be read again, and the zone be gone with the next start.
            raise LocalError("what would be written is not what is served")
        return out

    def digest(self, out: dict[str, str]) -> bytes:
        """What `Zone.digest` will be when `texts` has been written."""
        digest = hashlib.sha256()
        for name in [str(self._main)] if self.whole else self._names:
            text = out.get(name)
            content = text_of(Path(name)) if text is None else text
            digest.update(content.encode("utf-8", "surrogateescape"))
        return digest.digest()

    def _changed_texts(self) -> dict[str, str]:
        out: dict[str, str] = {}
        for name, file in zip(self._names, self._files, strict=True):
            text = file.text()
            if text != text_of(Path(name)) and out.setdefault(name, text) != text:
                raise LocalError("one file, read twice, is to change in two ways")
        return out

    def _is_right(self, out: dict[str, str]) -> bool:
        main = str(self._main)
        tracker = _Tracker(self._root, out)
        text = out.get(main)
        try:
            zone = read(
                tracker,
                main,
                text_of(self._main) if text is None else text,
                _first_origin(self._main),
                None,
            )
        except ZoneError:
            return False
        mine = {(*_key(record), record[2]) for record in records(self._zone)}
        theirs = {(*_key(record), record[2]) for record in records(zone)}
        return (
            mine == theirs
            and zone.soa.rdatas == self._zone.soa.rdatas
            and zone.soa.ttl == self._zone.soa.ttl
        )

    def _anew(self) -> str:
        """The zone in one file, under the comment that the old one began with."""
        head: list[str] = []
        for line in text_of(self._main).splitlines():
            if not line.startswith(";"):
                break
            head.append(line)
        return "".join(line + "\n" for line in head) + zone_text(self._zone)

    # Single records.

    def _change(self, gone: list[Record], come: list[Record]) -> None:
        where: dict[Key, _Entry] = {}
        for entry in self._entries:
            where.setdefault(_key(entry.record), entry)
        expanded: set[tuple[int, int]] = set()
        dropped = {_key(record) for record in gone}
        for record in gone:
            entry = where[_key(record)]
            if entry.generated:
                at = (entry.file, entry.first)
                if at not in expanded:
                    expanded.add(at)
                    self._expand(entry, dropped)
                continue
            twin = next((one for one in come if _is_twin(one, record)), None)
            if twin is not None and self._replace(entry, twin):
                come = [one for one in come if one is not twin]
                entry.record = twin
            else:
                self._delete(entry)
        for record in come:
            self._insert(record)

    def _expand(self, entry: _Entry, dropped: set[Key]) -> None:
        """Write a $GENERATE line out, but for the records that go."""
        file = self._files[entry.file]
        line = file.lines[entry.first]
        lines = [f"; {line}"]
        lines += [
            self._line(one.record, one, 0)
            for one in self._entries
            if one.generated
            and (one.file, one.first) == (entry.file, entry.first)
            and _key(one.record) not in dropped
        ]
        file.lines[entry.first] = None
        file.behind.setdefault(entry.first, [])[:0] = lines

    def _replace(self, entry: _Entry, record: Record) -> bool:
        """Put other data, or another TTL, in a record's place; False if it spans lines."""
        file = self._files[entry.file]
        line = file.lines[entry.first]
        if entry.first != entry.last or line is None:
            return False
        body = _COMMENT.match(line)
        assert body is not None
        if "(" in _WORD.sub("", body[0]):
            return False
        words = list(_WORD.finditer(body[0]))
        kind = next(
            (n for n, word in enumerate(words[0 if entry.indented else 1 :], not entry.indented)
             if _is_type(word[0], record[1])),
            None,
        )  # fmt: skip
        if kind is None or kind + 1 >= len(words):
            return False
        head = line[: words[kind + 1].start()]
        if record[2] != entry.record[2]:
            head = self._with_ttl(words, kind, line, record, entry)
        tail = line[words[-1].end() :]
        data = rdata_text(record[1], record[3], entry.origin)
        old = line[words[kind + 1].start() : words[-1].end()]
        if tail.strip() and len(data) < len(old):
            data = data.ljust(len(old))  # the comment stays in its column
        elif tail.startswith(" ") and len(data) > len(old):
            spare = min(len(data) - len(old), len(tail) - len(tail.lstrip()) - 1)
            tail = tail[max(spare, 0) :]
        file.lines[entry.first] = (head + data + tail).rstrip()
        return True

    @staticmethod
    def _with_ttl(
        words: list[re.Match[str]], kind: int, line: str, record: Record, entry: _Entry
    ) -> str:
        """The line up to the data, with another TTL or none."""
        begin = 0 if entry.indented else 1
        owner = line[: words[begin].start()]
        between = [word[0] for word in words[begin:kind] if word[0].upper() in ("IN", "CLASS1")]
        ttl = [] if record[2] == entry.default_ttl else [str(record[2])]
        data_at = words[kind + 1].start()
        head = owner + " ".join([*ttl, *between, words[kind][0]])
        return head.ljust(data_at - 1) + " "

    def _delete(self, entry: _Entry) -> None:
        """Take a record's lines away; a record that leant on its owner gets it written."""
        file = self._files[entry.file]
        if not entry.indented:
            self._hand_on(entry, file)
        for number in range(entry.first, entry.last + 1):
            file.lines[number] = None
        entry.generated = True  # nothing is inserted behind it

    def _hand_on(self, entry: _Entry, file: _File) -> None:
        heir = next(
            (
                one
                for one in self._entries
                if one.file == entry.file
                and one.first > entry.last
                and file.lines[one.first] is not None
                and not one.generated
            ),
            None,
        )
        if heir is None or not heir.indented:
            return
        line = file.lines[heir.first]
        assert line is not None
        blank = len(line) - len(line.lstrip())
        word = relative(heir.record[0], heir.origin)
        file.lines[heir.first] = word.ljust(max(blank - 1, 0)) + " " + line.lstrip()
        heir.indented = False
        heir.owner_word = word

    def _insert(self, record: Record) -> None:
        """Put a record behind its likes: same name and type, same name, same parent, the end."""
        living = [one for one in self._entries if not one.generated]
        name = record[0].lower()
        place: _Entry | None = None
        for fits in (
            lambda one: one.record[0].lower() == name and one.record[1] == record[1],
            lambda one: one.record[0].lower() == name,
            lambda one: one.file == 0,
            lambda _: True,
        ):
            place = next((one for one in reversed(living) if fits(one)), None)
            if place is not None:
                break
        if place is None:
            raise LocalError("there is no place for a record")
        file = self._files[place.file]
        same = place.record[0].lower() == name
        if not same:
            self._keep_owner(place, file)
        model = file.lines[place.first] if place.first == place.last else None
        column = _column(model, place) if model is not None else 16
        file.behind.setdefault(place.last, []).append(self._line(record, place, column))

    def _keep_owner(self, place: _Entry, file: _File) -> None:
        """What follows a foreign record must not lean on it."""
        heir = next(
            (one for one in self._entries if one.file == place.file and one.first > place.last),
            None,
        )
        if heir is not None and heir.indented and file.lines[heir.first] is not None:
            line = file.lines[heir.first]
            assert line is not None
            blank = len(line) - len(line.lstrip())
            word = relative(heir.record[0], heir.origin)
            file.lines[heir.first] = word.ljust(max(blank - 1, 0)) + " " + line.lstrip()
            heir.indented = False

    @staticmethod
    def _line(record: Record, place: _Entry, column: int) -> str:
        owner, rtype, ttl, rdata = record
        word = relative(owner, place.origin)
        said = "" if ttl == place.default_ttl else f"{ttl} "
        kind = f"{type_name(rtype):<{TYPE_WIDTH - 2}}"
        head = word.ljust(max(column - 1, 0)) + " "
        return f"{head}{said}IN {kind} {rdata_text(rtype, rdata, place.origin)}"

    # The SOA.

    def _soa(self) -> None:
        """Change those words of the SOA that are not what they should be."""
        entry = next(one for one in self._entries if one.record[1] == SOA)
        old = rdata_text(SOA, self.before.soa.rdatas[0], entry.origin).split()
        new = rdata_text(SOA, self._zone.soa.rdatas[0], entry.origin).split()
        if self.before.soa.ttl != self._zone.soa.ttl:
            raise LocalError("the TTL of the SOA has changed")
        file = self._files[entry.file]
        words: list[tuple[int, int, int]] = []
        for number in range(entry.first, entry.last + 1):
            line = file.lines[number]
            assert line is not None
            body = _COMMENT.match(line)
            assert body is not None
            words += [(number, word.start(), word.end()) for word in _WORD.finditer(body[0])]
        for index in range(6, -1, -1):
            if old[index] == new[index]:
                continue
            number, start, end = words[index - 7]
            line = file.lines[number]
            assert line is not None
            file.lines[number] = line[:start] + new[index] + line[end:]


def _is_twin(one: Record, other: Record) -> bool:
    return one[1] == other[1] and one[0].lower() == other[0].lower()


def _is_type(word: str, rtype: int) -> bool:
    return word.upper() in (type_name(rtype), f"TYPE{rtype}")


def _column(line: str, place: _Entry) -> int:
    """Where what follows the owner begins on a line."""
    found = _OWNER.match(line)
    column = found.end() if found is not None and found[0][-1:].isspace() else 0
    return column or len(place.owner_word) + 1


def _first_origin(main: Path) -> bytes | None:
    try:
        return names.from_text(main.name.removesuffix(".zone"), names.ROOT)
    except LocalError:
        return None
