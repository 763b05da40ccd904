"""Several workers: what they cannot be, and zones that follow the first worker's."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import pickle
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.app import StartError
from appliance.config import ConfigError, load
from appliance.content import Content
from appliance.dns import Catalog, Zone
from appliance.dns.authority import Authority, Options
from appliance.dns.reload import LoadedZones
from appliance.dns.service import Service
from appliance.family import _certificates as family_certificates
from appliance.family import settings_of
from appliance.mesh import Mesh, Post, blob_of, file_of
from appliance.parts.mirror import Mirror, Publisher, of_a_follower
from appliance.reloads import Reload, Reloads
from appliance.tls.contexts import TICKET_SECONDS
from appliance.worker import Worker
from appliance.workers import Supervisor

ZONE = """$ORIGIN example.test.
$TTL 60
@ IN SOA ns hostmaster {serial} 3600 900 604800 60
 IN NS ns
ns IN A 192.0.2.1
www IN A {address}
"""
QUESTION = b"\0\1\1\0\0\1\0\0\0\0\0\0\3www\7example\4test\0\0\1\0\1"


def test_what_several_workers_cannot_have(tmp_path: Path) -> None:
    path = tmp_path / "appliance.toml"
    path.write_text("[net]\nworkers = 2\n")
    with pytest.raises(
        ConfigError, match=r"appliance.toml:2: .*must be 1, since the link is a pair"
    ):
        load(path, {})
    for settings in ("workers = 1", 'workers = 2\nlink = "tap:a"\n[[net.more]]\nlink = "tap:b"'):
        path.write_text(f"[net]\n{settings}\n")
        assert load(path, {}).net.workers == int(settings[10])


def test_ticket_keys_are_common_for_a_year(tmp_path: Path) -> None:
    """Though there was no certificate before the fork, and of all services."""
    path = tmp_path / "appliance.toml"
    path.write_text('[[certificate]]\nchain = "absent.pem"\n')
    certificates = family_certificates(load(path, {}))
    assert certificates is not None
    assert not certificates.ready
    web, dot = (certificates.contexts(name, ()) for name in ("https", "dot"))
    assert web._tickets is dot._tickets is certificates._tickets
    assert len(web._tickets._ahead) * TICKET_SECONDS >= 365 * 86400
    assert certificates.contexts("https", ()) is web


def test_each_worker_records_by_itself(tmp_path: Path) -> None:
    """What it sees, in files of its own."""
    path = tmp_path / "appliance.toml"
    path.write_text('[net]\nlink = "tap:a"\nworkers = 2\npcap = "x.pcap"\ntrace = "y.trace"\n')
    family: Any = SimpleNamespace(settings=load(path, {}), banner=True)
    for index in (0, 1):
        net = settings_of(family, index).net
        assert net.pcap == tmp_path / f"x.worker{index}.pcap"
        assert net.trace == tmp_path / f"y.worker{index}.trace"
        assert net.probe is None


def test_who_replaces_the_first_worker_asks_for_no_address_again(tmp_path: Path) -> None:
    """The others use those that were given, on all links (RFC 5227 §2.1: probed before the use)."""
    path = tmp_path / "appliance.toml"
    path.write_text('[net]\nlink = "tap:a"\nworkers = 2\n[[net.more]]\nlink = "tap:b"\n')
    settings = load(path, {})
    for banner, wanted in ((True, None), (False, False)):
        family: Any = SimpleNamespace(settings=settings, banner=banner)
        net = settings_of(family, 0).net
        assert [cable.probe for cable in (net, *net.more)] == [wanted, wanted]


@pytest.mark.parametrize("number", [0, -1, 257])
def test_how_many_workers_there_can_be(tmp_path: Path, number: int) -> None:
    path = tmp_path / "appliance.toml"
    path.write_text(f'[net]\nlink = "tap:a"\nworkers = {number}\n')
    with pytest.raises(ConfigError, match="an integer from 1 to 256"):
        load(path, {})


class Loading(Reloads):
    """Reloads whose child is the test."""

    def __init__(self) -> None:
        self.mesh = Mesh(2)
        self.said: list[str] = []
        self.family = SimpleNamespace(content="old", say=self.said.append)
        self.alive = {0, 1}
        family: Any = self.family
        post = Post(self.mesh, 2)
        super().__init__(family, post, lambda: set(self.alive), lambda: None)
        self.workers = [Post(self.mesh, 0), Post(self.mesh, 1)]

    def _begin(self) -> None:
        self._wanted = False
        self._number += 1
        self._now = Reload(self._number, 0.0, 4711, file_of(b""))

    def loaded(self, errors: int = 0) -> None:
        """The child has loaded."""
        assert self._now is not None
        content = SimpleNamespace(problems=(), site_errors=errors, summary="all of it")
        os.write(self._now.result, pickle.dumps(content))
        assert self.child_ended(4711, 0, "")

    def told(self) -> list[list[str]]:
        """What the workers have been told."""
        found: list[list[str]] = []
        for worker in self.workers:
            letters = list(worker.receive())
            for _, fd in letters:
                if fd >= 0:
                    os.close(fd)
            found.append([words[0] for words, _ in letters])
        return found


@pytest.fixture
def loading() -> Iterator[Loading]:
    made = Loading()
    yield made
    made.mesh.close()


def test_a_reload_waits_for_all(loading: Loading) -> None:
    """Nobody serves the new before all have it."""
    loading.soon()
    loading.loaded()
    assert loading.told() == [["prepare"], ["prepare"]]
    loading.answered("prepared", 0, 1)
    assert loading.told() == [[], []]
    assert loading.family.content == "old"
    loading.answered("prepared", 1, 1)
    assert loading.told() == [["serve"], ["serve"]]
    assert loading.family.content.summary == "all of it"
    for worker in (0, 1):
        assert loading.handing_over
        loading.answered("served", worker, 1)
    assert not loading.handing_over
    assert "all of it" in loading.said[-1]


@pytest.mark.parametrize("reason", ["errors", "refusal", "silence", "loader"])
def test_a_reload_that_fails_fails_for_all(loading: Loading, reason: str) -> None:
    loading.soon()
    if reason == "errors":
        loading.loaded(errors=2)
    elif reason == "loader":
        assert loading.child_ended(4711, 9, "was ended by SIGKILL")
    else:
        loading.loaded()
        loading.answered("prepared", 0, 1)
        if reason == "refusal":
            loading.answered("prepared", 1, 1, False)
        else:
            deadline = loading.deadline()
            assert deadline is not None
            loading.advance(deadline - 0.1)
            assert loading.handing_over
            loading.advance(deadline)
    assert loading.said[-1].startswith("not reloaded: ")
    assert [told[-1] for told in loading.told()] == ["drop", "drop"]
    assert loading.family.content == "old"
    assert not loading.handing_over


def test_a_worker_that_dies_holds_up_no_reload(loading: Loading) -> None:
    """Whoever takes its place has the new; and one asked for meanwhile follows."""
    loading.soon()
    loading.loaded()
    loading.soon()
    loading.answered("prepared", 0, 1)
    loading.alive = {0}
    loading.gone(1)
    assert loading.told()[0] == ["prepare", "serve"]
    loading.alive = set()
    loading.gone(0)
    assert loading.family.content.summary == "all of it"
    loading.loaded()  # the second; there is nobody to ask
    assert sum(line.startswith("reloaded") for line in loading.said) == 2


def test_a_reload_that_cannot_be_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory for a child the old is served on, and the next one is begun."""
    mesh, said = Mesh(1), list[str]()
    family: Any = SimpleNamespace(content="old", say=said.append)
    reloads = Reloads(family, Post(mesh, 1), lambda: {0}, lambda: None)
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", no_memory)
    reloads.soon()
    assert said == ["not reloaded: Cannot allocate memory; the old is served on"]
    assert not reloads.handing_over
    assert set(os.listdir("/proc/self/fd")) == before
    reloads.soon()
    assert len(said) == 2
    mesh.close()


