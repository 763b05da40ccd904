"""Loading at scale: the cache between starts, processes and threads, and the site's own history."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from io import StringIO
from pathlib import Path

import pytest

from appliance.http import cache as cache_module
from appliance.http import load_site, making
from appliance.http.cache import NAME, Cache, digest
from appliance.http.history import changes
from appliance.http.making import (
    Draft,
    pack_codings,
    pack_page,
    parse_all,
    unpack_codings,
    unpack_page,
)
from appliance.http.representation import Resource
from appliance.http.site import LoadedSite
from appliance.progress import Bar

NOW = 1_700_000_000
PAGE = (
    "---\ntitle: Page {0}\ndate: 2020-01-02\nsummary: S\norder: 3\n---\n## H {0}\n\ntext\n"
    + "x " * 200
)


def write(root: Path, pages: int = 5) -> Path:
    (root / "blog").mkdir(parents=True)
    for number in range(pages):
        (root / f"blog/p{number}.md").write_text(PAGE.format(number))
    (root / "style.css").write_text("p { color: red }\n" * 100)
    return root


def octets(loaded: LoadedSite) -> dict[bytes, list[tuple[bytes, bytes, bytes]]]:
    return {
        path: [(v.coding, v.get.block, bytes(v.body)) for v in found.variants]  # type: ignore[arg-type]
        for path, found in loaded.site.resources.items()
        if isinstance(found, Resource)
    }


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "WORTHWHILE", 1)


@pytest.mark.usefixtures("small")
def test_a_warm_start_serves_the_same_octets(tmp_path: Path) -> None:
    root, cache = write(tmp_path / "site"), tmp_path / "cache"
    plain = octets(load_site(root, now=NOW))
    told: list[str] = []
    cold = load_site(root, now=NOW, cache=cache, progress=lambda what, *_: told.append(what))
    assert {"rendering", "templates", "coding"} <= set(told)
    told.clear()
    warm = load_site(root, now=NOW, cache=cache, progress=lambda what, *_: told.append(what))
    assert told == []  # nothing was made
    assert octets(cold) == octets(warm) == plain
    assert (cache / NAME).stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("small")
def test_what_changed_is_made_anew(tmp_path: Path) -> None:
    root, cache = write(tmp_path / "site"), tmp_path / "cache"
    load_site(root, now=NOW, cache=cache)
    (root / "blog/p1.md").write_text(PAGE.format("another"))
    (root / "_theme").mkdir()
    (root / "_theme/post.html").write_text("<p>{{ page.title }} {{ site.feeds|length }}</p>\n")
    assert octets(load_site(root, now=NOW, cache=cache)) == octets(load_site(root, now=NOW))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("rubbish", [b"", b"SQLite format 3\0" + bytes(100), b"rubbish" * 1000])
def test_a_broken_cache_costs_time_only(
    rubbish: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, cache = write(tmp_path / "site"), tmp_path / "cache"
    cache.mkdir()
    (cache / NAME).write_bytes(rubbish)
    assert octets(load_site(root, now=NOW, cache=cache)) == octets(load_site(root, now=NOW))
    load_site(root, now=NOW, cache=cache)
    assert len(caplog.records) <= 2


@pytest.mark.usefixtures("small")
def test_a_cache_that_cannot_be_written_or_is_locked(tmp_path: Path) -> None:
    root = write(tmp_path / "site")
    (tmp_path / "file").write_text("")
    assert load_site(root, now=NOW, cache=tmp_path / "file/cache").pages == 5
    load_site(root, now=NOW, cache=tmp_path / "cache")
    other = sqlite3.connect(tmp_path / "cache" / NAME)
    other.execute("BEGIN EXCLUSIVE")
    assert load_site(root, now=NOW, cache=tmp_path / "cache").pages == 5
    other.close()


def test_a_small_site_leaves_nothing_behind(tmp_path: Path) -> None:
    load_site(write(tmp_path / "site"), now=NOW, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("small")
def test_what_nobody_asked_for_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day, key in ((0, b"old"), (10, b"kept"), (20, b"new")):
        monkeypatch.setattr(cache_module.time, "time", lambda day=day: day * 86400.0)
        cache = Cache(tmp_path)
        cache.put(key, b"octets of " + key)
        cache.close()
    cache = Cache(tmp_path)
    cache.prefetch([b"old", b"kept", b"new"])
    assert cache.get(b"old") is None
    assert cache.get(b"kept") == b"octets of kept"
    assert cache.get(b"new") == b"octets of new"


def test_keys_know_where_parts_end() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")


def test_processes_and_none_make_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    drafts = [Draft(PAGE.format(n), f"/p{n}", "", f"p{n}.md") for n in range(6)]
    drafts.append(Draft("no front matter", "/x", "", "x.md"))
    here = parse_all(drafts, {}, lambda *_: None)
    monkeypatch.setattr(making, "MANY", 1)
    monkeypatch.setattr(making, "PORTION", 2)
    monkeypatch.setattr(making, "processors", lambda: 2)
    assert parse_all(drafts, {}, lambda *_: None) == here
    assert here[-1][0] is None
    assert len(here[-1][1]) == 1


def test_pages_and_codings_survive_being_written_down() -> None:
    draft = Draft(PAGE.format("ü & <b>"), "/p", "s", "p.md")
    page, _ = parse_all([draft], {}, lambda *_: None)[0]
    assert page is not None
    assert unpack_page(pack_page(page), draft) == page
    codings = {b"br": b"\n\0x", b"gzip": b""}
    assert unpack_codings(pack_codings(codings)) == codings
    assert unpack_codings(b"") == {}


def git(root: Path, *words: str, date: int = 0) -> None:
    environment = os.environ | {
        "GIT_AUTHOR_DATE": f"{date} +0000", "GIT_COMMITTER_DATE": f"{date} +0000",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull,
    }  # fmt: skip
    subprocess.run(["git", *words], cwd=root, env=environment, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_rfc9110_last_modified_comes_from_the_history(tmp_path: Path) -> None:
    """RFC 9110 §8.8.2: when the origin believes it was last modified, not when it was cloned."""
    root = tmp_path / "repo/site"
    root.mkdir(parents=True)
    git(tmp_path / "repo", "init", "-q")
    for date, names in ((1_000_000_000, ["a.txt", "b.txt", "d ü.txt"]), (1_100_000_000, ["b.txt"])):
        for name in names:
            (root / name).write_text(f"{date}")
        git(tmp_path / "repo", "add", ".", date=date)
        git(tmp_path / "repo", "commit", "-q", "-m", "x", date=date)
    (root / "new.txt").write_text("not committed")
    assert changes(root) == {
        "a.txt": 1_000_000_000, "b.txt": 1_100_000_000, "d ü.txt": 1_000_000_000,
    }  # fmt: skip
    (root / "b.txt").write_text("changed since")
    assert set(changes(root)) == {"a.txt", "d ü.txt"}
    site = load_site(root, now=NOW).site
    found = site.resources[b"/a.txt"]
    assert isinstance(found, Resource)
    assert found.last_modified == 1_000_000_000


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("name", ["f", "f=g"])
def test_a_history_runs_nothing_that_lies_in_it(tmp_path: Path, name: str) -> None:
    """A site may be somebody else's: to look at it starts none of its programs."""
    site, ran = tmp_path / "site", tmp_path / "ran"
    site.mkdir()

    def say(*words: str, given: str = "") -> str:
        return subprocess.run(
            ["git", "-C", str(site), *words], input=given, check=True, capture_output=True,
            text=True,
        ).stdout  # fmt: skip

    say("init", "-q")
    say("config", "user.name", "Nobody")
    say("config", "user.email", "nobody@example.org")
    (site / "a.txt").write_text("one")
    say("add", ".")
    say("commit", "-qm", "One")
    head, _, rest = say("cat-file", "commit", "HEAD").partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n -----END PGP SIGNATURE-----"
    signed = f"{head}\n{signature}\n\n{rest}"
    commit = say("hash-object", "-t", "commit", "-w", "--stdin", given=signed)
    say("update-ref", "HEAD", commit.strip())
    program = site / ".git/program"
    program.write_text(f"#!/bin/sh\necho $0 >> {ran}\ncat\n")
    program.chmod(0o755)
    hook = site / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.symlink_to(program)
    say("config", "log.showSignature", "true")
    for key in ("gpg.program", "core.fsmonitor", f"filter.{name}.clean", f"filter.{name}.process"):
        say("config", key, str(program))
    (site / ".git/info/attributes").write_text(f"*.txt filter={name}\n")
    ran.unlink(missing_ok=True)
    os.utime(site / "a.txt", (1, 1))
    found = changes(site)
    assert not ran.exists()
    assert set(found) == ({"a.txt"} if name == "f" else set())


