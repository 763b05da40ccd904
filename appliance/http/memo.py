"""The memo of request heads: the exact octets of a head → what was answered to them.

Sound because (each by its number in the tests):
1. the key is every octet through the blank line, so nothing the decision read is left out;
2. an entry is made only from a head that the strict parser accepted, for GET and HEAD, with no
   Content-Length, Transfer-Encoding, Expect or Upgrade; heads after which the connection closes
   (`Connection: close`, HTTP/1.0) have a memo of their own;
3. it is consulted only at a message boundary;
4. it belongs to one server object, so to one scheme and one local address, and is emptied when
   the site changes;
5. what it holds is the decision; Date, counters and the log line stay live.

Bounded in entries and octets by two generations: when the young one is full it becomes the old
one, and what is asked for again moves back.  A flood of distinct heads so costs constant work and
leaves in place whatever is asked for once in a generation.  Imports `message`.
"""

from __future__ import annotations

from appliance.http.message import Answer

# Octets of key and block in one generation; two of them exist.  Some 5,000 browser heads.
MAX_BYTES = 8 * 1024 * 1024
# Entries in one generation: about 1 MB of dictionary.
MAX_ENTRIES = 8192
# Octets counted for an entry beside its key and block: objects and dictionary slot.
ENTRY_OVERHEAD = 300


class Memo:
    """A bounded map from head to answer."""

    __slots__ = ("_bytes", "_max_bytes", "_max_entries", "_old", "_young")

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._young: dict[bytes, Answer] = {}
        self._old: dict[bytes, Answer] = {}
        self._bytes = 0  # in the young generation
        self._max_entries = max_entries
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, head: bytes) -> Answer | None:
        """Return what was answered to exactly this head."""
        answer = self._young.get(head)
        if answer is None and (answer := self._old.pop(head, None)) is not None:
            self.put(head, answer)
        return answer

    def put(self, head: bytes, answer: Answer) -> None:
        """Remember an answer; the caller vouches for the conditions above."""
        if len(self._young) >= self._max_entries or self._bytes >= self._max_bytes:
            self._old = self._young
            self._young = {}
            self._bytes = 0
        self._young[head] = answer
        self._bytes += len(head) + len(answer.block) + ENTRY_OVERHEAD

    def clear(self) -> None:
        """Forget everything: the site is another one."""
        self._young = {}
        self._old = {}
        self._bytes = 0
