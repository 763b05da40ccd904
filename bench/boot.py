"""`make bench-boot`: where a machine's time goes from QEMU's start to the first answers.

    python -m bench.boot [--rounds N] [--memory MB] [IMAGE]

IMAGE is the folder that `appliance build --target qemu` has filled. Each round starts the machine,
emulated (TCG), asks over the virtual card for a page, a name and a TLS handshake, and
reads the profile that the machine prints; then as many rounds restore it from a snapshot. Printed:
medians, in seconds. Needs no privilege. Imports the standard library and appliance.image.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import io
import os
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from appliance.image import qemu

IMAGE: Final = Path("build/image/qemu")
EVERY, SOON = 0.1, 0.02
"""Seconds between two attempts, while a machine boots and while one is restored. Each waits for
`PATIENCE`; more of them would be what a machine is busy with when it begins. A slow machine is
asked less often, and waited for longer, or it would answer nobody."""
PATIENCE: Final = 2.0
RARER, LONGER = 1 / 50, 1 / 2
"""Parts of the time passed that lie between attempts and that each waits, where they are more."""
LIMIT: Final = 90.0
"""Seconds for a machine to serve; emulated on an idle host it takes four."""
PAGE: Final = 4000
"""Octets that the home page has at least."""
QUERY: Final = b"\x2a\x2a\x01\0\0\1\0\0\0\0\0\0\x0aopenmirage\x03org\0\0\1\0\1"
"""openmirage.org A."""
SLEEP: Final = 2.5
"""Seconds between saving and restoring: the guest sees by its clock that it was restored."""
_PROFILE: Final = re.compile(rb"profile: ([\d.]+) (.+)")
_SERVE: Final = re.compile(rb"init: HTTP and DNS serve, ([\d.]+) s after")
_ALL: Final = re.compile(rb"init: all serve")


class BootError(Exception):
    """A machine did not serve; the text has its console's last lines."""


def ask_page(port: int, patience: float) -> bool:
    """Whether the web server answers, with all of a page: one that takes several segments."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, patience)) as page:
        page.request("GET", "/", headers={"Host": "openmirage.org", "Connection": "close"})
        answer = page.getresponse()
        return answer.status == 200 and len(answer.read()) > PAGE


def ask_name(port: int, patience: float) -> bool:
    """Whether the name server answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        query.settimeout(patience)
        query.connect(("127.0.0.1", port))
        query.send(QUERY)
        answer = query.recv(1500)
    return answer[:2] == QUERY[:2] and answer[3] & 15 == 0 and answer[7] > 0


def ask_tls(port: int, patience: float) -> bool:
    """Whether a TLS handshake ends; nobody's certificate is checked, time is measured."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), patience) as raw,
        trusting.wrap_socket(raw, server_hostname="openmirage.org"),
    ):
        return True


Ask = tuple[str, Callable[[int, float], bool], int]


def first_answers(
    asks: list[Ask], began: float, over: Callable[[], bool], every: float = EVERY
) -> dict[str, float]:
    """Seconds from `began` to the first answer of each, asked again and again until `over`.

    The last is asked only when the others have answered.
    """
    found: dict[str, float] = {}

    def attempt(name: str, ask: Callable[[int, float], bool], port: int, patience: float) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(port, patience):
                found.setdefault(name, time.monotonic() - began)

    late = asks[2] if len(asks) > 2 else None
    passed = 0.0
    while len(found) < len(asks) and not over() and passed < LIMIT:
        patience = max(PATIENCE, passed * LONGER)
        for name, ask, port in asks:
            if name not in found and ((name, ask, port) != late or len(found) == 2):
                words = (name, ask, port, patience)
                threading.Thread(target=attempt, args=words, daemon=True).start()
        time.sleep(max(every, passed * RARER))
        passed = time.monotonic() - began
    return dict(found)


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses."""
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def machine_of(image: Path, memory: int) -> tuple[qemu.Machine, list[Ask]]:
    """A machine, and what it is to be asked."""
    web, names, secure = free_ports(3)
    forwards = (("tcp", web, 80), ("udp", names, 53), ("tcp", secure, 443))
    asks: list[Ask] = [("first HTTP answer", ask_page, web), ("first DNS answer", ask_name, names)]
    asks.append(("first TLS handshake", ask_tls, secure))
    return qemu.Machine(image, memory=memory, forwards=forwards, profile=True), asks


