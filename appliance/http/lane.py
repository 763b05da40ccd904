"""The fast lane of HTTP/2: header blocks known by their octets, answers encoded beforehand.

h2 spends some 180 µs on a request, nearly all of it on states and checks that come out the same
each time.  A request that is a single HEADERS frame with END_STREAM, whose decoded fields h2 has
found right before, and whose answer fits into every window, opens and closes its stream in one
step; it need not pass through h2 at all.  Sound because (each by its number in the tests):

1. every block is decoded here, once, in order, by the one decoder that h2 uses too, so the dynamic
   table (RFC 7541 §2.3) never differs from what h2 believes it to be;
2. a block is known by its octets only while that table stays as it was, and only if it did not
   change the table itself;
3. fields are answered from memory only after h2 accepted exactly these fields, on whichever
   connection of the same server, for GET and HEAD, and the site is still the same one;
4. what is sent refers to the static table alone, so h2's encoder keeps its state.

Imports hpack, `message`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from hpack import Decoder, OversizedHeaderListError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.struct import HeaderTuple
from hpack.table import HeaderTable

from appliance.http.message import Answer

# Blocks known on one connection: a page and its assets, a few times over.
MAX_BLOCKS = 512
# Octets of one DATA frame: RFC 9113 §4.2, what every peer accepts.
FRAME = 16384

_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
# RFC 7541 appendix A: name → its first index, (name, value) → index.
_NAMES: dict[bytes, int] = {}
_PAIRS: dict[tuple[bytes, bytes], int] = {}
for _index, _pair in enumerate(HeaderTable.STATIC_TABLE, 1):
    _NAMES.setdefault(_pair[0], _index)
    _PAIRS.setdefault(_pair, _index)

Fields = tuple[tuple[bytes, bytes], ...]


def _integer(value: int, bits: int, first: int) -> bytes:
    """Encode an integer with a prefix of so many bits (RFC 7541 §5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    octets = [first | most]
    value -= most
    while value >= 128:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _string(value: bytes) -> bytes:
    """Encode a string literal, Huffman-coded where that is shorter (RFC 7541 §5.2)."""
    coded = _huffman.encode(value)
    if len(coded) < len(value):
        return _integer(len(coded), 7, 0x80) + coded
    return _integer(len(value), 7, 0) + value


def encode_field(name: bytes, value: bytes) -> bytes:
    """Encode a field that leaves the dynamic table alone: indexed, or literal without indexing."""
    index = _PAIRS.get((name, value))
    if index is not None:
        return _integer(index, 7, 0x80)
    index = _NAMES.get(name, 0)
    octets = _integer(index, 4, 0)
    return octets + (b"" if index else _string(name)) + _string(value)


@lru_cache(maxsize=4096)
def fields_of(block: bytes) -> Fields:
    """Turn field lines into pairs; names are lower case in HTTP/2 (RFC 9113 §8.2)."""
    pairs = (line.partition(b": ") for line in block.split(b"\r\n") if line)
    return tuple((name.lower(), value) for name, _, value in pairs)


@lru_cache(maxsize=4096)
def encode_block(status: int, block: bytes) -> bytes:
    """Encode a status and field lines (RFC 7541 §6), :status first."""
    pairs = [(b":status", b"%d" % status), *fields_of(block)]
    return b"".join(encode_field(name, value) for name, value in pairs)


class Ready:
    """An answer that a list of fields gets, as frames of this second."""

    __slots__ = (
        "answer", "body", "count", "data", "fields", "head", "log", "made", "target", "urgent"
    )  # fmt: skip

    def __init__(self, answer: Answer, fields: Fields, target: bytes, log: bytes) -> None:
        self.answer = answer
        self.fields = fields
        self.target = target
        self.log = log  # the request as a head of HTTP/1.1
        self.body: list[tuple[bytes, bytes | memoryview]] = []  # frame header up to the stream
        self.head = b""  # of the HEADERS frame, up to the stream
        self.data = b""  # the header block
        self.made = b""  # the Date line they were made with
        self.count = 0  # sent and not yet counted
        # A long answer that is wanted sooner or later than others has to wait for its turn.
        self.urgent = answer.length <= FRAME or not any(name == b"priority" for name, _ in fields)
        octets = b"".join(part for part in answer.parts if isinstance(part, bytes | memoryview))
        view = memoryview(octets)
        for start in range(0, len(octets), FRAME):
            piece = view[start : start + FRAME]
            last = start + FRAME >= len(octets)
            # RFC 9113 §4.1: length, type DATA, END_STREAM on the last.
            self.body.append((len(piece).to_bytes(3) + (b"\x00\x01" if last else b"\x00\x00"),
                              octets if len(piece) == len(octets) else piece))  # fmt: skip

    def make(self, date: bytes, extra: bytes) -> None:
        """Encode the header block for the present second; `date` is its field line."""
        answer = self.answer
        self.made = date
        self.data = (
            encode_block(answer.status, answer.block + extra)
            + encode_field(b"date", date[6:-2])
        )  # fmt: skip
        # Type HEADERS; END_HEADERS, and END_STREAM when there is no content.
        flags = b"\x01\x04" if self.body else b"\x01\x05"
        self.head = len(self.data).to_bytes(3) + flags

    def frames(self, stream: bytes) -> bytes:
        """Return the octets for one stream, given by its four octets."""
        if len(self.body) == 1:
            head, piece = self.body[0]
            return b"".join((self.head, stream, self.data, head, stream, piece))
        parts: list[bytes | memoryview] = [self.head, stream, self.data]
        for head, piece in self.body:
            parts += (head, stream, piece)
        return b"".join(parts)


class LaneDecoder(Decoder):
    """hpack's decoder, asked before h2 asks it, with what it found kept for h2."""

    def __init__(self, max_header_list_size: int) -> None:
        super().__init__(max_header_list_size)
        self.blocks: dict[bytes, Ready] = {}  # sound while the dynamic table stays as it is
        self.steady = False  # the last block left the table as it was
        self.failed = False  # a block was no HPACK
        self._found: list[HeaderTuple] | Exception | None = None

    def ahead(self, block: bytes) -> Fields | None:
        """Decode a block now, for h2 to find it decoded; None when it is faulty."""
        try:
            found = self._decode(block)
        except Exception as error:  # h2 knows which of them mean what
            self._found = error
            return None
        self._found = found
        return tuple(found)

    def taken(self) -> None:
        """Forget what was decoded ahead: h2 is not going to ask for it."""
        self._found = None

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Return what was decoded ahead, or decode; raises what hpack raises."""
        found, self._found = self._found, None
        if found is None:
            return self._decode(data)
        if isinstance(found, Exception):
            raise found
        return found

    def _decode(self, block: bytes) -> list[HeaderTuple]:
        table = self.header_table
        entries = table.dynamic_entries
        before = (table.maxsize, len(entries), entries[0] if entries else None)
        try:
            return list(super().decode(block, True))
        except OversizedHeaderListError:
            raise
        except Exception:
            self.failed = True
            raise
        finally:
            newest = entries[0] if entries else None
            self.steady = before[:2] == (table.maxsize, len(entries)) and before[2] is newest
            if not self.steady:
                self.blocks.clear()
