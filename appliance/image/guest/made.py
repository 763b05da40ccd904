"""What importing makes of text, made when the image was built.

Named tuples and data classes compile their methods, and modules their patterns, each time that they
are imported: a sixth of what a boot's imports cost, and with it the whole of Python's parser and
compiler, which nothing else in a machine runs. A trial (image/trial.py) writes down which texts
were compiled, and this hands their code to the three functions of the library that ask for it; a
text that is not known is compiled as ever.

    texts     of `collections.namedtuple` and `dataclasses`: text → code
    patterns  of `re`: (pattern, flags) → what `_sre.compile` takes besides the pattern

Imports nothing that compiles before it is ready; the standard library.
"""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

PLACE = "/lib/appliance/made.marshal"


def lend(place: str = PLACE) -> None:
    """Use what is there; without the file all is compiled."""
    try:
        with open(place, "rb") as file:
            # At once: `marshal.load` would ask the file for every few octets.
            texts, patterns = marshal.loads(file.read())  # noqa: S302 - as trusted as our code
    except FileNotFoundError:
        return
    use(texts, patterns)


def use(
    texts: dict[str, CodeType], patterns: dict[tuple[str | bytes, int], tuple[Any, ...]]
) -> None:
    """Hand out code for texts and patterns from now on."""
    # Each as soon as it is there: the next one's import wants it. The names are the modules' own,
    # which hide the builtin ones.
    import collections

    def evaluate(text: str, names: dict[str, Any]) -> Any:
        return eval(texts.get(text, text), names)  # noqa: S307 - as `collections` does

    vars(collections)["eval"] = evaluate
    import re

    compiler: Any = vars(re)["_compiler"]
    compile_pattern, machine = compiler.compile, compiler._sre

    def compiled(pattern: Any, flags: int = 0) -> Any:
        known = patterns.get((pattern, int(flags))) if type(pattern) in (str, bytes) else None
        if known is None:
            return compile_pattern(pattern, flags)
        return machine.compile(pattern, *known)

    compiler.compile = compiled
    import dataclasses

    def execute(text: str, names: dict[str, Any], found: dict[str, Any]) -> None:
        exec(texts.get(text, text), names, found)  # noqa: S102 - as `dataclasses` does

    vars(dataclasses)["exec"] = execute


class Record:
    """What is compiled from now on: `used` gives it as `use` takes it, the same for the same."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._patterns: dict[tuple[str | bytes, int], tuple[Any, ...]] = {}
        self._now: tuple[str | bytes, int] | None = None
        import collections

        vars(collections)["eval"] = self._evaluate
        import re

        compiler: Any = vars(re)["_compiler"]
        self._sre, self._compile_pattern = compiler._sre, compiler.compile
        compiler.compile, compiler._sre = self._compiled, self
        import dataclasses

        vars(dataclasses)["exec"] = self._execute

    def __getattr__(self, name: str) -> Any:
        """Be `_sre` to the compiler of patterns, but for `compile`."""
        return getattr(self._sre, name)

    def compile(self, pattern: Any, *rest: Any) -> Any:
        """Note what a pattern came to."""
        if self._now is not None:
            flags, code, *more = rest  # the code has names for its numbers
            self._patterns[self._now] = (int(flags), [int(word) for word in code], *more)
        return self._sre.compile(pattern, *rest)

    def _compiled(self, pattern: Any, flags: int = 0) -> Any:
        self._now = (pattern, int(flags)) if type(pattern) in (str, bytes) else None
        try:
            return self._compile_pattern(pattern, flags)
        finally:
            self._now = None

    def _evaluate(self, text: str, names: dict[str, Any]) -> Any:
        self._texts[text] = "eval"
        return eval(text, names)  # noqa: S307 - as `collections` does

    def _execute(self, text: str, names: dict[str, Any], found: dict[str, Any]) -> None:
        self._texts[text] = "exec"
        exec(text, names, found)  # noqa: S102 - as `dataclasses` does

    def used(
        self,
    ) -> tuple[dict[str, CodeType], dict[tuple[str | bytes, int], tuple[Any, ...]]]:
        """Texts and patterns so far."""
        texts = {
            text: compile(text, "<string>", kind, dont_inherit=True)
            for text, kind in sorted(self._texts.items())
        }
        patterns = sorted(self._patterns.items(), key=lambda item: repr(item[0]))
        return texts, dict(patterns)
