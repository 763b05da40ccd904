"""A network card as it is: AF_PACKET on an interface whose kernel side has no address.

The stack takes the card's own MAC; the kernel sees the same frames, and keeps silent because
nothing in them is addressed to it. That is checked: an interface with an address of the kernel's
is refused, since two hosts would answer, and one whose packets the kernel forwards, since it would
send ours on, or tell that it cannot. With PACKET_VNET_HDR every frame carries the same
virtio_net_hdr as on a tap, so super-segments and unfinished checksums pass both ways. A wake-up
reads a batch, one system call and no copy for each frame.

Frames of other VLANs, which a card hands over without their tags, are filtered out in the kernel.
Nothing on the host is configured; the card's filter lets groups in while the socket is open.
Imports `wire`, `errors` and the operating system.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Final

from appliance.net.errors import LinkError
from appliance.net.vif.heap import keep_batches
from appliance.net.vif.tap import (
    IFF_UP,
    JOIN_MAX,
    NAME_MAX,
    READ_SIZE,
    SIOCGIFFLAGS,
    UDP_SEGMENTS,
)
from appliance.net.wire.address import to_text
from appliance.net.wire.ipv4 import MAX_TOTAL_LEN
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

# linux/if_packet.h, linux/if_ether.h, linux/sockios.h, asm-generic/socket.h
SOL_PACKET: Final = 263
PACKET_ADD_MEMBERSHIP: Final = 1
PACKET_VNET_HDR: Final = 15
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_MR_PROMISC: Final = 1
PACKET_MR_ALLMULTI: Final = 2
ETH_P_ALL: Final = 3
ARPHRD_ETHER: Final = 1
SIOCGIFADDR: Final = 0x8915
SIOCGIFMTU: Final = 0x8921
SIOCGIFHWADDR: Final = 0x8927
SIOCETHTOOL: Final = 0x8946
ETHTOOL_GTSO: Final = 0x1E  # linux/ethtool.h
SO_ATTACH_FILTER: Final = 26
SO_RCVBUFFORCE: Final = 33
SO_SNDBUFFORCE: Final = 32

BUFFER: Final = 4 << 20
"""Octets that wait in the kernel each way: a turn of a millisecond at 10 Gbit/s and then some."""

UDP_SEGMENTS_SINCE: Final = (6, 2)
"""The first Linux that takes GSO_UDP_L4 in a virtio_net_hdr; nothing tells but its number."""

_IFREQ: Final = Struct("16s24x")
_IFREQ_DATA: Final = Struct("@16sP16x")
_ETHTOOL_VALUE: Final = Struct("@II")
_MREQ: Final = Struct("iHH8s")
_INT: Final = Struct("i")
_FILTER: Final = Struct("HBBI")
_NO_VLAN: Final = (
    (0x30, 0, 0, 0xFFFFF000 + 48),  # ldb the ancillary "has a VLAN tag" (linux/filter.h)
    (0x15, 0, 1, 0),  # is it nought?
    (0x06, 0, 0, 0x40000),  # yes: all of the frame
    (0x06, 0, 0, 0),  # no: nothing
)
_FULL: Final = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM))


class PacketVif:
    """One network card; a `Vif`. Made by `open_packet`."""

    def __init__(
        self, link: socket.socket, name: str, mac: bytes, mtu: int, *, vnet: bool, cut: bool
    ) -> None:
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.gso_max = MAX_TOTAL_LEN if vnet and cut else 0
        self.checksum_offload = vnet
        udp = vnet and _has_ip() and _kernel() >= UDP_SEGMENTS_SINCE
        self.udp_segments = UDP_SEGMENTS if udp else 0
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        if not vnet:
            report = "the kernel gives no vnet header: segmentation and checksums in software"
        elif not cut:
            report = (
                "checksum offload; segmentation in software, as neither kernel nor card does it"
            )
        else:
            report = "checksum and TCP segmentation offload by the kernel or the card"
        self.offload_report = report
        self.send_down = 0
        """Frames dropped because the card is down or gone."""
        self.send_refused = 0
        """Frames that the kernel called invalid."""
        self.receive_errors = 0
        self._link = link
        self._fd = link.fileno()
        self._vnet = vnet

    def fileno(self) -> int:
        """The socket, readable when frames wait."""
        return self._fd

    def receive(self, limit: int) -> list[bytes]:
        """Up to `limit` frames; never blocks."""
        frames: list[bytes] = []
        append, read, fd = frames.append, os.read, self._fd
        try:
            for _ in range(limit):
                append(read(fd, READ_SIZE))
        except BlockingIOError:
            pass
        except OSError:
            # ENETDOWN, once, when the card goes down; it may come back.
            self.receive_errors += 1
        if self._vnet:
            return frames
        return [PLAIN + frame for frame in frames]

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Write head + payload; False when the kernel has no room."""
        try:
            if not self._vnet:
                os.writev(self._fd, (memoryview(head)[VNET_HDR_LEN:], payload))
            elif not payload:
                os.write(self._fd, head)
            elif len(payload) <= JOIN_MAX:
                os.write(self._fd, head + payload)
            else:
                os.writev(self._fd, (head, payload))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _FULL:
                return False
            if error.errno in (errno.ENETDOWN, errno.ENXIO, errno.ENODEV, errno.EBADF):
                self.send_down += 1
            else:
                self.send_refused += 1
        return True

    def close(self) -> None:
        """Close the socket; the card forgets what was asked of it."""
        self._link.close()
        self._fd = -1


