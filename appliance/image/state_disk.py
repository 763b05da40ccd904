"""The state disk as the host makes it: with the keys that the settings name, or empty.

    make_state      a disk for one deployment: LAYOUT and keys, in ext4
    template_step   an empty file system, which an image brings along and lays onto an empty disk

What a machine does with it stands in guest/state.py. Imports the standard library and this package.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from appliance.files import beside, discard, place_beside, put, sync_folder
from appliance.image.graph import Bench, BuildError, Step
from appliance.image.tools import run

LABEL: Final = "appliance-state"
LAYOUT: Final = "1"
"""As in guest/state.py; a test holds them together."""
MEGABYTES: Final = 64
"""Of a state disk that is made for somebody: journals, certificates and logs are small."""
TEMPLATE_MEGABYTES: Final = 16
"""Of the template, and so the least that a disk may have; it grows to its disk when mounted."""
KINDS: Final = (
    "-t", "ext4", "-b", "4096", "-L", LABEL, "-m", "0",
    # As many files in each 128 MB; a journal that leaves room on the smallest disk (MB).
    "-N", "4096", "-J", "size=4",
    # The identifier can then be changed while it is mounted.
    "-O", "metadata_csum,metadata_csum_seed,64bit",
)  # fmt: skip
IDENTITY: Final = "6f6d0000-0000-4000-8000-000000000001"
"""Of every template; a machine gives its disk one of its own."""


def make_state(path: Path, megabytes: int = MEGABYTES, keys: Mapping[str, Path] = {}) -> None:
    """A state disk, if there is none; `keys` are files by their places below /state.

    Raises BuildError when a key is missing, and leaves no half of a disk.
    """
    if path.exists():
        discard(path)
        return
    for place, key in keys.items():
        if not key.exists():
            raise BuildError(f"there is no {key} for {place}: appliance configure --keys")
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder, "state")
        top.mkdir(mode=0o700)
        (top / "LAYOUT").write_text(f"{LAYOUT}\n")
        for place, key in keys.items():
            target = top / place
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(key, target)
            target.chmod(0o600)
        with beside(path) as file:
            file.truncate(megabytes << 20)
            fresh = place_beside(path)
            run(["mke2fs", "-q", *KINDS, "-E", "root_owner=0:0", "-d", top, fresh])
            put(file, path, mode=0o600)
    sync_folder(path.parent)


def template_step() -> Step:
    """An empty state disk, the same octets wherever it is made."""
    return Step("state", make_template, values={"kinds": " ".join(KINDS)})


def make_template(bench: Bench) -> None:
    """state.ext4, without a time and with a known identifier."""
    image = bench.out / "state.ext4"
    with image.open("wb") as file:
        file.truncate(TEMPLATE_MEGABYTES << 20)
    once = f"root_owner=0:0,hash_seed={IDENTITY},lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    run(["mke2fs", "-q", *KINDS, "-U", IDENTITY, "-E", once, image],
        env={"E2FSPROGS_FAKE_TIME": "1", "SOURCE_DATE_EPOCH": "1"})  # fmt: skip
