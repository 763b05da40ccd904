"""Ours is right in every probe; `python -m tests.http.probes` shows others beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.http import Limits
from tests.http.probes.catalogue import PROBES, Address, Probe
from tests.http.probes.material import write_site
from tests.http.probes.servers import ours

# The deadline of ten seconds for a head, made short so that nobody waits for it.
HURRY = 0.1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    site = write_site(tmp_path_factory.mktemp("probes") / "site")
    with ours(site, Limits(head_seconds=10 * HURRY)) as address:
        yield address


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: f"{probe.area}: {probe.name}")
def test_probe(server: Address, probe: Probe) -> None:
    """RFC 9110, RFC 9112 and what they rest on, section by section in the catalogue."""
    assert probe.run(server, HURRY) == "", probe.rule


def test_there_are_as_many_as_were_asked_for_and_each_has_a_name_of_its_own() -> None:
    names = {(probe.area, probe.name) for probe in PROBES}
    assert len(names) == len(PROBES) >= 135
