"""The figures' own programs, small: they find nothing, and would say so if they did."""

from __future__ import annotations

import os
import shutil

import dns.message
import pytest

from tests.dns import figures


def test_mutated_queries(capsys: pytest.CaptureFixture[str]) -> None:
    """RFC 6891 §6.2.3, RFC 8906: no exception, no answer too long, none longer if limited."""
    seen = figures.mutants(20_000, seed=3)
    assert seen["answered"] > 15_000
    assert seen["long"] > 20
    assert seen["updates"] > 100
    assert "none amplified" in capsys.readouterr().out


def test_an_answer_that_is_too_long_is_found() -> None:
    """RFC 1035 §4.2.1: without EDNS 512 octets are the limit."""
    query = dns.message.make_query("long.test.", "TXT", use_edns=False).to_wire()
    figures.check_size(query, query[:2] + bytes(510))
    with pytest.raises(AssertionError):
        figures.check_size(query, query[:2] + bytes(511))


def test_a_large_zone() -> None:
    seconds, memory, longer = figures.million(5_000, rounds=1)
    assert seconds < 60
    assert memory < 500
    assert longer < 100


@pytest.mark.interop
def test_secondaries_follow_many_changes() -> None:
    """RFC 1995 §4: by differences, in one step and in ten."""
    missing = [program for program in figures.SERVERS if shutil.which(program) is None]
    if missing:
        told = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        told(f"{missing[0]} is not installed")
    sent = figures.ixfr(100, versions=(1, 10))
    for differences, whole in sent.values():
        assert (differences, whole) == (3, 0)


def test_killed_during_updates() -> None:
    assert figures.kills(2) > 0


def test_the_command_line() -> None:
    found = list(figures.wanted(["ixfr", "500", "kills"]))
    assert found == [(figures.ixfr, [500]), (figures.kills, [])]
    assert len(list(figures.wanted([]))) == len(figures.FIGURES)
    with pytest.raises(SystemExit):
        list(figures.wanted(["nothing"]))
