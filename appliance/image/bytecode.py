"""Sources become bytecode, the same octets for the same source: run as a program of its own.

    python -S -s -P bytecode.py LIST OUT

LIST is JSON: a list of pairs of a source and its place below OUT. What the compiler writes depends
on the seed of hashes and on what the process has interned before, so the seed is fixed by the
caller and every file goes through `marshal` twice. Docstrings are left out (-OO); so are
assertions, which the tests have had. Imports the standard library only, and none of ours.
"""

from __future__ import annotations

import json
import marshal
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

UNCHECKED = (0b01).to_bytes(4, "little") + bytes(8)
"""PEP 552: known by a hash, which nobody is to compare with a source that is not there."""


def compile_all(pairs: list[tuple[str, str]], out: Path) -> None:
    """Compile each source to its place."""
    for source, place in pairs:
        code = compile(Path(source).read_bytes(), place, "exec", dont_inherit=True, optimize=2)
        data = marshal.dumps(marshal.loads(marshal.dumps(code)))  # noqa: S302 - made just now
        target = (out / place).with_suffix(".pyc")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(MAGIC_NUMBER + UNCHECKED + data)


if __name__ == "__main__":
    compile_all(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
