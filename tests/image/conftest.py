"""Images for all tests of machines: built once, since the building takes twenty seconds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.image import machines


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that images are built in. APPLIANCE_IMAGE: one that is kept, to build in again."""
    machines.require()
    kept = os.environ.get("APPLIANCE_IMAGE")
    return Path(kept) if kept else tmp_path_factory.mktemp("machine")


@pytest.fixture(scope="session")
def plain(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of openmirage.org as it is."""
    kept = tmp_path_factory.mktemp("plain") / "qemu"
    shutil.copytree(machines.build(project, ""), kept)
    return kept


@pytest.fixture(scope="session")
def image(plain: Path, project: Path) -> Path:
    """An image of openmirage.org, and of a zone that a key may change."""
    return machines.build(project)
