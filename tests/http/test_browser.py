"""What people see, in a real browser: pages that fit a phone, and that renew themselves."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from tests.http.browser import Browser, browser
from tests.http.whole import appliance, get, material, settings, url_of

ROOT = Path(__file__).parents[2]
# CSS pixels of a common phone.
PHONE = 390


def until(happens: Callable[[], object]) -> None:
    """Wait in real time, which is a browser's, for ten seconds at most."""
    end = time.monotonic() + 10
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


def too_wide(window: Browser) -> list[str]:
    """What reaches past the edge of a phone and makes the page scroll sideways; [] when it fits."""
    found: list[str] = window.run(
        # A phone's window zooms out until a page that is too wide fits: innerWidth says nothing.
        "if (document.documentElement.scrollWidth <= arguments[0]) return [];"
        "return [...document.querySelectorAll('body *')]"
        ".filter(e => e.getBoundingClientRect().right > arguments[0])"
        ".map(e => e.outerHTML.slice(0, 80));",
        PHONE,
    )
    return found


def test_an_open_page_reloads_itself(tmp_path: Path) -> None:
    material(tmp_path, settings())
    with appliance(tmp_path, "--watch") as lines, browser(tmp_path) as window:
        window.open(url_of(lines))
        window.run("window.mark = 1")
        page = tmp_path / "site/index.md"
        page.write_text("---\ntitle: Home\n---\nNothing was pressed.\n")
        until(lambda: "Nothing was pressed." in window.run("return document.body.innerText"))
        assert window.run("return window.mark") is None, "the document is a new one"


def test_nothing_overflows_on_a_phone(tmp_path: Path) -> None:
    words = (ROOT / "appliance.toml").read_text()
    title = re.search(r'^title = "(.+)"', words, re.MULTILINE)
    assert title is not None
    (tmp_path / "site").symlink_to(ROOT / "site")
    own = settings().replace("Example", title[1])
    (tmp_path / "zones").symlink_to(ROOT / "zones")
    (tmp_path / "appliance.toml").write_text(own)
    with appliance(tmp_path) as lines, browser(tmp_path) as window:
        window.look_like(PHONE)
        site = url_of(lines)
        paths = re.findall(rb"<loc>https?://[^/<]+/([^<]*)</loc>", get(site + "sitemap.xml")[1])
        assert len(paths) > 20
        wide = {}
        for url in [*(site + path.decode() for path in paths), site + "lost",
                    url_of(lines, "dashboard")]:  # fmt: skip
            window.open(url)
            if found := too_wide(window):
                wide[url] = found
        assert wide == {}
        # The test itself: a page that does not fit is found.
        window.run("document.body.insertAdjacentHTML('beforeend', '<hr style=width:500px>')")
        assert too_wide(window)
