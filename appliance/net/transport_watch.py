"""Who watches the frames of a stack: told of each one, both ways, while somebody wants to know.

An interface that nobody watches is read and written directly, so watching costs nothing until it
is done. May import the driver, the links and the interfaces' protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.net.link import Link
from appliance.net.transport_driver import Driver
from appliance.net.vif.base import Vif

Seen = Callable[[bytes, str], None]
"""Told of a whole frame, virtio header included, and of the name of its link."""


class Watchers:
    """The watchers of one host; `vifs` and `links` are its lists, which may grow."""

    def __init__(self, driver: Driver, vifs: Sequence[Vif], links: Sequence[Link]) -> None:
        self._driver = driver
        self._vifs = vifs
        self._links = links
        self._watchers: dict[object, tuple[Seen, str]] = {}
        self.on_change: Callable[[bool], None] | None = None
        """Told whether anybody watches, when that changes."""
        self._watched = False

    def __len__(self) -> int:
        return len(self._watchers)

    def add(self, seen: Seen, name: str) -> Callable[[], None]:
        """Tell `seen` of the frames of a link, or of all; what ends that. ValueError: no such."""
        names = [link.name for link in self._links]
        if name and name not in names:
            raise ValueError(f"no link {name}: there {_are(names)}")
        handle = object()
        self._watchers[handle] = (seen, name)
        self.review()

        def stop() -> None:
            del self._watchers[handle]
            self.review()

        return stop

    def tell(self, frame: bytes, name: str) -> None:
        """Tell of a frame that somebody else has seen, and on which link."""
        for seen, wanted in list(self._watchers.values()):
            if wanted in ("", name):
                seen(frame, name)

    def review(self) -> None:
        """Have the frames of each link pass by its watchers, if it has any."""
        if bool(self._watchers) != self._watched:
            self._watched = not self._watched
            if self.on_change is not None:
                self.on_change(self._watched)
        for vif, link in zip(self._vifs, self._links, strict=True):
            told = [seen for seen, name in self._watchers.values() if name in ("", link.name)]
            if told:
                self._divert(vif, link, told)
            else:
                self._driver.divert(vif.receive, link)
                link.divert(vif.send)

    def _divert(self, vif: Vif, link: Link, told: list[Seen]) -> None:
        name = link.name

        def receive(limit: int) -> list[bytes]:
            frames = vif.receive(limit)
            for frame in frames:
                for seen in told:
                    seen(frame, name)
            return frames

        def send(head: bytes, payload: bytes | memoryview = b"") -> bool:
            taken = vif.send(head, payload)
            if taken:
                frame = b"".join((head, payload))
                for seen in told:
                    seen(frame, name)
            return taken

        self._driver.divert(receive, link)
        link.divert(send)


def _are(names: list[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {', '.join(names)}"
