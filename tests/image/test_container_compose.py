"""The pair of container/compose.yaml: it names what there is, and NSD really transfers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from bench import lab
from tests.image import vessels

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "container"
WORDS = {
    "build", "image", "command", "network_mode", "read_only", "cap_drop", "security_opt",
    "restart", "depends_on", "environment", "healthcheck", "ports", "volumes", "networks",
}  # fmt: skip
"""Of a service, by the Compose Specification; a word that is none is an error to compose."""
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
    return found


def test_compose_names_what_there_is() -> None:
    whole = document()
    assert set(whole) == {"services", "volumes", "networks"}
    for name, service in whole["services"].items():
        assert set(service) <= WORDS, name
        assert "build" in service or service["image"] == "appliance"
        if "build" in service:
            assert (CONTAINER / service["build"]["context"] / "Dockerfile").exists()
        for mount in service.get("volumes", ()):
            source, target, *_ = mount.split(":")
            assert target.startswith("/")
            known = (
                (CONTAINER / source).exists() if source[0] == "." else source in whole["volumes"]
            )
            assert known, mount
        for other, how in service.get("depends_on", {}).items():
            assert other in whole["services"]
            assert how["condition"] in CONDITIONS
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
    # What service_healthy waits for, also where the image does not say it.
    test = [f'"{word}"' for word in whole["services"]["appliance"]["healthcheck"]["test"][1:]]
    assert f"CMD [{', '.join(test)}]" in (ROOT / "Dockerfile").read_text()


def test_the_secondary_transfers_with_the_key(tmp_path: Path) -> None:
    """RFC 5936 §2.2, RFC 8945: as the containers do it, with `configure`'s key and start.sh."""
    vessels.require("nsd", "dig")
    for name in ("site", "zones"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(CONTAINER / "compose.toml", tmp_path / "appliance.toml")
    appliance = [sys.executable, "-m", "appliance"]
    env = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with (
        lab.namespace("pair") as space,
        lab.serve("keys", [*appliance, "configure", "--keys"], tmp_path, env=env) as made,
    ):
        assert made.process.wait(30) == 0, made.words()
        key = tmp_path / "keys" / "secondary.key"
        assert key.stat().st_mode & 0o077 == 0
        serve = space.command(*appliance, "serve", "--bind", "127.0.0.1")
        service = document()["services"]["secondary"]["environment"]
        told = env | service | {
            "PRIMARY": "127.0.0.1@5353", "KEY_FILE": str(key), "PORT": "5354",
            "WORK": str(tmp_path / "nsd"),
        }  # fmt: skip
        start = space.command("sh", str(CONTAINER / "secondary" / "start.sh"))
        with lab.serve("appliance", serve, tmp_path, env=env) as server:
            server.wait(lambda: "5353" in server.words(), 30)
            unsigned = space.run("dig", "@127.0.0.1", "-p", "5353", "openmirage.org", "AXFR")
            assert "Transfer failed" in unsigned
            with lab.serve("nsd", start, tmp_path, env=told) as nsd:
                nsd.wait(lambda: vessels.address(space, "127.0.0.1", 5354) == "10.0.0.2", 30)
