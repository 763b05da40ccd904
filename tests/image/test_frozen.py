"""What an image has of the settings: all that the appliance asks them for, and they go back."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance import __version__
from appliance.app import StartError
from appliance.config import _validated, load
from appliance.content import Content, load_content
from appliance.image import health
from appliance.image.freeze import freeze, plain
from appliance.image.guest import asked, boot, machine, overrides
from appliance.image.guest.overrides import as_document

ROOT = Path(__file__).parents[2]


def test_frozen_settings_know_their_first_address(tmp_path: Path) -> None:
    (tmp_path / "appliance.toml").write_text('[net]\naddress = ["192.0.2.7/24"]\n')
    frozen = plain(load(tmp_path / "appliance.toml"))
    assert frozen.net.first == "192.0.2.7"


def test_what_an_image_writes_lies_in_the_state_volume(tmp_path: Path) -> None:
    (tmp_path / "appliance.toml").write_text("")
    settings = load(tmp_path / "appliance.toml")
    relative = settings.model_copy(
        update={"control": settings.control.model_copy(update={"socket": health.CONTROL})}
    )
    frozen = plain(relative)
    assert frozen.control.socket == Path("/", health.CONTROL) == Path("/state/control")


def test_frozen_settings_can_be_validated_again() -> None:
    frozen = plain(load(ROOT / "appliance.toml"))
    made = _validated(
        as_document(frozen), {"net.address": ["192.0.2.9/24"]}, Path("/appliance.toml"), ""
    )
    assert made.net.first == "192.0.2.9"


def small(folder: Path, title: str) -> Path:
    """A site of one page, and a zone."""
    (folder / "site").mkdir(parents=True)
    (folder / "site" / "index.md").write_text(f"---\ntitle: {title}\n---\n\nText.\n")
    (folder / "zones").mkdir()
    zone = "$TTL 60\n@ SOA ns a ( 1 7200 1800 1209600 300 )\n@ NS ns\nns A 192.0.2.1\n"
    (folder / "zones" / f"{title}.example.zone").write_text(zone)
    (folder / "appliance.toml").write_text("")
    return folder


def test_words_of_a_container_are_those_of_serve(tmp_path: Path) -> None:
    """Numbers, options without a value, and a site of its own beside the image's zones."""
    settings = load(small(tmp_path / "one", "one") / "appliance.toml")
    content = load_content(settings)
    frozen = plain(settings)
    told = ["--http-port", "8081", "--no-probe"]
    made, same = overrides.override(frozen, content, told)
    assert (made.gateway.http, made.net.probe, same) == (8081, False, content)
    other = small(tmp_path / "other", "other")
    _, mixed = overrides.override(frozen, content, [f"--site={other / 'site'}"])
    assert [page.title for page in mixed.site.pages] == ["other"]
    assert mixed.zones == content.zones == ("one.example.",)
    assert not mixed.problems
    _, mixed = overrides.override(frozen, content, ["--zones", str(other / "zones")])
    assert mixed.site is content.site
    assert mixed.zones == ("other.example.",)
    assert not mixed.problems


def page(folder: Path, title: str) -> None:
    """A site of one page."""
    folder.mkdir(parents=True)
    (folder / "index.md").write_text(f"---\ntitle: {title}\n---\n\nText.\n")


HOSTED = """
[site]
base_url = "http://one.example"
[security]
contact = ["mailto:us@one.example"]
expires = 2999-01-01
[[host]]
name = "blog.example"
directory = "blog"
[[host]]
name = "shop.example"
directory = "shop"
"""


def image(folder: Path) -> tuple[Any, Content]:
    """Settings and content as an image with three sites has them."""
    small(folder, "one")
    (folder / "appliance.toml").write_text(HOSTED)
    for name in ("blog", "shop"):
        page(folder / "host" / f"{name}.example", name)
    settings = load(folder / "appliance.toml")
    hosts = tuple(
        host.model_copy(update={"directory": folder / "host" / host.name}) for host in settings.host
    )
    content = load_content(settings.model_copy(update={"host": hosts}))
    assert not content.problems
    frozen = plain(settings)
    nowhere = folder / "state"  # where folders of an image never are
    frozen.site.directory, frozen.dns.zones = nowhere / "site", nowhere / "zones"
    for host in frozen.host:
        host.directory = nowhere / "host" / host.name
    return frozen, content


def seeded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, frozen: Any, content: Content
) -> tuple[Any, Content]:
    """What comes of them with the seed in a folder."""
    monkeypatch.setattr(overrides, "SEED", str(folder))
    monkeypatch.setattr(machine, "seed", lambda: "/dev/vda")
    monkeypatch.setattr(overrides, "read_seed", lambda device: frozenset(os.listdir(folder)))
    return overrides.override(frozen, content, [])


