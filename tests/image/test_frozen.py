"""What an image has of the settings: all that the appliance asks them for, and they go back."""

from __future__ import annotations

from pathlib import Path

from appliance.config import _validated, load
from appliance.image.freeze import plain
from appliance.image.guest.overrides import as_document

ROOT = Path(__file__).parents[2]


def test_frozen_settings_know_their_first_address(tmp_path: Path) -> None:
    (tmp_path / "appliance.toml").write_text('[net]\naddress = ["192.0.2.7/24"]\n')
    frozen = plain(load(tmp_path / "appliance.toml"))
    assert frozen.net.first == "192.0.2.7"


def test_frozen_settings_can_be_validated_again() -> None:
    frozen = plain(load(ROOT / "appliance.toml"))
    made = _validated(
        as_document(frozen), {"net.address": ["192.0.2.9/24"]}, Path("/appliance.toml"), ""
    )
    assert made.net.first == "192.0.2.9"
