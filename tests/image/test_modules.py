"""What an image has of Python is enough for all that a machine does, without anything beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from appliance.image.closure import in_image

STEPS = ("library", "dependencies", "application")
AS_PID_1 = """
import encodings, os, sys
sys.path[:] = [sys.argv[1]]
encodings.__path__[:] = [f"{sys.argv[1]}/encodings"]  # which is there before any of our words
sys.modules["ssl"] = sys.modules["_hashlib"] = None
os.environ["PYTHONTZPATH"] = ""
"""
EVERY = (
    AS_PID_1
    + """
import importlib
from appliance.parts.observer import _prometheus
_prometheus()  # which brings what its library wants besides
names = [
    os.path.relpath(os.path.join(folder, file), sys.argv[1]).removesuffix(".pyc").replace("/", ".")
    for folder, _, files in os.walk(sys.argv[1]) for file in files if file.endswith(".pyc")
]
for name in sorted(name.removesuffix(".__init__") for name in names):
    if not name.endswith("__main__"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(name, error)
"""
)
SEEDED = (
    AS_PID_1
    + """
import pickle
from appliance.image.guest import machine, overrides
machine.mount_kernel = lambda: None
os.environ[machine.SEED], overrides.SEED = sys.argv[3], sys.argv[4]
with open(sys.argv[2], "rb") as file:
    settings, before = pickle.load(file)
settings, content = overrides.override(settings, before, ["--address", "192.0.2.7/24"])
assert [str(one) for one in settings.net.address] == ["192.0.2.7/24"], settings.net.address
assert not content.problems, content.problems
page = content.site.resources[b"/"].identity.body
assert b"Seeded" in page, page
assert b'<span class="k">select</span>' in page, page  # the commonest languages have colours
assert b"(plain)" in page, page
assert content.zones == tuple(before.zones), content.zones  # which the seed has left out
import requests  # as an order of a certificate has it, before anybody asks for metrics
from appliance.parts.observer import _prometheus
library = _prometheus()
registry = library.CollectorRegistry()
library.Gauge("tried", "A figure.", registry=registry).set(7)
assert b"tried 7.0" in library.generate_latest(registry)
assert sys.modules["ssl"] is None
"""
)
PAGE = """---
title: Seeded
---
```sql
select coloured from code
```

```lisp
(plain)
```
"""


@pytest.fixture(scope="module")
def modules(plain: Path, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every module of the image, hot or cold."""
    top = tmp_path_factory.mktemp("modules")
    store = project / "build" / "image" / "store" / "steps"
    for step in STEPS:
        notes = sorted((store / step).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        made = notes[-1].with_suffix("") / "modules"
        for path in made.rglob("*"):
            place = str(path.relative_to(made))
            if path.is_file() and in_image(place):
                (top / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, top / place)
    return top


def run(script: str, *words: Path) -> str:
    """Run a script with the modules of an image alone; fails with what it says."""
    python = Path(sys.executable).resolve()
    done = subprocess.run(
        [python, "-I", "-S", "-W", "ignore", "-c", script, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_module_of_an_image_wants_one_that_is_left_out(modules: Path) -> None:
    assert run(EVERY, modules) == ""


def test_a_seed_has_pages_and_metrics_are_told(modules: Path, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.md").write_text(PAGE)
    seed = tmp_path / "seed.tar"
    with tarfile.open(seed, "w") as archive:
        archive.add(tmp_path / "site", "site")
    run(SEEDED, modules, plain / "content.pickle", seed, tmp_path / "unpacked")
