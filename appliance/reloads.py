"""A reload for several workers: loaded once, read by all of them, and then served by all or none.

    a child loads ── file in memory ──> every worker prepares ──> every worker serves
          └ an error, or a worker that cannot: all drop it, and serve the old on

The child has all that is served now, so that it reads only what has changed, and takes its time
beside the supervisor. May import everything but the workers.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from appliance.banner import plural
from appliance.content import Content, load_content
from appliance.mesh import Post, file_of

if TYPE_CHECKING:
    from appliance.family import Family

PATIENCE: Final = 60.0
"""Seconds that workers have to read, and then to serve, what was loaded."""


@dataclass
class Reload:
    """A reload under way."""

    number: int
    began: float
    loader: int  # the child that loads; 0: it is done
    result: int  # the file that it writes to
    content: Content | None = None
    waiting: set[int] = field(default_factory=set)  # workers that have yet to prepare, or to serve
    until: float = 0.0  # when these have to be done
    serving: bool = False


class Reloads:
    """The reloads of a family, one at a time.

    `living` gives the numbers of the workers that there are; `leave_behind` is called in a child.
    """

    def __init__(
        self,
        family: Family,
        post: Post,
        living: Callable[[], set[int]],
        leave_behind: Callable[[], None],
    ) -> None:
        self._family = family
        self._post = post
        self._living = living
        self._leave_behind = leave_behind
        self._now: Reload | None = None
        self._wanted = False
        self._number = 0
        self._over = False

    @property
    def handing_over(self) -> bool:
        """Whether workers are between the old and the new; nobody should come just now."""
        return self._now is not None and not self._now.loader

    def deadline(self) -> float | None:
        """When `advance` is due, if ever."""
        return self._now.until if self._now is not None and self.handing_over else None

    def soon(self) -> None:
        """Load again, now or when the reload under way is over."""
        self._wanted = True
        if self._now is None and not self._over:
            self._begin()

    def end(self) -> None:
        """Begin none any more."""
        self._over = True
        if self._now is not None and self._now.loader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._now.loader, signal.SIGKILL)

    def advance(self, now: float) -> None:
        """Give up waiting for workers that do not answer."""
        reload = self._now
        if reload is not None and self.handing_over and now >= reload.until:
            if reload.serving:
                self._finished(reload)  # whoever hangs is not waited for
            else:
                self._failed(reload, f"worker {min(reload.waiting)} does not answer")

    def _begin(self) -> None:
        self._wanted = False
        self._number += 1
        result = -1
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            result = file_of(b"")
            pid = os.fork()
        except OSError as exc:
            if result >= 0:
                os.close(result)
            self._family.say(f"not reloaded: {exc.strerror}; the old is served on")
            return
        if not pid:
            code = 1
            try:
                self._leave_behind()
                self._load(result)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        self._now = Reload(self._number, time.monotonic(), pid, result)

    def _load(self, result: int) -> None:
        """In the child: leave the content, as workers need it, in the file."""
        content = load_content(self._family.settings, before=self._family.content)
        nothing: Any = None  # workers edit the catalogs that they have
        with open(result, "wb", closefd=False) as file:
            pickle.dump(replace(content, catalog=nothing), file, protocol=5)

    def child_ended(self, pid: int, status: int, how: str) -> bool:
        """Hear of a child; False when it is not ours."""
        reload = self._now
        if reload is None or pid != reload.loader:
            return False
        reload.loader = 0
        if self._over:
            return True
        if status:
            self._failed(reload, f"what loads it {how}")
            return True
        with open(os.dup(reload.result), "rb") as file:
            file.seek(0)
            content: Content = pickle.load(file)  # noqa: S301 - of our own child
        for problem in content.problems:
            self._family.say(f"{problem.severity}: {problem}")
        if content.site_errors:
            self._failed(reload, plural(content.site_errors, "error"))
            return True
        reload.content = content
        self._ask(reload, "prepare", reload.result)
        return True

    def _ask(self, reload: Reload, word: str, blob: int = -1) -> None:
        """Have every worker take a step."""
        reload.until = time.monotonic() + PATIENCE
        reload.waiting = self._living()
        for index in sorted(reload.waiting):
            self._post.send(index, word, reload.number, blob=blob)
        self._look(reload)

    def answered(self, kind: str, index: int, number: int, well: bool = True) -> None:
        """A worker has prepared, or serves."""
        reload = self._now
        if reload is None or number != reload.number or (kind == "served") != reload.serving:
            return
        if not well:
            self._failed(reload, f"worker {index} cannot take it")
            return
        self.gone(index)

    def gone(self, index: int) -> None:
        """A worker has done its step, or is no more: who comes after it has the new."""
        if (reload := self._now) is not None and self.handing_over:
            reload.waiting.discard(index)
            self._look(reload)

    def _look(self, reload: Reload) -> None:
        """Take the next step when all have taken the last."""
        if reload.waiting:
            return
        if reload.serving:
            self._finished(reload)
            return
        assert reload.content is not None
        reload.serving = True
        self._family.content = reload.content  # from here on, for whoever takes a place
        self._ask(reload, "serve")

    def _finished(self, reload: Reload) -> None:
        took = time.monotonic() - reload.began
        self._family.say(f"reloaded in {took:.2f} s: {self._family.content.summary}")
        self._end(reload)

    def _failed(self, reload: Reload, why: str) -> None:
        for index in self._living():
            self._post.send(index, "drop", reload.number)
        self._family.say(f"not reloaded: {why}; the old is served on")
        self._end(reload)

    def _end(self, reload: Reload) -> None:
        os.close(reload.result)
        self._now = None
        # What is new is as little garbage as what was there before.
        gc.collect()
        gc.freeze()
        if self._wanted and not self._over:
            self._begin()
