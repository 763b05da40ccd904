"""A tap: an Ethernet cable to the Linux host, opened through pytun.

With IFF_VNET_HDR every frame carries a virtio_net_hdr, so the kernel hands over and takes TCP
super-segments of up to 64 KB and leaves checksums unfinished both ways: no octet of payload is
ever summed here. When the kernel refuses something the next best is taken, and `offload_report`
says so. Reads and writes never block; a frame costs one system call, and no copy on the way in.

Nothing on the host's side is configured unless asked: a tap that we made is brought up, a tap that
was there is left as it is, and `configure_host_side` is called for `--host-address` only. Imports
`wire`, `errors`, pytun and the operating system.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Any, Final, Protocol

import pytun

from appliance.net.errors import LinkError
from appliance.net.vif.base import derived_mac
from appliance.net.vif.heap import keep_batches
from appliance.net.wire.ethernet import HEADER_LEN
from appliance.net.wire.ipv4 import MAX_TOTAL_LEN
from appliance.net.wire.virtio import PLAIN, VNET_HDR_LEN

# linux/if_tun.h
TUNSETOFFLOAD: Final = 0x400454D0
TUNGETVNETHDRSZ: Final = 0x800454D7
TUNSETVNETHDRSZ: Final = 0x400454D8
TUN_F_CSUM: Final = 1
TUN_F_TSO4: Final = 2
TUN_F_TSO6: Final = 4
TUN_F_USO4: Final = 0x20
TUN_F_USO6: Final = 0x40
IFF_MULTI_QUEUE: Final = 0x0100

# linux/sockios.h, linux/if.h
SIOCGIFFLAGS: Final = 0x8913
IFF_UP: Final = 1

READ_SIZE: Final = VNET_HDR_LEN + HEADER_LEN + 4 + MAX_TOTAL_LEN
"""Octets: the largest frame that the kernel makes, with one 802.1Q tag."""
JOIN_MAX: Final = 8192
"""Octets of payload up to which joining costs less than a second element of a gather write
(measured on CPython 3.11: 0.33 against 0.40 us at 1,448, equal at about 10,000)."""
NAME_MAX: Final = 15
"""Octets of an interface name (IFNAMSIZ - 1, linux/if.h)."""
UDP_SEGMENTS: Final = 64
"""Datagrams in a super-datagram: what every kernel that knows them cuts (UDP_MAX_SEGMENTS)."""
IP_COMMAND_TIMEOUT: Final = 10.0
"""Seconds; `ip` answers at once or is stuck."""

_INT: Final = Struct("i")
_IFREQ: Final = Struct("16sh14x")
_FULL: Final = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM))

Ioctl = Callable[[int, int, Any], Any]


class TunDevice(Protocol):
    """The part of pytun.TunTapDevice that is used here."""

    name: str
    mtu: int
    hwaddr: bytes

    def fileno(self) -> int:
        """The descriptor of /dev/net/tun."""
        ...

    def up(self) -> None:
        """Set IFF_UP (SIOCSIFFLAGS)."""
        ...

    def persist(self, on: bool) -> None:
        """Keep the interface when the descriptor is closed (TUNSETPERSIST)."""
        ...

    def close(self) -> None:
        """Close the descriptor."""
        ...


class Tap:
    """One tap; a `Vif`. Made by `open_tap`."""

    def __init__(
        self,
        device: TunDevice,
        *,
        mac: bytes,
        vnet_header: bool,
        offload_report: str,
        udp_segments: int = 0,
    ) -> None:
        self.name = device.name
        self.mac = mac
        self.mtu = device.mtu
        self.gso_max = MAX_TOTAL_LEN if vnet_header else 0
        self.checksum_offload = vnet_header
        self.udp_segments = udp_segments
        self.on_readable: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.on_lost: Callable[[str], None] | None = None
        """Called once, with a sentence for the operator, when the interface has been deleted."""
        self.offload_report = offload_report
        """One line: what the kernel and the stack leave to each other."""
        self.send_down = 0
        """Frames dropped because the host's side of the tap is down or deleted."""
        self.send_refused = 0
        """Frames that the kernel called invalid."""
        self.receive_errors = 0
        self._device = device
        self._fd = device.fileno()
        self._vnet_header = vnet_header
        self._parked = -1
        """The writing end of the pipe that stands in for a deleted interface."""
        self._closed = False

    def fileno(self) -> int:
        """The descriptor, readable when frames wait."""
        return self._fd

    def receive(self, limit: int) -> list[bytes]:
        """Up to `limit` frames; never blocks."""
        frames: list[bytes] = []
        read, fd = os.read, self._fd
        try:
            for _ in range(limit):
                frames.append(read(fd, READ_SIZE))  # noqa: PERF401 - kept when the next fails
        except BlockingIOError:
            pass
        except OSError as error:
            self._receive_failed(error)
        if self._vnet_header:
            return frames
        return [PLAIN + frame for frame in frames]

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Write head + payload; False when the kernel has no room."""
        try:
            if not self._vnet_header:
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
            return self._send_failed(error)
        return True

    def close(self) -> None:
        """Close the descriptor; an interface that is not persistent disappears with it."""
        if not self._closed:
            self._closed = True
            self._device.close()
            self._fd = -1
            if self._parked >= 0:
                os.close(self._parked)

    def _send_failed(self, error: OSError) -> bool:
        if error.errno in _FULL:
            return False
        # EIO: the interface is down; EBADFD: it was deleted; EBADF: closed here.
        if error.errno in (errno.EIO, errno.EBADFD, errno.EBADF):
            self.send_down += 1
        else:
            self.send_refused += 1
        return True

    def _receive_failed(self, error: OSError) -> None:
        if self._closed:
            return
        self.receive_errors += 1
        if error.errno != errno.EBADFD:
            return
        # The interface was deleted under us: the descriptor would poll as "error" for ever. An
        # end of a pipe that never becomes readable takes its number, which ends the polling.
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.dup2(reader, self._fd, inheritable=False)
        os.close(reader)
        self._parked = writer
        if self.on_lost is not None:
            self.on_lost(f"{self.name} has been deleted; start again with a tap that stays")


def open_tap(
    name: str,
    *,
    mac: bytes | None = None,
    mtu: int | None = None,
    persist: bool = False,
    queue: bool = False,
    device: Callable[..., TunDevice] = pytun.TunTapDevice,
    ioctl: Ioctl = fcntl.ioctl,
) -> Tap:
    """Attach to the tap `name`, which is made (and brought up) if it does not exist.

    `mac` is the stack's address, derived from the name unless given; `mtu` in octets is set only on
    a tap made here. `queue` opens one queue of several (IFF_MULTI_QUEUE): each further call with
    the same name opens another, up to 256. Raises LinkError, whose text says what to do.
    """
    if not name or len(name.encode()) > NAME_MAX or "/" in name or name.split() != [name]:
        raise LinkError(
            errno.EINVAL,
            f"{name!r} is not an interface name: 1 to {NAME_MAX} octets, no / or space",
        )
    existed = _exists(name)
    more = IFF_MULTI_QUEUE if queue else 0
    tun, vnet_header = _attach(name, device, existed, more)
    try:
        if vnet_header and not _set_header_size(tun.fileno(), ioctl):
            vnet_header = False
            tun.close()
            tun = device(name=name, flags=pytun.IFF_TAP | pytun.IFF_NO_PI | more)
        report = "the kernel gives no vnet header: segmentation and checksums in software"
        udp_segments = 0
        if vnet_header:
            udp_segments = _udp_segments(tun.fileno(), ioctl)
            report = _negotiate(tun.fileno(), ioctl)
        os.set_blocking(tun.fileno(), False)
        if not existed:
            if mtu is not None:
                tun.mtu = mtu
            if persist:
                tun.persist(True)
            tun.up()
        elif not _is_up(name):
            report += f"; the host's side is down (ip link set {name} up)"
        own = mac if mac is not None else _mac_beside(tun.name, tun.hwaddr)
        keep_batches()
        return Tap(
            tun,
            mac=own,
            vnet_header=vnet_header,
            offload_report=report,
            udp_segments=udp_segments,
        )
    except OSError as error:
        tun.close()
        raise _explained(error, name, existed) from error


def configure_host_side(name: str, cidr: str) -> None:
    """Give the host's side of the tap the address `cidr` and bring it up, with `ip`.

    An address that is there already is left alone. Raises LinkError.
    """
    for command in (
        ["ip", "address", "replace", cidr, "dev", name],
        ["ip", "link", "set", "dev", name, "up"],
    ):
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command, arguments as a list
                command, capture_output=True, text=True, timeout=IP_COMMAND_TIMEOUT, check=False
            )
        except FileNotFoundError:
            raise LinkError(
                errno.ENOENT,
                f"there is no `ip` command (package iproute2); without it give {name} its address "
                f"{cidr} by other means and leave --host-address out",
            ) from None
        except subprocess.TimeoutExpired:
            raise LinkError(errno.ETIMEDOUT, f"`{' '.join(command)}` did not finish") from None
        if done.returncode:
            reason = done.stderr.strip() or f"exit status {done.returncode}"
            raise LinkError(errno.EINVAL, f"`{' '.join(command)}` failed: {reason}")


def _exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _is_up(name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, SIOCGIFFLAGS, _IFREQ.pack(name.encode(), 0))
    return bool(_IFREQ.unpack(answer)[1] & IFF_UP)


def open_tap_queues(name: str, count: int, **options: Any) -> list[Tap]:
    """Open `count` queues of one tap (`open_tap`'s options); frames of one flow keep to one.

    The kernel steers by a hash of the flow, and learns from the queue that a flow's answers left
    by (Linux, tun.rst "Multiqueue tuntap interface"). Raises LinkError.
    """
    queues: list[Tap] = []
    try:
        while len(queues) < count:
            queues.append(open_tap(name, queue=True, **options))
    except LinkError:
        for opened in queues:
            opened.close()
        raise
    return queues


def _attach(
    name: str, device: Callable[..., TunDevice], existed: bool, more: int = 0
) -> tuple[TunDevice, bool]:
    """The device, and whether frames carry a virtio_net_hdr; `more` flags besides the usual."""
    flags = pytun.IFF_TAP | pytun.IFF_NO_PI | more
    try:
        return device(name=name, flags=flags | pytun.IFF_VNET_HDR), True
    except OSError as error:
        # A kernel or sandbox that does not know IFF_VNET_HDR calls it invalid.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise _explained(error, name, existed) from error
    try:
        return device(name=name, flags=flags), False
    except OSError as error:
        raise _explained(error, name, existed) from error


def _set_header_size(fd: int, ioctl: Ioctl) -> bool:
    """Have headers of ten octets: a tap that somebody else used before may be set to twelve."""
    try:
        ioctl(fd, TUNSETVNETHDRSZ, _INT.pack(VNET_HDR_LEN))
    except OSError:
        try:
            size = ioctl(fd, TUNGETVNETHDRSZ, _INT.pack(0))
        except OSError:
            return False
        return bool(_INT.unpack(size)[0] == VNET_HDR_LEN)
    return True


def _udp_segments(fd: int, ioctl: Ioctl) -> int:
    """How many datagrams may leave as one: a kernel that would hand such over takes them, too.

    Nothing is left of the asking after `_negotiate`: towards us each datagram comes by itself.
    """
    try:
        ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6)
    except OSError:
        return 0  # before Linux 6.2
    return UDP_SEGMENTS


def _negotiate(fd: int, ioctl: Ioctl) -> str:
    """Tell the kernel what it may leave to us; the report of what it agreed to.

    Whatever it refuses, frames that we send may still be unfinished: the header alone carries that.
    """
    for flags, report in (
        (
            TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
            "checksum and TCP segmentation offload (IPv4, IPv6), both ways",
        ),
        (TUN_F_CSUM | TUN_F_TSO4, "checksum and TCP segmentation offload, IPv4 only towards us"),
        (TUN_F_CSUM, "checksum offload both ways, segmentation offload from us only"),
    ):
        try:
            ioctl(fd, TUNSETOFFLOAD, flags)
        except OSError:
            continue
        return report
    return "checksum and segmentation offload from us only"


def _mac_beside(name: str, kernel_mac: bytes) -> bytes:
    """Our address for this name, which must not be the one of the kernel's side."""
    mac = derived_mac(name)
    return mac if mac != kernel_mac else mac[:5] + bytes((mac[5] ^ 1,))


def _tun_flags(name: str) -> int:
    """What a tap or tun was made with (linux/if_tun.h); 0 for anything else."""
    try:
        return int(Path(f"/sys/class/net/{name}/tun_flags").read_text(), 16)
    except (OSError, ValueError):
        return 0


def _explained(error: OSError, name: str, existed: bool) -> LinkError:
    """The kernel's reason in words that tell what to do."""
    number = error.errno or errno.EINVAL
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        text = (
            "/dev/net/tun is missing: load the module (modprobe tun), or give the container the "
            "device (--device /dev/net/tun)"
        )
    elif number in (errno.EPERM, errno.EACCES):
        text = (
            f"not allowed to open the tap {name}: run as root or with CAP_NET_ADMIN, or have it "
            f"made for you once (ip tuntap add dev {name} mode tap user $USER)"
        )
    elif number == errno.EBUSY:
        text = f"{name} is in use by another program; stop it, or name another tap"
    elif number == errno.EINVAL and existed and (flags := _tun_flags(name)) & pytun.IFF_TAP:
        if flags & IFF_MULTI_QUEUE:
            text = f"{name} was made with several queues: use --workers, or make it without"
        else:
            text = (
                f"{name} was made with one queue: for several workers make it with "
                f"ip tuntap add dev {name} mode tap multi_queue"
            )
    elif number == errno.EINVAL and existed:
        text = f"{name} exists and is not a tap that can be attached to; name another one"
    else:
        text = f"the tap {name} cannot be opened: {os.strerror(number)}"
    return LinkError(number, text)
