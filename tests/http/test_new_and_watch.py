"""`appliance new` makes what can be served and checked; `serve --watch` serves what is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.config import load
from appliance.http import load_site
from appliance.http.live import PATH, with_script
from appliance.parts.watch import look
from tests.http.fakes import Client
from tests.http.whole import appliance, get, material, settings, url_of


@pytest.mark.parametrize("domain", ["example.net", "bücher.example"])
def test_what_is_made_has_no_fault(
    domain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "it"
    title = 'Say "hi": \\ & more'
    assert main(["new", str(directory), "--domain", domain, "--title", title]) == 0
    assert "appliance serve --watch" in capsys.readouterr().out
    assert main(["check", "-c", str(directory / "appliance.toml")]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    written = "".join(p.read_text() for p in directory.rglob("*") if p.is_file())
    assert re.search(r"@[A-Z]+@", written) is None
    assert (directory / ".gitignore").is_file()


def test_certificates_are_a_matter_of_taking_hashes_away(tmp_path: Path) -> None:
    assert main(["new", str(tmp_path / "it"), "--domain", "example.net"]) == 0
    path = tmp_path / "it/appliance.toml"
    before, begin, rest = path.read_text().partition("# [acme]")
    lines, blank, after = (begin + rest).partition("\n\n")
    lines = "\n".join(line.removeprefix("# ") for line in lines.split("\n"))
    path.write_text(before + lines + blank + after)
    assert load(path).acme.names == ("example.net", "*.example.net")
    assert main(["check", "-c", str(path)]) == 0


def test_nothing_that_is_there_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["new", str(tmp_path), "--domain", "example.net"]) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "words",
    [["--domain", "no spaces.org"], ["--domain", "localhost"], ["--domain", "a..org"],
     ["--domain", "example.org", "--address", "300.1.1.1"]],
)  # fmt: skip
def test_misuse_is_told(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", str(tmp_path / "x"), *words]) == 2
    assert words[-1] in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_what_is_written_is_served_and_pages_learn_of_it(tmp_path: Path) -> None:
    material(tmp_path, settings())
    with appliance(tmp_path, "--watch") as lines:
        site = url_of(lines)
        page = get(site)[1]
        assert b"/_live" in page
        status, before, _ = get(site + PATH.decode().lstrip("/"))
        assert status == 200
        (tmp_path / "site/index.md").write_text("---\ntitle: Home\n---\nChanged.\n")
        (tmp_path / "site/new.md").write_text("---\ntitle: New\n---\nNew.\n")
        lines.until("reloaded in")
        assert b"Changed." in get(site)[1]
        assert get(site + "new")[0] == 200
        assert get(site + PATH.decode().lstrip("/"))[1] != before
        # A zone counts too, and a fault is told while the old is served on.
        (tmp_path / "site/new.md").write_text("no front matter")
        lines.until("not reloaded")
        assert get(site + "new")[0] == 200


def test_a_policy_against_scripts_does_not_stop_ours(tmp_path: Path) -> None:
    policy = "Content-Security-Policy: default-src 'none'"
    material(tmp_path, "")
    (tmp_path / "site/_headers").write_text(f"/*\n  {policy}\n  X-Frame-Options: DENY\n")
    for live, wanted in ((False, "default-src 'none'"), (True, None)):
        loaded = load_site(tmp_path / "site", "http://example.org", live=live)
        home = Client(site=loaded.site).ask("GET /")
        assert (home["content-security-policy"], home["x-frame-options"]) == (wanted, "DENY")


def test_without_watch_pages_have_no_script(tmp_path: Path) -> None:
    material(tmp_path, settings())
    with appliance(tmp_path) as lines:
        assert b"<script" not in get(url_of(lines))[1]
        assert get(url_of(lines) + "_live")[0] == 404


def test_looking_sees_what_is_served(tmp_path: Path) -> None:
    before = look([tmp_path, tmp_path / "gone"])
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/index").write_text("x")
    assert look([tmp_path]) == before
    (tmp_path / ".well-known").mkdir()
    (tmp_path / ".well-known/a").write_text("x")
    assert look([tmp_path]) != before


def test_the_script_stands_at_the_end_of_the_body() -> None:
    assert with_script(b"<body>x</body></html>").endswith(b"</script>\n</body></html>")
    assert with_script(b"<p>x").endswith(b"</script>\n")
