"""The build graph: what is made again, what is not, why, and that the same inputs give the same
octets.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from appliance.http.problem import Problem
from appliance.http.walk import Walk
from appliance.image.graph import (
    Bench,
    BuildError,
    Graph,
    Step,
    files_below,
    site_below,
    tree_digest,
)

CALLS: list[str] = []


def upper(source: Path, bench: Bench) -> None:
    CALLS.append("upper")
    (bench.out / "text").write_text(source.read_text().upper())


def length(bench: Bench) -> None:
    CALLS.append("length")
    text = (bench.inputs["upper"] / "text").read_text()
    (bench.out / "length").write_text(str(len(text)))


def interrupted(bench: Bench) -> None:
    CALLS.append("interrupted")
    note = bench.scratch / "half"
    if not note.exists():
        note.write_text("done")
        raise KeyboardInterrupt
    (bench.out / "whole").write_text(note.read_text())


def finder(found: Path, bench: Bench) -> None:
    CALLS.append("finder")
    bench.found["library"] = found
    (bench.out / "copy").write_bytes(found.read_bytes())


def steps(source: Path) -> list[Step]:
    first = Step("upper", partial(upper, source), files={"page": source}, values={"date": "1"})
    return [Step("length", length, needs=(first,))]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()


def age(path: Path) -> None:
    """Make a file old, so that its digest may be remembered."""
    os.utime(path, (1, 1))


def test_only_what_changed_is_made_again(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text("hello")
    graph = Graph(tmp_path / "store", CALLS.append)
    first = graph.build(steps(page))
    assert [first[name].why for name in ("upper", "length")] == ["never made before"] * 2
    CALLS.clear()
    second = graph.build(steps(page))
    assert CALLS == []
    assert not any(outcome.made for outcome in second.values())
    page.write_text("HELLO")  # another input, the same output: the change ends there
    third = graph.build(steps(page))
    assert CALLS == ["upper"]
    assert third["upper"].why == "page changed"
    assert not third["length"].made
    page.write_text("hello, world")
    graph.build(steps(page))
    assert CALLS == ["upper", "upper", "length"]


def test_an_edit_undone_costs_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page"
    graph = Graph(tmp_path / "store", CALLS.append)
    for text in ("one", "three", "one"):
        page.write_text(text)
        outcome = graph.build(steps(page))
    assert CALLS == ["upper", "length"] * 2
    assert (outcome["length"].out / "length").read_text() == "3"


def test_the_same_inputs_give_the_same_octets_anywhere(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "a/longer/place"):
        top = tmp_path / place
        top.mkdir(parents=True)
        (top / "page").write_text("hello")
        outcome = Graph(top / "store", CALLS.append).build(steps(top / "page"))
        digests.add((outcome["length"].digest, outcome["length"].out.name))
    assert len(digests) == 1


def test_an_interrupted_step_goes_on_and_leaves_no_half(tmp_path: Path) -> None:
    graph = Graph(tmp_path / "store", CALLS.append)
    with pytest.raises(KeyboardInterrupt):
        graph.build([Step("interrupted", interrupted)])
    assert list((tmp_path / "store" / "steps").glob("*/*")) == []
    outcome = graph.build([Step("interrupted", interrupted)])["interrupted"]
    assert (outcome.out / "whole").read_text() == "done"
    assert CALLS == ["interrupted"] * 2


def test_what_a_step_finds_counts(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.write_text("1")
    graph = Graph(tmp_path / "store", CALLS.append)
    step = Step("finder", partial(finder, library))
    graph.build([step])
    assert not graph.build([step])["finder"].made
    library.write_text("2")
    outcome = graph.build([step])["finder"]
    assert outcome.why == "library changed"
    assert (outcome.out / "copy").read_text() == "2"
    library.unlink()
    with pytest.raises(FileNotFoundError):
        graph.build([step])


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="nowhere: No such file"):
        Graph(tmp_path / "store", CALLS.append).build(steps(tmp_path / "nowhere"))


def test_files_have_names_that_do_not_tell_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/b.txt", "a/.hidden", "a/c.pyc", "z"):
        (tmp_path / name).write_text("x")
    assert list(files_below(tmp_path, "site")) == ["site/z", "site/a/b.txt"]


def test_the_digest_of_a_tree_sees_names_contents_and_who_may_execute(tmp_path: Path) -> None:
    seen = set()
    for name, text, mode in (
        ("a", "1", 0o644),
        ("b", "1", 0o644),
        ("a", "2", 0o644),
        ("a", "1", 0o755),
    ):
        for old in tmp_path.iterdir():
            old.unlink()
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
        seen.add(tree_digest(tmp_path))
    assert len(seen) == 4


def test_an_image_has_of_a_site_what_is_served(tmp_path: Path) -> None:
    """RFC 8615's folder; what links lead to within the site, and nothing from elsewhere."""
    site = tmp_path / "site"
    for name in (".well-known", "a", "_templates", ".git"):
        (site / name).mkdir(parents=True)
    for name in (".well-known/matrix", "a/b.md", "a/.hidden", "_headers", "_templates/x", ".git/y"):
        (site / name).write_text(name)
    (tmp_path / "secret").write_text("not for you")
    for name, target in (
        ("out", "../secret"), ("hidden", "a/.hidden"), ("gone", "nowhere"),
        ("c.md", "a/b.md"), ("d", "a"), ("a/round", ".."),
    ):  # fmt: skip
        (site / name).symlink_to(target)
    problems: list[Problem] = []
    served = [f"site/{source.name}" for source in Walk(site, problems).sources()]
    found = site_below(site, "site")
    assert sorted(name for name in found if not name.startswith("site/_")) == sorted(served)
    assert sorted(found) == [
        "site/.well-known/matrix", "site/_headers", "site/_templates/x", "site/a/b.md",
        "site/c.md", "site/d/b.md",
    ]  # fmt: skip
    assert site_below(tmp_path / "nowhere", "site") == {}