def test_a_seed_of_pages_leaves_other_sites_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a seed does not bring, the image has."""
    frozen, content = image(tmp_path / "image")
    page(tmp_path / "seed" / "site", "seeded")
    made, mixed = seeded(tmp_path / "seed", monkeypatch, frozen, content)
    assert not mixed.problems
    assert [one.title for one in mixed.site.pages] == ["seeded"]
    assert mixed.others == content.others
    assert (mixed.zones, mixed.size.pages) == (content.zones, 3)
    assert mixed.hosting is not content.hosting
    # And so it stays when it is reloaded.
    again = boot._again(made, mixed)
    assert not again.problems
    assert again.others == content.others


def test_a_seed_of_one_of_several_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, content = image(tmp_path / "image")
    page(tmp_path / "seed" / "host" / "shop.example", "sale")
    _, mixed = seeded(tmp_path / "seed", monkeypatch, frozen, content)
    assert not mixed.problems
    assert mixed.site is content.site
    assert mixed.others[0] is content.others[0]
    assert [one.title for one in mixed.others[1].pages] == ["sale"]


def test_a_seed_names_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its settings: another list of sites, of which one has no pages anywhere."""
    frozen, content = image(tmp_path / "image")
    seed = tmp_path / "seed"
    page(seed / "pages", "seeded")
    page(seed / "news", "news")
    (seed / "appliance.toml").write_text(
        '[site]\ndirectory = "pages"\n'
        '[[host]]\nname = "news.example"\ndirectory = "news"\n'
        '[[host]]\nname = "blog.example"\ndirectory = "blog"\n'
        '[[host]]\nname = "none.example"\ndirectory = "none"\n'
    )
    _, mixed = seeded(seed, monkeypatch, frozen, content)
    assert [one.title for one in mixed.site.pages] == ["seeded"]
    assert [one.title for one in mixed.others[0].pages] == ["news"]
    assert mixed.others[1] is content.others[0]
    assert [problem.message for problem in mixed.problems] == ["no such directory"]


def test_a_folder_on_the_command_line_must_be_there(tmp_path: Path) -> None:
    """As for `appliance serve`; the image's pages are not what was asked for."""
    frozen, content = image(tmp_path / "image")
    for option in ("--site", "--zones"):
        with pytest.raises(StartError, match=rf"/absent is not a directory \({option} DIR\)"):
            overrides.override(frozen, content, [option, "/absent"])


def test_a_signal_reads_what_there_are_folders_of(tmp_path: Path) -> None:
    """One of several sites on the state disk, with settings that nothing has validated."""
    frozen, content = image(tmp_path / "image")
    page(tmp_path / "image" / "state" / "host" / "blog.example", "again")
    again = boot._again(frozen, content)
    assert not again.problems
    assert again.site is content.site
    assert [one.title for one in again.others[0].pages] == ["again"]
    assert (
        b"mailto:us@one.example"
        in again.others[0].resources[b"/.well-known/security.txt"].identity.body
    )


def test_workers_that_an_image_has_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not in silence: on the console, whether a word or a seed asks for them."""
    frozen, content = image(tmp_path / "image")
    overrides.override(frozen, content, ["--workers", "1"])
    assert capsys.readouterr().out == ""
    frozen.net.link = "packet:eth0"
    overrides.override(frozen, content, ["--workers", "2"])
    assert "warning: workers = 2 has no effect" in capsys.readouterr().out


def test_a_frozen_image_has_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an image whose link is a pair could not be told a word."""
    small(tmp_path, "one")
    (tmp_path / "appliance.toml").write_text(
        '[net]\nlink = "tap:om0"\naddress = ["10.0.0.2/24"]\nworkers = 2\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [])  # which stands in what is served, else
    assert freeze(1, tmp_path, "pair") == 0
    frozen, content = pickle.loads((tmp_path / "content.pickle").read_bytes())
    made, _ = overrides.override(frozen, content, ["--http-port", "8081"])
    assert made.net.workers == 1


def test_what_a_container_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where nobody has a control socket
    settings = load(small(tmp_path / "one", "one") / "appliance.toml")
    content = load_content(settings)
    for words in (["--link", "pair"], ["serve"], ["--http-port=1"]):
        assert not asked.is_asked(words)
    for words, status, said in (
        (["--version"], 0, f"appliance {__version__}"),
        (["--help"], 0, "--http-port"),
        (["check"], 0, f"{content.summary}; 0 errors"),
        (["sevre"], 2, "no such command: sevre"),
        (["health", "1", "1"], 1, ""),
    ):
        assert asked.is_asked(words)
        assert asked.answer(words, plain(settings), content) == status
        assert said in capsys.readouterr().out


def test_an_image_says_as_much_as_its_settings_want(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[log] level, as `serve` has it."""
    path = tmp_path / "appliance.toml"
    path.write_text('[log]\nlevel = "error"\n')
    content = tmp_path / "content.pickle"
    content.write_bytes(pickle.dumps((plain(load(path)), None)))
    monkeypatch.setattr(boot, "CONTENT", str(content))
    levels: list[int] = []

    async def serve(*_: object) -> None:
        levels.append(logging.getLogger().level)

    monkeypatch.setattr(boot, "_serve", serve)
    root = logging.getLogger()
    before = root.level
    try:
        assert boot.run([]) == 0
    finally:
        root.setLevel(before)
    assert levels == [logging.ERROR]


def test_an_image_records_nothing_and_tells_nothing_of_where_it_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any of its sites; and no recording fills its memory."""
    work, out = small(tmp_path / "work", "one"), tmp_path / "out"
    other = work / "host" / "two.example"
    other.mkdir(parents=True)
    (other / "index.md").write_text("---\ntitle: Two\n---\n\nText.\n")
    (work / "appliance.toml").write_text(
        '[net]\npcap = "x.pcap"\ntrace = "y.trace"\n'
        '[[host]]\nname = "two.example"\ndirectory = "elsewhere"\n'
    )
    out.mkdir()
    monkeypatch.chdir(work)
    assert freeze(1, out, "packet:eth0") == 0
    with (out / "content.pickle").open("rb") as file:
        settings, content = pickle.load(file)
    assert settings.net.pcap is None
    assert settings.net.trace is None
    assert len(content.others) == 1
    for site in (content.site, *content.others):
        assert not site.origins
        assert not site.pages
