"""A trace of a simulated connection, as `net.trace` writes it: a seed decides everything."""

from __future__ import annotations

from appliance.fuzz import Link, Station, World
from appliance.net.tcp import Connection
from appliance.net.trace import Trace


class Pupil:
    """Sends `octets`, then closes; what it receives it forgets."""

    def __init__(self, octets: int = 0) -> None:
        self.octets = octets
        self.connection: Connection | None = None
        self.closed = False

    def tcp_established(self) -> None:
        assert self.connection is not None
        if self.octets:
            self.connection.send(bytes(self.octets))
            self.connection.shutdown()

    def tcp_data(self, data: bytes) -> None: ...

    def tcp_writable(self) -> None: ...

    def tcp_eof(self) -> None:
        assert self.connection is not None
        self.connection.shutdown()

    def tcp_closed(self, error: Exception | None) -> None:
        self.closed = True


def follow(station: Station) -> list[str]:
    """Trace a station from now on; return the list that lines are added to."""
    lines: list[str] = []
    trace = Trace(lines.append)
    station.port.watchers.append(lambda _, sent, frame: trace.note(sent, frame))
    station.host.on_turn = trace.turn
    return lines


def transfer(
    octets: int = 200_000, link: Link | None = None, *, seed: int = 3, connections: int = 1
) -> tuple[str, list[Connection]]:
    """Send so many octets over each connection; return the sender's trace."""
    world = World(seed)
    sender, receiver = world.host("sender"), world.host("receiver")
    world.link(sender, receiver, link or Link(delay=0.02, loss=0.03), Link(delay=0.02))
    world.run(seconds=0.0)
    lines = follow(sender)

    def accept(connection: Connection) -> Pupil:
        pupil = Pupil()
        pupil.connection = connection
        return pupil

    receiver.host.tcp_listen("", 80, accept)
    pupils = []
    for _ in range(connections):
        pupil = Pupil(octets)
        pupil.connection = sender.host.tcp_connect(receiver.address, 80, pupil)
        pupils.append(pupil)
    assert world.run(lambda: all(pupil.closed for pupil in pupils), seconds=300.0)
    world.run(seconds=5.0)
    found = [pupil.connection for pupil in pupils if pupil.connection is not None]
    return "".join(lines), found


if __name__ == "__main__":
    # The example of the site: python -m tests.trace.scene site/docs/trace.svg
    import sys
    import tempfile
    from pathlib import Path

    from appliance.trace import flows, picture

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.trace")
        narrow = Link(delay=0.025, loss=0.005, rate=10e6, queue=60_000)
        seed = int(sys.argv[2]) if sys.argv[2:] else 5
        path.write_text(transfer(1_500_000, narrow, seed=seed)[0])
        Path(sys.argv[1]).write_text(picture.svg(flows.read(path)[0]), encoding="utf-8")