def no_memory() -> int:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    family: Any = SimpleNamespace(
        count=2, supervisor=2, mesh=Mesh(2), queues=[], certificates=None, said=list[str]()
    )
    family.say = family.said.append
    made = Supervisor(family)
    yield made
    made.close()


def test_no_memory_for_a_worker_ends_no_other(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes the place of one that died comes later, and those that live serve on."""
    family: Any = supervisor.family
    monkeypatch.setattr(os, "fork", no_memory)
    supervisor._all_ready = True
    supervisor._go_on()
    assert [place.pid for place in supervisor.places] == [0, 0]
    assert family.said[0] == ("worker 0 cannot begin: Cannot allocate memory; tried again in 0.1 s")
    wait = supervisor._wait()
    assert wait is not None
    assert 0 < wait <= 0.1
    assert not supervisor._ending


def test_a_worker_that_dies_all_night_ends_nothing(supervisor: Supervisor) -> None:
    """Once in 30 seconds, and for longer than a float has room for what is doubled each time."""
    supervisor._all_ready = True
    place = supervisor.places[1]
    for _ in range(1100):
        place.pid, place.began = 4711, time.monotonic()
        supervisor._died(place, 256)
    assert place.back_at - time.monotonic() <= 30.0


def test_no_memory_at_the_start_is_an_error(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fork", no_memory)
    monkeypatch.setattr(supervisor, "_listen_to_signals", lambda: None)
    with pytest.raises(StartError, match="worker 0: Cannot allocate memory"):
        supervisor.run()
    gc.unfreeze()


def test_why_a_worker_could_not_begin_is_told_at_once(supervisor: Supervisor) -> None:
    """And not made the reason of an end that is asked for later."""
    family: Any = supervisor.family
    supervisor._all_ready = True
    Post(family.mesh, 1).send(2, "failed", 1, "TCP port 80 is in use")
    supervisor._letters()
    assert family.said == ["worker 1 cannot begin: TCP port 80 is in use"]
    assert not supervisor._failed


@pytest.mark.asyncio
async def test_what_took_too_long_to_prepare_is_not_kept() -> None:
    """A reload that was given up does not take the place of the one after it."""
    worker: Any = object.__new__(Worker)
    worker.index, worker._prepared, worker._preparing, worker._tasks = 0, None, 0, set()
    sent: list[tuple[Any, ...]] = []
    worker.post = SimpleNamespace(send=lambda *words: sent.append(words))
    worker.family = SimpleNamespace(supervisor=1)
    worker._content = Content(*["old"] * 2, *[()] * 5, 0)  # type: ignore[arg-type]
    first, second = (
        file_of(pickle.dumps(Content(text, None, *[()] * 5, 0)))  # type: ignore[arg-type]
        for text in ("first", "second")
    )
    worker._reload_step("prepare", 1, first)
    await asyncio.sleep(0)  # it has begun
    worker._reload_step("drop", 1, -1)
    await asyncio.gather(*worker._tasks)
    assert worker._prepared is None
    worker._reload_step("prepare", 2, second)
    await asyncio.gather(*worker._tasks)
    assert worker._prepared[0] == 2
    assert worker._prepared[1].site == "second"


def zone(serial: int, address: str) -> Zone:
    made: Zone = Zone.from_text(ZONE.format(serial=serial, address=address))
    return made


class Holder:
    """A part's place of its server and service."""

    def __init__(self, server: Authority, catalog: Any) -> None:
        self.server = server
        self.catalog = catalog


class Pair:
    """A first worker's authority and a follower's, and the letters between them."""

    def __init__(self) -> None:
        self.mesh = Mesh(2)
        self.posts = [Post(self.mesh, 0), Post(self.mesh, 1)]
        loaded = LoadedZones((zone(1, "192.0.2.7"),), ())
        chance = random.Random(1)
        self.first = Authority(Options(), random=chance)
        self.other = Authority(of_a_follower(Options()), random=chance)
        for server in (self.first, self.other):
            server.begin(loaded, Catalog(loaded.zones))
        self.mirror = Mirror(self.other, random=chance, post=self.posts[1])
        self.updates: list[tuple[bytes, Any, Callable[[bytes], None]]] = []
        service: Any = Service(self.first, random=chance)
        service.update = lambda *update: self.updates.append(update)
        part: Any = Holder(self.first, service)
        self.publisher = Publisher(part, self.posts[0])

    async def deliver(self) -> None:
        """All letters, until there are none, and what follows from them."""
        for _ in range(4):
            for words, fd in list(self.posts[0].receive()):
                if words[0] == "hello":
                    self.publisher.hello(words[1], pickle.loads(blob_of(fd)))
                elif words[0] == "update":
                    self.publisher.update(*words[1:])
            for words, fd in list(self.posts[1].receive()):
                if words[0] == "zone":
                    self.mirror.news(words[1], words[2], fd)
                elif words[0] == "answer":
                    self.mirror.answered(*words[1:])
                elif words[0] == "who":
                    self.mirror.introduce()
            async with asyncio.timeout(5):
                await self.mirror._news.join()

    def served(self) -> tuple[bytes | None, bytes | None]:
        return self.first.current.answer(QUESTION), self.other.current.answer(QUESTION)

    def put(self, serial: int, address: str, whole: bool = False) -> None:
        """The first has another version."""
        from appliance.dns.serial import difference

        before = self.first.current.zones.by_origin[ORIGIN]
        after = zone(serial, address)
        self.first._put(after, None if whole else difference(before, after))


ORIGIN = zone(1, "192.0.2.7").origin


def run(scene: Callable[[Pair], Any]) -> None:
    async def play() -> None:
        pair = Pair()
        await pair.mirror.begin()
        await pair.deliver()
        await scene(pair)
        await pair.mirror.end()
        pair.mesh.close()

    asyncio.run(play())


@pytest.mark.parametrize("whole", [False, True])
def test_versions_follow(whole: bool) -> None:
    """By differences, which IXFR has then, too (RFC 1995), or whole."""

    async def scene(pair: Pair) -> None:
        for serial in (2, 3):
            pair.put(serial, f"192.0.2.{serial}", whole)
        assert pair.served()[1] != pair.served()[0]
        await pair.deliver()
        first, other = pair.served()
        assert other == first
        assert other is not None
        assert other.endswith(bytes((192, 0, 2, 3)))
        known = pair.other.options.transfers.histories
        assert (ORIGIN in known) is not whole

    run(scene)


def test_a_difference_that_does_not_fit_is_made_up_for() -> None:
    """The follower says what it has, and gets the zone whole."""

    async def scene(pair: Pair) -> None:
        pair.put(2, "192.0.2.2")
        for _, fd in pair.posts[1].receive():  # lost: another worker had this place
            assert fd < 0
        pair.put(3, "192.0.2.3")
        await pair.deliver()
        assert pair.served()[1] == pair.served()[0]

    run(scene)


def test_zones_come_and_go() -> None:
    async def scene(pair: Pair) -> None:
        text = ZONE.format(serial=1, address="192.0.2.1").replace("example", "another")
        more: Zone = Zone.from_text(text)
        pair.first._put(more, None)
        await pair.deliver()
        assert more.origin in pair.other.current.zones.by_origin
        pair.first.current.remove(more.origin)
        pair.publisher.look()
        await pair.deliver()
        assert more.origin not in pair.other.current.zones.by_origin
        pair.first.current.expire(ORIGIN)
        pair.publisher.look()
        await pair.deliver()
        first, other = pair.served()
        assert first is not None
        assert first[3] & 15 == 2  # SERVFAIL
        assert other == first

    run(scene)


def test_an_update_that_came_to_a_follower() -> None:
    """RFC 2136: its sender hears when the first has answered, and what it changed is there."""

    async def scene(pair: Pair) -> None:
        answers: list[bytes] = []
        seen: list[bytes | None] = []

        def reply(answer: bytes) -> None:
            answers.append(answer)
            seen.append(pair.served()[1])

        pair.mirror.update(b"an update", ("192.0.2.99", 5000), reply)
        await pair.deliver()
        ((message, peer, answer),) = pair.updates
        assert (message, peer) == (b"an update", ("192.0.2.99", 5000))
        pair.put(2, "192.0.2.2")
        answer(b"done")
        await pair.deliver()
        assert answers == [b"done"]
        assert seen == [pair.served()[0]]

    run(scene)
