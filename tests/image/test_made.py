"""What importing compiles is made when an image is built, and nothing else comes of it."""

from __future__ import annotations

import marshal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE = """
import collections, dataclasses, re, typing

@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 2

Pair = collections.namedtuple("Pair", "one two")

class Typed(typing.NamedTuple):
    a: int

WORD = re.compile(r"(?P<first>[a-z]+)-(\\d{2,3})", re.I)
OCTETS = re.compile(b"[^\\x00-\\x1f]+")
"""
ASK = """
import builtins, re, sys
sys.path[:0] = sys.argv[1:3]
{before}
compiled = []
sys.addaudithook(lambda event, args: event == "compile" and compiled.append(args))
import shapes
seen = (
    repr(shapes.Point(1)), shapes.Point(1) == shapes.Point(1, 2), hash(shapes.Point(1)),
    repr(shapes.Pair(1, 2)), shapes.Pair(1, 2)._replace(two=3), repr(shapes.Typed(4)),
    shapes.WORD.fullmatch("ABC-123")["first"], shapes.WORD.fullmatch("a-1"), shapes.WORD.flags,
    shapes.WORD, shapes.OCTETS.findall(b"a\\0b"),
)
print(seen)
texts = [args for args in compiled if not str(args[1]).endswith("shapes.py")]
{after}
"""


def ask(folder: Path, before: str, after: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(before=before, after=after), str(folder), str(ROOT)],
        cwd=folder, env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_made_is_used_and_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text(MODULE)
    record = (
        "from appliance.image.guest import made; record = made.Record()",
        "import marshal\nopen('made', 'wb').write(marshal.dumps(record.used()))",
    )
    plain = ask(tmp_path, "", "assert len(texts) > 3, compiled")
    assert ask(tmp_path, *record) == plain
    lent = "from appliance.image.guest import made; made.lend('made')"
    assert ask(tmp_path, lent, "assert not texts, texts") == plain
    texts, patterns = marshal.loads((tmp_path / "made").read_bytes())
    assert "lambda _cls, one, two: _tuple_new(_cls, (one, two))" in texts
    assert (b"[^\x00-\x1f]+", 0) in patterns


def test_what_is_not_known_is_compiled(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text(MODULE)
    nothing = "from appliance.image.guest import made; made.use({}, {})"
    absent = "from appliance.image.guest import made; made.lend('nowhere')"
    plain = ask(tmp_path, "", "")
    assert ask(tmp_path, nothing, "assert len(texts) > 3") == plain
    assert ask(tmp_path, absent, "assert len(texts) > 3") == plain