def cold_start(image: Path, memory: int) -> dict[str, float]:
    """One start: seconds after QEMU's, by name; raises BootError."""
    machine, asks = machine_of(image, memory)
    began = time.monotonic()
    said: list[tuple[float, bytes]] = []
    with subprocess.Popen(
        qemu.command(machine), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as guest:
        assert guest.stdout is not None
        console = guest.stdout

        def listen() -> None:
            said.extend((time.monotonic() - began, line) for line in console)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            answers = first_answers(asks, began, lambda: guest.poll() is not None)
        finally:
            guest.kill()
            listener.join()
    if len(answers) < len(asks):
        last = b"".join(line for _, line in said[-8:]).decode(errors="replace")
        raise BootError(f"only {sorted(answers)} answered:\n{last}")
    return dict(_profile(said)) | answers


def _profile(said: list[tuple[float, bytes]]) -> Iterator[tuple[str, float]]:
    """What the console says of times, as seconds after QEMU's start."""
    kernel = next(
        moment - float(match[1]) for moment, line in said if (match := _SERVE.search(line))
    )
    yield "kernel began", kernel
    for moment, line in said:
        if match := _PROFILE.search(line):
            yield match[2].decode().strip(), kernel + float(match[1])
        elif _ALL.search(line):
            yield "all serve", moment


async def restores(image: Path, memory: int, rounds: int, folder: Path) -> list[dict[str, float]]:
    """Save a machine, then restore it again and again; seconds after QEMU's start, by name."""
    machine, asks = machine_of(image, memory)
    snapshot = folder / "saved"
    found = []
    for number in range(rounds + 1):
        began = time.monotonic()
        running = asyncio.create_task(qemu.run(machine, lambda line: None, snapshot))
        wanted = asks if number == 0 else asks[:2]
        every = SOON if number else EVERY
        answers = await asyncio.to_thread(first_answers, wanted, began, running.done, every)
        for _ in range(int(LIMIT / EVERY)):
            if snapshot.exists() or running.done():
                break
            await asyncio.sleep(EVERY)
        if running.done() or len(answers) < len(wanted):
            raise BootError(f"only {sorted(answers)} answered after a restore")
        if number:
            found.append({f"restored: {name}": moment for name, moment in answers.items()})
        else:
            await asyncio.sleep(SLEEP)
        running.cancel()  # which cuts the power
        with contextlib.suppress(asyncio.CancelledError):
            await running
    return found


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.boot")
    parser.add_argument("image", nargs="?", type=Path, default=IMAGE, metavar="IMAGE")
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 5))
    parser.add_argument("--memory", type=int, default=128, metavar="MB")
    words = parser.parse_args()
    if not (words.image / "settings.json").exists():
        sys.stderr.write(
            f"bench: no image in {words.image}: appliance configure && appliance build\n"
        )
        return 1
    try:
        rows = [cold_start(words.image, words.memory) for _ in range(words.rounds)]
        console = io.TextIOWrapper(io.BytesIO())
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(console):
            more = asyncio.run(restores(words.image, words.memory, words.rounds, Path(folder)))
    except BootError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    about = (words.image / "about").read_text().strip()
    print(f"{about}; {words.memory} MB, TCG; medians of {words.rounds}, seconds after QEMU's start")
    for table in (rows, more):
        medians = {name: statistics.median(row[name] for row in table) for name in table[0]}
        for name, moment in sorted(medians.items(), key=lambda pair: pair[1]):
            print(f"{moment:8.2f}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
