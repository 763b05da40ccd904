"""A thousand connections at once to a machine on a tap; run by test_thousand.py, as

    unshare --net python -m tests.image.thousand IMAGE FOLDER MEGABYTES

Prints how many were answered, and in how many seconds; the status is 0 if all were.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.image import machines

CONNECTIONS = 1000
SOURCES = [f"10.0.0.{number}" for number in range(10, 30)]
"""One address after the other, as a public server's clients have."""
REQUEST = b"GET / HTTP/1.1\r\nHost: openmirage.org\r\n\r\n"


def prepare() -> None:
    """A tap with our addresses on it, in a network namespace that is ours."""
    for words in ("link set lo up", "tuntap add om0 mode tap vnet_hdr",
                  "address add 10.0.0.1/24 dev om0", "link set om0 up"):  # fmt: skip
        subprocess.run(["ip", *words.split()], check=True)
    for source in SOURCES:
        subprocess.run(["ip", "address", "add", f"{source}/24", "dev", "om0"], check=True)


def hold(address: str) -> tuple[int, float]:
    """Open all, ask on all, read from all: answers, and seconds."""
    began = time.monotonic()
    held = []
    for number in range(CONNECTIONS):
        sock = socket.socket()
        sock.bind((SOURCES[number % len(SOURCES)], 0))
        sock.settimeout(30)
        try:
            sock.connect((address, 80))
        except OSError as error:
            sys.stdout.write(f"connection {number + 1}: {error.strerror or error}\n")
            return 0, time.monotonic() - began
        held.append(sock)
    for sock in held:  # all are open now, and none has asked yet
        sock.sendall(REQUEST)
    answered = sum(sock.recv(4096).startswith(b"HTTP/1.1 200") for sock in held)
    for sock in held:
        sock.close()
    return answered, time.monotonic() - began


def main(image: Path, folder: Path, megabytes: int) -> int:
    """One machine, one thousand."""
    prepare()
    with machines.guest(image, folder, memory=megabytes, tap="om0") as guest:
        guest.until_said("init: all serve")
        answered, seconds = hold("10.0.0.2")
    sys.stdout.write(f"{megabytes} MB: {answered} of {CONNECTIONS} in {seconds:.1f} s\n")
    return 0 if answered == CONNECTIONS else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
