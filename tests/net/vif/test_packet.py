"""What `open_packet` refuses, and says; the frames themselves are seen in the interop tests."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from appliance.net.errors import LinkError
from appliance.net.vif import packet
from appliance.net.vif.packet import PacketVif, open_packet
from appliance.net.wire.virtio import PLAIN

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: AF_PACKET")


def test_needs_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(packet.socket, "socket", refuse)
    with pytest.raises(LinkError, match="CAP_NET_RAW"):
        open_packet("eth0")


@root
@pytest.mark.parametrize(
    ("name", "reason"),
    [("nowhere0", "there is no interface"), ("lo", "not an Ethernet"), ("", "not an interface")],
)
def test_refusals(name: str, reason: str) -> None:
    with pytest.raises(LinkError, match=reason):
        open_packet(name)


@pytest.mark.parametrize(
    ("four", "six", "disabled", "expected"),
    [
        ("0", "0", "0", ""),
        ("1", "0", "0", "net.ipv4.conf.eth0.forwarding=0"),
        ("0", "1", "0", "net.ipv6.conf.eth0.disable_ipv6=1"),
        ("0", "1", "1", ""),
    ],
)
def test_a_kernel_that_forwards(
    tmp_path: Path, four: str, six: str, disabled: str, expected: str
) -> None:
    """RFC 1812 §5.2: a router sends on what is addressed to its MAC, and that is ours too."""
    assert packet._forwards("eth0", tmp_path) == ""  # no such protocol
    settings = {
        "ipv4/conf/eth0/forwarding": four,
        "ipv6/conf/eth0/forwarding": six,
        "ipv6/conf/eth0/disable_ipv6": disabled,
    }
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert packet._forwards("eth0", tmp_path) == expected


class Ends:
    """A PacketVif on a socket pair that keeps the bounds of frames."""

    def __init__(self, *, vnet: bool) -> None:
        inner, self.outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inner.setblocking(False)
        self.vif = PacketVif(inner, "eth0", b"\2" * 6, 1500, vnet=vnet, cut=True)

    def close(self) -> None:
        self.vif.close()
        self.outer.close()


@pytest.mark.parametrize("vnet", [True, False])
def test_frames_both_ways(vnet: bool) -> None:
    ends = Ends(vnet=vnet)
    frame = PLAIN + b"frame"
    wire = frame if vnet else b"frame"
    for payload in (b"", b"short", bytes(20_000)):
        assert ends.vif.send(frame, payload)
        assert ends.outer.recv(1 << 16) == wire + payload
    for _ in range(5):
        ends.outer.send(wire)
    assert ends.vif.receive(3) == [frame] * 3
    assert ends.vif.receive(64) == [frame] * 2
    assert ends.vif.receive(64) == []
    assert (ends.vif.gso_max > 0) is vnet
    ends.close()


def test_a_full_link_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends(vnet=True)
    outcomes = {
        errno.ENOBUFS: False, errno.EAGAIN: False, errno.ENETDOWN: True, errno.EMSGSIZE: True,
    }  # fmt: skip
    for number, taken in outcomes.items():

        def refuse(*_: Any, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(packet.os, "write", refuse)
        assert ends.vif.send(PLAIN) is taken
    assert (ends.vif.send_down, ends.vif.send_refused) == (1, 1)
    monkeypatch.undo()
    ends.close()