def test_without_a_history_the_disk_says_when(tmp_path: Path) -> None:
    assert changes(write(tmp_path / "site")) == {}


def test_a_folder_that_may_not_be_looked_into_is_told_of(tmp_path: Path) -> None:
    """As a container's mount that belongs to somebody else: it is told, and nothing raises."""
    root = write(tmp_path / "site")
    root.chmod(0)
    ours = os.geteuid()
    if ours == 0:  # whom no mode stops
        os.seteuid(65534)
    try:
        loaded = load_site(root, now=NOW)
    finally:
        os.seteuid(ours)
        root.chmod(0o755)
    assert {problem.message for problem in loaded.problems} == {"Permission denied"}
    assert str(root) in [problem.file for problem in loaded.problems]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_drawn_on_a_terminal_and_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("appliance.progress.time.monotonic", lambda: now[0])
    terminal = Terminal()
    bar = Bar(terminal)
    bar("rendering", 1, 4)
    assert terminal.getvalue() == ""  # it may be over in a moment
    now[0] = 1.0
    bar("rendering", 2, 4)
    assert "###############..............." in terminal.getvalue()
    assert "2 of 4" in terminal.getvalue()
    bar.end()
    assert terminal.getvalue().endswith("\r\x1b[K")
    quiet = StringIO()
    other = Bar(quiet)
    now[0] = 9.0
    other("rendering", 2, 4)
    other.end()
    assert quiet.getvalue() == ""