def open_packet(name: str, *, mac: bytes | None = None, mtu: int | None = None) -> PacketVif:
    """Attach to the network card `name`, which must be up and without addresses of the kernel's.

    `mac` is the stack's address, the card's own unless given (then the card is made to listen to
    everything); `mtu` in octets lowers the card's. Raises LinkError, whose text says what to do.
    """
    if not name or len(name.encode()) > NAME_MAX:
        raise LinkError(errno.EINVAL, f"{name!r} is not an interface name")
    try:
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except PermissionError:
        raise LinkError(
            errno.EPERM, f"not allowed to open {name}: run as root or with CAP_NET_RAW"
        ) from None
    try:
        hardware, its_mtu = _inspect(link, name)
        vnet = _option(link, PACKET_VNET_HDR, 1)
        _option(link, PACKET_IGNORE_OUTGOING, 1)
        _attach_filter(link)
        for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            try:
                link.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            except OSError:
                pass  # without CAP_NET_ADMIN the default has to do
        link.setblocking(False)
        link.bind((name, ETH_P_ALL))
        index = socket.if_nametoindex(name)
        mode = PACKET_MR_ALLMULTI if mac in (None, hardware) else PACKET_MR_PROMISC
        # Groups: a solicited-node group for each address, and more than a card has filters for.
        link.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, _MREQ.pack(index, mode, 0, b""))
        wanted = its_mtu if mtu is None else min(mtu, its_mtu)
        keep_batches()
        cut = _has_ip() or _segments(link, name)
        return PacketVif(link, name, mac or hardware, wanted, vnet=vnet, cut=cut)
    except OSError as error:
        link.close()
        if isinstance(error, LinkError):
            raise
        reason = os.strerror(error.errno or errno.EINVAL)
        raise LinkError(error.errno or errno.EINVAL, f"{name} cannot be used: {reason}") from error


