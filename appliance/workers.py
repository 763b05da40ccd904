"""`serve --workers N`: forks workers, puts others in the place of those that die, ends them all.

    settings -> content -> queues, sockets, secrets -> fork, fork, ... -> signals, deaths, letters

The supervisor loads what is served before it forks, so that all have it in the same memory, and
keeps the queues open: a queue's flows stay with it, and go to the worker that takes its place. It
handles no frame and has no event loop, so a fork is never in the middle of anything. A reload is
`reloads`' business. May import everything.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from appliance.app import DRAIN, Say, StartError
from appliance.banner import plural
from appliance.family import Family, make_family
from appliance.mesh import Post
from appliance.reloads import Reloads
from appliance.worker import run_worker

if TYPE_CHECKING:
    from appliance.settings import Settings

GRACE: Final = DRAIN + 5.0
"""Seconds until a worker that was told to end is killed: its connections have five of them."""
STEADY: Final = 10.0
"""Seconds that a worker has to live for its death to count as the first."""
PAUSE: Final = 0.1
"""Seconds until another takes the place of one that died at once; doubled with each that does."""
LONGEST_PAUSE: Final = 30.0
TWICE: Final = 0.2
"""Seconds within which two signals are one: timeout(1) sends to the process, and to its group."""
TURN: Final = 60.0
"""Seconds until the keys of tickets are looked at again: those of before are to be forgotten."""
SOON: Final = 0.05
"""Seconds until letters that found no room are tried again."""


def run(settings: Settings, *, say: Say, verbose: bool = False) -> None:
    """Serve with several workers until a signal ends it; raises StartError if that cannot begin."""
    logging.basicConfig(
        level=settings.log.level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    cores = len(os.sched_getaffinity(0))
    if settings.net.workers > cores:
        say(f"warning: {settings.net.workers} workers share {plural(cores, 'processor')}")
    supervisor = Supervisor(make_family(settings, say, verbose))
    try:
        supervisor.run()
    finally:
        supervisor.close()


@dataclass
class Place:
    """A worker's place: who is in it now."""

    index: int
    pid: int = 0  # 0: nobody
    began: float = 0.0
    ready: bool = False
    deaths: int = 0  # one soon after another
    back_at: float = 0.0  # when somebody is to take it, if nobody has it


