"""What an image has of the settings: all that the appliance asks them for, and they go back."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance import __version__
from appliance.config import _validated, load
from appliance.content import load_content
from appliance.image import health
from appliance.image.freeze import plain
from appliance.image.guest import asked, overrides
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
