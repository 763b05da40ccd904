"""A real browser, driven through chromedriver's own protocol (W3C WebDriver), for tests."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


class Browser:
    """One window."""

    def __init__(self, driver: str, profile: Path) -> None:
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        self._at = f"{driver}/session"
        opened = self._post("", {"capabilities": {"alwaysMatch": wanted}})
        self._at += "/" + opened["sessionId"]

    def _post(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        asked = urllib.request.Request(self._at + path, data, method=method)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)["value"]

    def close(self) -> None:
        """End the browser."""
        self._post("", {}, "DELETE")

    def open(self, url: str) -> None:
        """Load a page, whole."""
        self._post("/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page; a promise that it returns is waited for."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def tell(self, command: str, **parameters: object) -> Any:
        """Give a command of the DevTools protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look_like(self, width: int, *, dark: bool = False, still: bool = False) -> None:
        """Be as wide as that in CSS pixels, a phone below 600, with these preferences."""
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=844 if width < 600 else 900, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        named = [{"name": name, "value": value} for name, value in features.items()]
        self.tell("Emulation.setEmulatedMedia", features=named)

    def picture(self, path: Path, most: int = 2600) -> None:
        """Write the page as a PNG, from its top, at most so many pixels high."""
        tall, wide = self.run("return [document.documentElement.scrollHeight, window.innerWidth]")
        clip = {"x": 0, "y": 0, "width": wide, "height": min(tall, most), "scale": 1}
        taken = self.tell("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Run a browser with its profile in a folder; the test is skipped without one, but in CI."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"needs {program}")
            pytest.skip(f"needs {program}")
    process = subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "successfully on port" in line)
        port = said.rpartition("port ")[2].strip(" .\n")
        window = Browser(f"http://127.0.0.1:{port}", folder / "profile")
        try:
            yield window
        finally:
            window.close()
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