def _inspect(link: socket.socket, name: str) -> tuple[bytes, int]:
    """The card's MAC and MTU, if it can be ours; raises LinkError."""
    request = _IFREQ.pack(name.encode())
    try:
        flags = int.from_bytes(fcntl.ioctl(link, SIOCGIFFLAGS, request)[16:18], "little")
    except OSError as error:
        raise LinkError(
            error.errno or errno.ENODEV, f"there is no interface {name} (ip link shows them)"
        ) from None
    if not flags & IFF_UP:
        raise LinkError(errno.ENETDOWN, f"{name} is down: ip link set {name} up")
    hardware = fcntl.ioctl(link, SIOCGIFHWADDR, request)
    if int.from_bytes(hardware[16:18], "little") != ARPHRD_ETHER:
        raise LinkError(errno.EINVAL, f"{name} is not an Ethernet interface")
    if own := _kernel_addresses(name, request):
        raise LinkError(
            errno.EADDRINUSE,
            f"the kernel has {', '.join(own)} on {name} and would answer too: "
            f"ip address flush dev {name}",
        )
    if setting := _forwards(name):
        raise LinkError(
            errno.EADDRINUSE,
            f"the kernel is a router and forwards what arrives on {name}: sysctl -w {setting}",
        )
    mtu = _INT.unpack(fcntl.ioctl(link, SIOCGIFMTU, request)[16:20])[0]
    return hardware[18:24], mtu


def _has_ip() -> bool:
    """Whether the kernel knows TCP/IP: then it cuts super-segments for a card that does not."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError:
        return False  # EAFNOSUPPORT, as in an image: what the card does not cut is dropped
    return True


def _segments(link: socket.socket, name: str) -> bool:
    """Whether the card itself cuts TCP super-segments (ETHTOOL_GTSO)."""
    value = ctypes.create_string_buffer(_ETHTOOL_VALUE.pack(ETHTOOL_GTSO, 0), _ETHTOOL_VALUE.size)
    try:
        fcntl.ioctl(link, SIOCETHTOOL, _IFREQ_DATA.pack(name.encode(), ctypes.addressof(value)))
    except OSError:
        return False  # a driver without such questions
    return bool(_ETHTOOL_VALUE.unpack(value.raw)[1])


def _kernel_addresses(name: str, request: bytes) -> list[str]:
    """The kernel's addresses on the card, but for its IPv6 link-local one, which is not ours."""
    own: list[str] = []
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            own.append(to_text(fcntl.ioctl(control, SIOCGIFADDR, request)[20:24]))
    except OSError:
        pass  # EADDRNOTAVAIL: none; EAFNOSUPPORT: a kernel without an IP stack, as in an image
    try:
        table = Path("/proc/net/if_inet6").read_text()
    except OSError:
        return own
    for line in table.splitlines():
        address, _, _, scope, _, device = line.split()
        if device == name and scope == "00":  # global
            own.append(to_text(bytes.fromhex(address)))
    return own


def _forwards(name: str, system: Path = Path("/proc/sys/net")) -> str:
    """The setting that keeps the kernel from forwarding what arrives; "" if it does not.

    What a card gets is addressed to its MAC, which is all that a router looks at first.
    """

    def on(family: str, key: str) -> bool:
        try:
            return (system / family / "conf" / name / key).read_text().strip() == "1"
        except OSError:
            return False  # a kernel without this protocol, as in an image

    if on("ipv4", "forwarding"):
        return f"net.ipv4.conf.{name}.forwarding=0"
    if on("ipv6", "forwarding") and not on("ipv6", "disable_ipv6"):
        return f"net.ipv6.conf.{name}.disable_ipv6=1"
    return ""


def _kernel() -> tuple[int, int]:
    """The running kernel's number, as far as it counts."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return int(major), int(minor)


def _option(link: socket.socket, option: int, value: int) -> bool:
    try:
        link.setsockopt(SOL_PACKET, option, value)
    except OSError:
        return False  # a kernel that does not know it
    return True


def _attach_filter(link: socket.socket) -> None:
    """Have the kernel keep frames of VLANs to itself."""
    program = b"".join(_FILTER.pack(*instruction) for instruction in _NO_VLAN)
    octets = ctypes.create_string_buffer(program)
    # struct sock_fprog: how many, and where; the kernel copies it.
    described = Struct("HL") if ctypes.sizeof(ctypes.c_void_p) == 4 else Struct("HxxxxxxQ")
    value = described.pack(len(_NO_VLAN), ctypes.addressof(octets))
    link.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, value)
