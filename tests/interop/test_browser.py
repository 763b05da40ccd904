"""A real browser in the namespace: the site's pages load whole, over our own TCP."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import OURS, ROOT, on_tap, require, tap_namespace

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--virtual-time-budget=5000",
)


def requests(log: Path) -> dict[str, list[int]]:
    """Read a browser's network log: the statuses (or the network's error) of each URL of ours."""
    text = log.read_text().rstrip().rstrip(",")
    document: dict[str, Any] = json.loads(text if text.endswith("}") else text + "]}")
    names = {code: name for name, code in document["constants"]["logEventTypes"].items()}
    urls: dict[int, str] = {}
    answers: dict[str, list[int]] = {}
    for event in document["events"]:
        source, facts = event["source"]["id"], event.get("params", {})
        name = names[event["type"]]
        if name == "URL_REQUEST_START_JOB" and facts.get("url", "").startswith(f"http://{OURS}"):
            urls[source] = facts["url"]
            answers.setdefault(facts["url"], [])
        elif source in urls and name == "HTTP_TRANSACTION_READ_RESPONSE_HEADERS":
            answers[urls[source]].append(int(facts["headers"][0].split()[1]))
        elif source in urls and name == "FAILED":
            answers[urls[source]].append(facts["net_error"])
    return answers


@pytest.mark.parametrize("path", ["/", "/blog/", "/docs/"])
def test_page_loads_whole(path: str, tmp_path: Path) -> None:
    require("chromium")
    settings = ("-c", str(ROOT / "appliance.toml"))
    with tap_namespace("browser") as space, on_tap(space, tmp_path, *settings):
        log = tmp_path / "net.json"
        page = space.run(
            *("chromium", *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--log-net-log={log}", "--dump-dom", f"http://{OURS}{path}"),
            timeout=60,
        )
    title = re.search(r"<title>(.+?)</title>", page)
    assert title is not None
    assert "openmirage" in title[1].lower()
    answers = requests(log)
    assert answers.pop(f"http://{OURS}{path}") == [200]
    assert any(url.endswith(".css") for url in answers)
    assert {url: seen for url, seen in answers.items() if seen != [200]} == {}
