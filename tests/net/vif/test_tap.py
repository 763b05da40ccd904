"""The tap without a kernel: a socket pair stands for /dev/net/tun, functions for its refusals.

What the kernel really does with the frames is seen in the interop tests.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from struct import pack
from typing import Any

import pytest
import pytun

from appliance.cabling import open_cable
from appliance.net.errors import LinkError, LocalError
from appliance.net.vif import tap
from appliance.net.vif.base import derived_mac
from appliance.net.vif.tap import Tap, open_tap
from appliance.net.wire.virtio import PLAIN
from appliance.settings import Cable

NAME = "wtap-test0"
KERNEL_MAC = b"\x06\0\0\0\0\7"


class FakeDevice:
    """What pytun.TunTapDevice does, on a socket that keeps the bounds of frames."""

    def __init__(self, name: str, flags: int, refuse: dict[int, int]) -> None:
        for flag, number in refuse.items():
            if flags & flag:
                raise pytun.Error(number, os.strerror(number))
        self.name = name
        self.flags = flags
        self.mtu = 1500
        self.hwaddr = KERNEL_MAC
        self.calls: list[object] = []
        self.inner, self.outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.outer.settimeout(1)

    def fileno(self) -> int:
        return self.inner.fileno()

    def up(self) -> None:
        self.calls.append("up")

    def persist(self, on: bool) -> None:
        self.calls.append(("persist", on))

    def close(self) -> None:
        self.calls.append("close")
        self.inner.close()
        self.outer.close()


class Kernel:
    """Makes devices, answers ioctls, and refuses what the test tells it to."""

    def __init__(self) -> None:
        self.refuse_flags: dict[int, int] = {}
        self.refuse_offload: Callable[[int], bool] = lambda flags: False
        self.refuse_size = False
        self.size = 10
        self.offload = 0
        self.devices: list[FakeDevice] = []

    def device(self, name: str, flags: int) -> FakeDevice:
        made = FakeDevice(name, flags, self.refuse_flags)
        self.devices.append(made)
        return made

    def ioctl(self, fd: int, request: int, argument: Any) -> Any:
        assert fd == self.devices[-1].fileno()
        if request == tap.TUNSETVNETHDRSZ:
            if self.refuse_size:
                raise OSError(errno.EINVAL, "refused")
            assert argument == pack("i", 10)
            return argument
        if request == tap.TUNGETVNETHDRSZ:
            return pack("i", self.size)
        assert request == tap.TUNSETOFFLOAD
        if self.refuse_offload(argument):
            raise OSError(errno.EINVAL, "refused")
        self.offload = argument
        return 0

    def open(self, **options: Any) -> Tap:
        return open_tap(NAME, device=self.device, ioctl=self.ioctl, **options)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    for device in made.devices:
        device.inner.close()
        device.outer.close()


def test_everything_granted(kernel: Kernel) -> None:
    vif = kernel.open()
    (device,) = kernel.devices
    assert device.flags == pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR
    assert kernel.offload == tap.TUN_F_CSUM | tap.TUN_F_TSO4 | tap.TUN_F_TSO6
    assert (vif.gso_max, vif.checksum_offload, vif.mtu, vif.name) == (65535, True, 1500, NAME)
    assert vif.offload_report == "checksum and TCP segmentation offload (IPv4, IPv6), both ways"
    assert device.calls == ["up"]
    assert vif.fileno() == device.fileno()


@pytest.mark.parametrize(
    ("refused", "left", "report"),
    [
        (lambda flags: flags & tap.TUN_F_TSO6, 3, "IPv4 only towards us"),
        (lambda flags: flags & tap.TUN_F_TSO4, 1, "segmentation offload from us only"),
        (lambda flags: True, 0, "checksum and segmentation offload from us only"),
    ],
)
def test_offload_falls_back_step_by_step(
    kernel: Kernel, refused: Callable[[int], bool], left: int, report: str
) -> None:
    kernel.refuse_offload = refused
    vif = kernel.open()
    assert kernel.offload == left
    assert report in vif.offload_report
    # What we may send does not depend on what we take.
    assert (vif.gso_max, vif.checksum_offload) == (65535, True)


@pytest.mark.parametrize("old", [False, True])
def test_super_datagrams_are_sent_to_a_kernel_that_knows_them(kernel: Kernel, old: bool) -> None:
    """And none are asked for: what the kernel hands over is what `_negotiate` says."""
    if old:
        kernel.refuse_offload = lambda flags: flags & tap.TUN_F_USO4
    assert kernel.open().udp_segments == (0 if old else tap.UDP_SEGMENTS)
    assert kernel.offload == tap.TUN_F_CSUM | tap.TUN_F_TSO4 | tap.TUN_F_TSO6


@pytest.mark.parametrize("how", ["flag", "size"])
def test_no_vnet_header(kernel: Kernel, how: str) -> None:
    if how == "flag":
        kernel.refuse_flags = {pytun.IFF_VNET_HDR: errno.EINVAL}
    else:
        kernel.refuse_size = True
        kernel.size = 12
    vif = kernel.open()
    device = kernel.devices[-1]
    assert device.flags == pytun.IFF_TAP | pytun.IFF_NO_PI
    assert (vif.gso_max, vif.checksum_offload, vif.udp_segments) == (0, False, 0)
    assert "software" in vif.offload_report
    assert vif.send(PLAIN + b"frame-", b"tail")
    assert device.outer.recv(100) == b"frame-tail"
    device.outer.send(b"answer")
    assert vif.receive(9) == [PLAIN + b"answer"]


def test_header_size_that_cannot_be_set_but_is_right(kernel: Kernel) -> None:
    kernel.refuse_size = True
    assert kernel.open().gso_max == 65535


def test_options_for_a_new_tap(kernel: Kernel) -> None:
    vif = kernel.open(mac=b"\2\3\4\5\6\7", mtu=9000, persist=True)
    assert (vif.mac, vif.mtu) == (b"\2\3\4\5\6\7", 9000)
    assert kernel.devices[0].calls == [("persist", True), "up"]


def has_interface(monkeypatch: pytest.MonkeyPatch, existed: bool) -> None:
    """Let the operating system know, or not know, an interface of any name; it is down."""

    def index(name: str) -> int:
        if not existed:
            raise OSError(errno.ENODEV, "no interface with this name")
        return 7

    # What a compiled module calls of its own cannot be replaced, what it calls of others can.
    monkeypatch.setattr(tap.socket, "if_nametoindex", index)
    monkeypatch.setattr(tap.fcntl, "ioctl", lambda fd, number, request: request)


def test_an_existing_tap_is_left_as_it_is(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    has_interface(monkeypatch, True)
    vif = kernel.open(mtu=9000, persist=True)
    assert kernel.devices[0].calls == []
    assert vif.mtu == 1500
    assert vif.offload_report.endswith(f"the host's side is down (ip link set {NAME} up)")


def test_address_is_derived_and_never_the_kernels(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel.open().mac == derived_mac(NAME)
    monkeypatch.setitem(globals(), "KERNEL_MAC", derived_mac(NAME))
    mac = kernel.open().mac
    assert mac != derived_mac(NAME)
    assert mac[0] & 3 == 2


def test_frames_come_in_batches(kernel: Kernel) -> None:
    vif = kernel.open()
    outer = kernel.devices[0].outer
    frames = [PLAIN + bytes((number,)) * 60 for number in range(5)]
    for frame in frames:
        outer.send(frame)
    assert vif.receive(3) == frames[:3]
    assert vif.receive(64) == frames[3:]
    assert vif.receive(64) == []
    assert vif.receive_errors == 0


@pytest.mark.parametrize("size", [0, 1, tap.JOIN_MAX, tap.JOIN_MAX + 1, 65000])
def test_payloads_of_all_sizes_leave_as_one_frame(kernel: Kernel, size: int) -> None:
    vif = kernel.open()
    payload = os.urandom(size)
    assert vif.send(PLAIN + b"head", memoryview(payload))
    assert kernel.devices[0].outer.recv(1 << 17) == PLAIN + b"head" + payload


def test_full(kernel: Kernel) -> None:
    vif = kernel.open()
    sent = 0
    while vif.send(PLAIN + bytes(1000)):
        sent += 1
        assert sent < 100_000
    assert not vif.send(PLAIN, bytes(20_000))
    outer = kernel.devices[0].outer
    for _ in range(sent):
        assert len(outer.recv(2000)) == 1010
    assert vif.send(PLAIN + b"again")
    assert (vif.send_down, vif.send_refused) == (0, 0)


@pytest.mark.parametrize(
    ("number", "taken", "counter"),
    [
        (errno.EAGAIN, False, None),
        (errno.ENOBUFS, False, None),
        (errno.EIO, True, "send_down"),
        (errno.EBADFD, True, "send_down"),
        (errno.EINVAL, True, "send_refused"),
    ],
)
def test_errors_of_sending(
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    taken: bool,
    counter: str | None,
) -> None:
    vif = kernel.open()

    def fail(*_: object) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr(tap.os, "write", fail)
    monkeypatch.setattr(tap.os, "writev", fail)
    assert vif.send(PLAIN, b"x") is taken
    assert vif.send(PLAIN, bytes(50_000)) is taken
    counts = {name: getattr(vif, name) for name in ("send_down", "send_refused")}
    assert counts == {"send_down": 0, "send_refused": 0} | ({counter: 2} if counter else {})


def test_deleted_interface_is_told_once_and_polls_quiet(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    vif = kernel.open()
    told: list[str] = []
    vif.on_lost = told.append
    kernel.devices[0].outer.close()
    poller = select.epoll()
    poller.register(vif.fileno(), select.EPOLLIN)
    assert poller.poll(0)
    real_read = os.read

    def read(fd: int, size: int) -> bytes:
        if told:
            return real_read(fd, size)
        raise OSError(errno.EBADFD, "File descriptor in bad state")

    monkeypatch.setattr(tap.os, "read", read)
    assert vif.receive(9) == []
    assert len(told) == 1
    assert poller.poll(0) == []
    assert vif.receive(9) == []
    assert vif.receive_errors == 1
    vif.close()
    poller.close()


def test_the_appliance_tells_of_a_deleted_interface(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap, "open_tap", lambda _name: kernel.open())
    told: list[str] = []
    vif, _ = open_cable(Cable(link="tap:t0"), None, told.append)

    def gone(*_: object) -> bytes:
        raise OSError(errno.EBADFD, "File descriptor in bad state")

    monkeypatch.setattr(tap.os, "read", gone)
    vif.receive(9)
    vif.close()
    assert told == [f"{vif.name} has been deleted; start again with a tap that stays"]


def test_closed(kernel: Kernel) -> None:
    vif = kernel.open()
    vif.close()
    vif.close()
    assert kernel.devices[0].calls.count("close") == 1
    assert vif.receive(9) == []
    assert vif.send(PLAIN)


@pytest.mark.parametrize(
    ("number", "existed", "text"),
    [
        (errno.ENOENT, False, "modprobe tun"),
        (errno.EPERM, False, "CAP_NET_ADMIN"),
        (errno.EBUSY, True, "in use by another program"),
        (errno.EINVAL, True, "not a tap"),
        (errno.ENOMEM, False, "cannot be opened: Cannot allocate memory"),
    ],
)
def test_refusals_say_what_to_do(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, number: int, existed: bool, text: str
) -> None:
    has_interface(monkeypatch, existed)
    kernel.refuse_flags = {pytun.IFF_TAP: number}
    with pytest.raises(LinkError, match=text) as caught:
        kernel.open()
    assert caught.value.errno == number
    assert isinstance(caught.value, LocalError)


@pytest.mark.parametrize("name", ["", "a" * 16, "a/b", "a b", "ü" * 8])
def test_names_that_no_interface_can_have(name: str) -> None:
    with pytest.raises(LinkError, match="not an interface name"):
        open_tap(name)


def test_a_step_that_fails_closes_the_device(kernel: Kernel) -> None:
    def device(name: str, flags: int) -> FakeDevice:
        made = kernel.device(name, flags)

        def up() -> None:
            raise pytun.Error(errno.EPERM, "no")

        made.up = up  # type: ignore[method-assign]
        return made

    with pytest.raises(LinkError, match="CAP_NET_ADMIN"):
        open_tap(NAME, device=device, ioctl=kernel.ioctl)
    assert kernel.devices[0].calls == ["close"]


def test_host_side_says_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LinkError, match="no `ip` command"):
        tap.configure_host_side(NAME, "10.0.0.1/24")
