"""What the words of a container mean: those of `serve`, or another command."""

from __future__ import annotations

import pytest

from appliance.image.entry import ANYWHERE, command


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ([], ["serve", *ANYWHERE]),
        (["serve"], ["serve", *ANYWHERE]),
        (["--link", "tap:om0"], ["serve", *ANYWHERE, "--link", "tap:om0"]),
        (["serve", "--bind", "::"], ["serve", *ANYWHERE, "--bind", "::"]),  # the last one holds
        (["check"], ["check"]),
        (["configure", "--keys"], ["configure", "--keys"]),
        (["--version"], ["--version"]),
        (["--help"], ["--help"]),
    ],
)
def test_words_of_a_container(words: list[str], meant: list[str]) -> None:
    assert command(words) == meant
