"""What lies in the output folder is what was asked for last, and `run` says what keeps it back."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from appliance import cli
from appliance.image import lock as locks
from appliance.image import project as projects
from appliance.image.graph import Bench, Step

SETTINGS = '[site]\ndirectory = "site"\n[dns]\nzones = "zones"\n'


def write(text: str, bench: Bench) -> None:
    (bench.out / "initramfs").write_text(text)
    (bench.out / "settings.json").write_text('{"address": ["10.0.0.2/24"], "gateway": []}')


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> projects.Project:
    """A project whose image is its first page."""
    for name in ("site", "zones"):
        (tmp_path / name).mkdir()
    (tmp_path / "appliance.toml").write_text(SETTINGS)
    (tmp_path / "site" / "index.md").write_text("one\n")

    def steps_for(project: projects.Project, lock: locks.Lock, target: str) -> list[Step]:
        text = (project.root / "site" / "index.md").read_text()
        return [Step("image", partial(write, text), values={"text": text})]

    monkeypatch.setattr(projects, "steps_for", steps_for)
    monkeypatch.chdir(tmp_path)
    return projects.load(tmp_path / "appliance.toml")


def test_what_an_image_does_without_is_said(
    project: projects.Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`configure`, `build` and `run` say that there is but one process."""
    monkeypatch.setattr("appliance.image.qemu.find", lambda program: program)
    project.config.write_text(SETTINGS + '[net]\nlink = "tap:om0"\nworkers = 4\n')
    (project.root / "site" / "index.md").write_text("---\ntitle: One\n---\n")
    monkeypatch.setattr("appliance.commands.configure._kernel", lambda kind, before: {})
    for words in (["configure"], ["build"], ["run", "--print", "--accelerator", "tcg"]):
        assert cli.main(words) == 0
        told = "".join(capsys.readouterr())
        assert "warning: workers = 4 has no effect: an image serves with one process" in told


def build(project: projects.Project) -> str:
    """Build; the image as it then lies there."""
    lock = locks.Lock("qemu", {}, {}, {}, {"digest": project.content_digest(), "date": "1"})
    projects.build(project, lock, "qemu", lambda line: None)
    return (project.output / "qemu" / "initramfs").read_text()


def test_an_edit_undone_is_undone_in_the_image(project: projects.Project) -> None:
    """Nothing is made then, for both are in the store; the products have to change all the same."""
    page = project.root / "site" / "index.md"
    for text in ("one\n", "two\n", "one\n"):
        page.write_text(text)
        assert build(project) == text


def test_an_image_knows_whether_it_is_of_what_is_served(project: projects.Project) -> None:
    assert projects.is_stale(project, "qemu")
    build(project)
    assert not projects.is_stale(project, "qemu")
    (project.root / "site" / "index.md").write_text("two\n")
    assert projects.is_stale(project, "qemu")


def test_run_says_that_pages_were_edited_since(
    project: projects.Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.image.qemu.find", lambda program: program)
    build(project)
    words = ["run", "--print", "--accelerator", "tcg"]
    assert cli.main(words) == 0
    assert "older" not in capsys.readouterr().err
    (project.root / "site" / "index.md").write_text("two\n")
    assert cli.main(words) == 0
    assert "this image is older than what is served" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--memory", "32"], "--memory 32: a machine wants 64 MB at least"),
        (["--tap", "nowhere0"], "there is no nowhere0; as root: ip tuntap add nowhere0"),
        (["--snapshot", "s", "--state", "d"], "--snapshot and --state: a restored machine"),
    ],
)
def test_run_refuses_what_cannot_be_well(
    project: projects.Project, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build(project)
    assert cli.main(["run", *words]) == 1
    assert capsys.readouterr().err.startswith(f"appliance: {told}")
    assert not (project.root / "d").exists()


def test_what_the_system_refuses_is_a_line(
    project: projects.Project, capsys: pytest.CaptureFixture[str]
) -> None:
    build(project)
    assert cli.main(["run", "--state", "nowhere/state.img"]) == 1
    assert capsys.readouterr().err == "appliance: nowhere/state.img: No such file or directory\n"
