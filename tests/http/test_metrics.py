"""Metrics, health and the dashboard: over our own stack, and in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.parts.taster import MAX_NAMES, RATE, Taster, shown
from tests.http.whole import appliance, get, material, settings, url_of


def test_what_is_answered_is_counted_and_shown(tmp_path: Path) -> None:
    material(tmp_path, settings())
    with appliance(tmp_path) as lines:
        site, metrics = url_of(lines), url_of(lines, "dashboard")
        for path in ("", "", "", "nope"):
            get(site + path)
        assert get(metrics + "healthz")[:2] == (200, b"ok\n")
        status, text, headers = get(metrics + "metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }
        assert found["appliance_http_responses_total", "200"] == 3
        assert found["appliance_http_responses_total", "404"] == 1
        assert found["appliance_http_requests_total", "1.1"] == 4
        assert found["process_resident_memory_bytes",] > 0
        state = json.loads(get(metrics + "status.json")[1])
        assert ["/", 3] in state["pages"]
        assert [(e["target"], e["status"]) for e in state["errors"]] == [("/nope", 404)]
        assert get(metrics + "other")[0] == 404
        assert get(metrics)[2]["content-security-policy"].startswith("default-src 'none'")


def test_the_dashboard_lives_in_a_browser(tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs chromium")
        pytest.skip("needs chromium")
    material(tmp_path, settings())
    with appliance(tmp_path) as lines:
        site, metrics = url_of(lines), url_of(lines, "dashboard")
        get(site)
        get(site + "lost")
        time.sleep(2.1)  # two samples of real time: the browser does not wait for them
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-dev-shm-usage",
             "--enable-logging=stderr",
             f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000",
             "--dump-dom", metrics],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        page = done.stdout
    assert 'data-live="yes"' in page
    assert "<b>serving</b>" in page
    assert page.count("<svg") >= 3
    assert ">/lost</td>" in page
    assert re.search(r"CONSOLE.*(error|Refused)", done.stderr, re.IGNORECASE) is None
    assert not re.search(r"""(?:src|href)=["']""", page), "an outside resource"


def catalog() -> Any:
    class Catalog:
        counters = SimpleNamespace(udp_queries=0)

        def answer(self, query: bytes, *, transport: str = "udp", peer: Any = None) -> bytes:
            return b"answer to " + query[12:13]

    return Catalog()


def question(name: bytes, qtype: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
    return b"\0\0\0\0\0\1\0\0\0\0\0\0" + labels + b"\0" + qtype.to_bytes(2) + b"\0\1"


def test_names_are_counted_at_low_rates_and_sampled_at_high_ones() -> None:
    taster = Taster(SimpleNamespace(current=catalog(), other="thing"))
    assert taster.other == "thing"
    for _ in range(5):
        assert taster.current.answer(question(b"WWW.example")) == b"answer to \x03"
    assert [(shown(key), n) for key, n in taster.names.items()] == [(("www.example.", "A"), 5)]
    for _ in range(100 * RATE):
        taster.current.answer(question(b"busy", 28))
    taster.tick()
    assert taster.every == 100
    before = taster.names[question(b"busy", 28)[12:-2]]
    for _ in range(10_000):
        taster.current.answer(question(b"busy", 28))
    assert taster.names[question(b"busy", 28)[12:-2]] - before == pytest.approx(10_000, abs=200)
    taster.tick()
    taster.tick()
    assert taster.every == 1


def test_names_are_bounded_and_rubbish_is_none() -> None:
    taster = Taster(SimpleNamespace(current=catalog()))
    for number in range(MAX_NAMES * 2):
        taster.current.answer(question(b"n%d" % number))
    assert len(taster.names) <= MAX_NAMES
    before = len(taster.names)
    for octets in (b"", bytes(12), b"x" * 400, question(b"a")[:-3]):
        taster.current.answer(octets)
    assert len(taster.names) == before


def test_only_neighbours_may_look_unless_others_are_named() -> None:
    from appliance.parts.metrics import Metrics
    from appliance.settings import Settings

    def metrics(*allow: str) -> Any:
        settings = Settings.model_validate({"metrics": {"port": 9090, "allow": allow}})
        authority = SimpleNamespace(catalog=None, server=SimpleNamespace(counters=None))
        part = Metrics(settings, SimpleNamespace(), authority)  # type: ignore[arg-type]
        part._stack = SimpleNamespace(addresses=lambda: ["192.0.2.2/24", "2001:db8::2/64"])  # type: ignore[assignment]
        return part

    part = metrics()
    assert [part.is_allowed(a) for a in ("192.0.2.9", "198.51.100.1", "2001:db8::9", "", "x")] == [
        True, False, True, False, False,
    ]  # fmt: skip
    part = metrics("198.51.100.0/24")
    assert [part.is_allowed(a) for a in ("192.0.2.9", "198.51.100.1")] == [False, True]