class Supervisor:
    """Keeps the workers of a family."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.post = Post(family.mesh, family.supervisor)
        self.places = [Place(index) for index in range(family.count)]
        self._failed = ""  # why a worker could not begin
        self._ending = False
        self._all_ready = False
        self._killed = False
        self._deadline = 0.0
        self._turn_at = 0.0
        self._lifeline, self._life = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._reloads = Reloads(family, self.post, self._living, self._leave_behind)
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Fork the workers, and look after them until all have ended; raises StartError."""
        self._listen_to_signals()
        gc.collect()
        gc.freeze()
        for place in self.places:
            if not self._ending:
                self._fork(place)
        selector = selectors.DefaultSelector()
        selector.register(self._woken, selectors.EVENT_READ, self._signals)
        selector.register(self.post.fileno(), selectors.EVENT_READ, self._letters)
        while any(place.pid for place in self.places) or not self._ending:
            for key, _ in selector.select(self._wait()):
                key.data()
            self._children()
            self._go_on()
            self.post.flush()
            if self.post.stuck:
                self._replace_stuck(self.post.stuck.pop())
        selector.close()
        if self._failed:
            raise StartError(self._failed)

    def close(self) -> None:
        """Let go of queues and sockets."""
        signal.set_wakeup_fd(-1)
        for queues in self.family.queues:
            for queue in queues:
                queue.close()
        self.family.mesh.close()
        for fd in (self._lifeline, self._life):
            os.close(fd)
        self._woken.close()
        self._wake.close()

    def _wait(self) -> float | None:
        now = time.monotonic()
        times: list[float] = []
        if not self._ending and not self._reloads.handing_over:
            times += [place.back_at for place in self.places if not place.pid]
        if self._ending and not self._killed:
            times.append(self._deadline)
        if (deadline := self._reloads.deadline()) is not None:
            times.append(deadline)
        if not self.post.flush():
            times.append(now + SOON)
        if self.family.certificates is not None:
            times.append(self._turn_at)
        return max(min(times) - now, 0.0) if times else None

    def _go_on(self) -> None:
        """What is due by the clock."""
        now = time.monotonic()
        if self.family.certificates is not None and now >= self._turn_at:
            self.family.certificates.turn()
            self._turn_at = now + TURN
        if self._ending:
            if now >= self._deadline and not self._killed:
                self._killed = True
                self.family.say("some workers did not end in time: they are killed")
                self._signal(signal.SIGKILL)
            return
        self._reloads.advance(now)
        for place in self.places:
            # Not while the others prepare: it would not know what.
            if not place.pid and place.back_at <= now and not self._reloads.handing_over:
                self._fork(place)

    # ------------------------------------------------------------------ children

    def _fork(self, place: Place) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as exc:
            self._not_forked(place, exc)
            return
        if not pid:
            self._be_a_worker(place.index)
        place.pid, place.began, place.ready = pid, time.monotonic(), False

    def _not_forked(self, place: Place, exc: OSError) -> None:
        """There is no memory or no process to be had: later, as for one that died at once."""
        if not self._all_ready:
            self._failed = self._failed or f"worker {place.index}: {exc.strerror}"
            self._end(signal.SIGTERM)
            return
        place.deaths += 1
        pause = _pause(place.deaths + 1)
        place.back_at = time.monotonic() + pause
        self.family.say(
            f"worker {place.index} cannot begin: {exc.strerror}; tried again in {pause:.1f} s"
        )

    def _be_a_worker(self, index: int) -> NoReturn:
        """In the child: serve, and never return."""
        code = 1
        try:
            self._leave_behind()
            for other, queues in enumerate(self.family.queues):
                if other != index:
                    for queue in queues:
                        queue.close()
            run_worker(self.family, index, self._lifeline, again=self._all_ready)
            code = 0
        except StartError as exc:
            post = Post(self.family.mesh, index)
            post.send(self.family.supervisor, "failed", index, str(exc))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _leave_behind(self) -> None:
        """In a child: what was the supervisor's own."""
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is a log to open again
        # Ctrl-C at a terminal reaches the supervisor alone, which tells the others once.
        os.setpgid(0, 0)
        os.close(self._life)
        self._woken.close()
        self._wake.close()

    def _children(self) -> None:
        """Hear of children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self._reloads.child_ended(pid, status, _how(status)):
                continue
            for place in self.places:
                if place.pid == pid:
                    self._letters()  # what it said before it ended
                    self._died(place, status)

    def _died(self, place: Place, status: int) -> None:
        pid, place.pid = place.pid, 0
        self._reloads.gone(place.index)
        how = _how(status)
        if self._ending:
            if status:
                self.family.say(f"worker {place.index} (process {pid}) {how}")
            return
        if not self._all_ready and (self._failed or not place.ready):
            self._failed = self._failed or f"worker {place.index} {how} while it began"
            self._end(signal.SIGTERM)
            return
        now = time.monotonic()
        place.deaths = place.deaths + 1 if now - place.began < STEADY else 1
        pause = _pause(place.deaths)
        place.back_at = now + pause
        when = f" in {pause:.1f} s" if pause else ""
        self.family.say(
            f"worker {place.index} (process {pid}) {how}: another takes its place{when}"
        )

    def _living(self) -> set[int]:
        return {place.index for place in self.places if place.pid}

    def _replace_stuck(self, index: int) -> None:
        if index < self.family.count and (pid := self.places[index].pid):
            self.family.say(f"worker {index} (process {pid}) does not hear: it is killed")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ------------------------------------------------------------------ signals

    def _listen_to_signals(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, _noted)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def _signals(self) -> None:
        try:
            numbers = self._woken.recv(64)
        except BlockingIOError:
            return
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._end(signal.Signals(number))
            elif number == signal.SIGHUP:
                self._reloads.soon()
            elif number == signal.SIGUSR1:
                self._signal(signal.SIGUSR1)  # logs are opened again

    def _end(self, number: signal.Signals) -> None:
        """End all; a second signal reaches them, too, and ends them at once."""
        now = time.monotonic()
        if not self._ending:
            self._deadline = now + GRACE
        elif now < self._deadline - GRACE + TWICE:
            return
        self._ending = True
        self._reloads.end()
        self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        for place in self.places:
            if place.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(place.pid, number)

    # ------------------------------------------------------------------ letters

    def _letters(self) -> None:
        for words, fd in self.post.receive():
            if fd >= 0:
                os.close(fd)
            kind, *rest = words
            if kind == "ready":
                self._ready(rest[0])
            elif kind == "failed":
                self._could_not_begin(*rest)
            elif kind == "reload":
                self._reloads.soon()
            elif kind == "addressing":
                self.family.addressing = rest[0]
            elif kind == "stuck":
                self._replace_stuck(rest[0])
            elif kind in ("prepared", "served"):
                self._reloads.answered(kind, *rest)

    def _could_not_begin(self, index: int, why: str) -> None:
        """Once all have begun it ends nothing: another tries again."""
        if self._all_ready:
            self.family.say(f"worker {index} cannot begin: {why}")
        else:
            self._failed = self._failed or why

    def _ready(self, index: int) -> None:
        place = self.places[index]
        place.ready = True
        if self._ending:
            return
        if self._all_ready:
            self.family.say(f"worker {index} (process {place.pid}) serves")
        elif all(each.ready for each in self.places):
            self._all_ready = True
            pids = ", ".join(str(each.pid) for each in self.places)
            self.family.say(f"  {self.family.count} workers, processes {pids}")


_SIGNALS: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD,
)  # fmt: skip


def _noted(_number: int, _frame: object) -> None:
    """The wake-up descriptor tells the loop."""


def _pause(deaths: int) -> float:
    """Seconds until another takes the place of one that died, so often one soon after another."""
    # What is as good as for ever would be too large for a float after eight hours.
    return 0.0 if deaths == 1 else min(PAUSE * 2 ** min(deaths - 2, 16), LONGEST_PAUSE)


def _how(status: int) -> str:
    """How a process ended, in words."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
