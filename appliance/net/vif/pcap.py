"""Recording any interface to a file that Wireshark reads, and reading such files.

The format is classic pcap with nanoseconds (draft-ietf-opsawg-pcap §4): a header, then one record
per frame. What is recorded is the Ethernet frame as it would look on a wire: without the
virtio_net_hdr, and with checksums that the link was to finish filled in. Super-segments are
recorded whole, as captures on a host with offload show them.

Files rotate at a bound. When the disk is full the recording stops, is counted and told once, and
the traffic goes on. Records are gathered and written at each `receive`, so a crash may cost the
last turn. Imports `vif.offload`, `wire`, `errors` and the operating system.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from appliance.net.errors import LinkError, WireError
from appliance.net.vif.base import Vif
from appliance.net.vif.offload import finish_checksum
from appliance.net.wire.virtio import NEEDS_CSUM, VNET_HDR_LEN

MAGIC_NANO: Final = 0xA1B23C4D
MAGIC_MICRO: Final = 0xA1B2C3D4
LINKTYPE_ETHERNET: Final = 1
"""https://www.tcpdump.org/linktypes.html"""
SNAPLEN: Final = 262144
"""Octets kept of a frame: more than any frame has (tcpdump's own default)."""
MAX_BYTES: Final = 64 << 20
"""Octets of one file: what Wireshark opens without a wait."""
KEEP: Final = 4
"""Files kept: with MAX_BYTES a quarter of a gigabyte at the most."""
GATHER: Final = 1 << 18
"""Octets gathered before a write, should nothing be received for long."""

_FILE = Struct("<IHHiIII")
_RECORD = Struct("<IIII")
_NS: Final = 1_000_000_000

COUNTERS: Final = ("pcap_format", "pcap_truncated")


class Captured(NamedTuple):
    """One record: nanoseconds since 1970, the octets kept, and the frame's length on the wire."""

    time_ns: int
    octets: bytes
    length: int


class Recorder:
    """An interface that records what passes through another; a `Vif`.

    `clock` gives nanoseconds since 1970. The current file is `path`, older ones are numbered before
    the suffix (`trace.1.pcap` is the last but one); `keep` files stay in all. `warn` is told, once,
    why a recording stopped. Raises LinkError when the file cannot be made.
    """

    def __init__(
        self,
        vif: Vif,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], int],
        warn: Callable[[str], None],
        snaplen: int = SNAPLEN,
        max_bytes: int = MAX_BYTES,
        keep: int = KEEP,
    ) -> None:
        self.inner = vif
        self.name = vif.name
        self.mac = vif.mac
        self.mtu = vif.mtu
        self.gso_max = vif.gso_max
        self.checksum_offload = vif.checksum_offload
        self.udp_segments = vif.udp_segments
        self.recorded = 0
        """Frames recorded."""
        self.stopped = 0
        """1 once the recording has stopped because of an error."""
        self._path = Path(path)
        self._clock = clock
        self._warn = warn
        self._snaplen = snaplen
        self._max_bytes = max_bytes
        self._keep = max(keep, 1)
        self._waiting: list[bytes] = []
        """Whole records not yet written: at most GATHER octets and one record."""
        self._waiting_size = 0
        self._file = -1
        self._size = 0
        """Octets in the file, all of them whole records."""
        try:
            self._open()
        except OSError as error:
            if self._file >= 0:
                os.close(self._file)
            number = error.errno or 0
            raise LinkError(number, f"cannot record to {self._path}: {error.strerror}") from error

    @property
    def on_readable(self) -> Callable[[], None] | None:
        """As in `Vif`."""
        return self.inner.on_readable

    @on_readable.setter
    def on_readable(self, callback: Callable[[], None] | None) -> None:
        self.inner.on_readable = callback

    @property
    def on_writable(self) -> Callable[[], None] | None:
        """As in `Vif`."""
        return self.inner.on_writable

    @on_writable.setter
    def on_writable(self, callback: Callable[[], None] | None) -> None:
        self.inner.on_writable = callback

    def fileno(self) -> int:
        """The inner interface's descriptor."""
        return self.inner.fileno()

    def receive(self, limit: int) -> list[bytes]:
        """Up to `limit` frames from the inner interface, recorded."""
        frames = self.inner.receive(limit)
        for frame in frames:
            self._record(frame)
        self._write()
        return frames

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> bool:
        """Send and, if the frame was taken, record."""
        taken = self.inner.send(head, payload)
        if taken and self._file >= 0:
            self._record(b"".join((head, payload)))
        return taken

    def close(self) -> None:
        """Write what is gathered, close the file and the inner interface."""
        self._write()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self.inner.close()

    def _record(self, frame: bytes) -> None:
        if self._file < 0:
            return
        # A sum over a frame that is then cut short could not be checked by anybody.
        if frame[0] & NEEDS_CSUM and len(frame) - VNET_HDR_LEN <= self._snaplen:
            try:
                frame = finish_checksum(frame)
            except WireError:
                pass  # recorded as it came: a capture is there to show such things
        kept = frame[VNET_HDR_LEN : VNET_HDR_LEN + self._snaplen]
        seconds, nanoseconds = divmod(self._clock(), _NS)
        length = len(frame) - VNET_HDR_LEN
        record = _RECORD.pack(seconds & 0xFFFFFFFF, nanoseconds, len(kept), length) + kept
        if self._size + self._waiting_size + len(record) > self._max_bytes:
            self._rotate()
            if self._file < 0:
                return
        self._waiting.append(record)
        self._waiting_size += len(record)
        self.recorded += 1
        if self._waiting_size >= GATHER:
            self._write()

    def _write(self) -> None:
        if not self._waiting or self._file < 0:
            return
        records, self._waiting, self._waiting_size = self._waiting, [], 0
        data = memoryview(b"".join(records))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            # A disk that fills up takes part of a record; a reader wants whole ones.
            for record in records:
                if written < len(record):
                    self.recorded -= 1
                else:
                    self._size += len(record)
                written = max(written - len(record), 0)
            self._stop(error)
        else:
            self._size += written

    def _rotate(self) -> None:
        self._write()
        if self._file < 0 or self._size <= _FILE.size:
            return  # stopped; or one record larger than a file, which gets a file of its own
        try:
            os.close(self._file)
            self._file = -1
            set_aside(self._path, self._keep)
            self._open()
        except OSError as error:
            self._stop(error)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        # 0o600: a capture holds other people's traffic.
        self._file = os.open(self._path, flags, 0o600)
        header = _FILE.pack(MAGIC_NANO, 2, 4, 0, 0, self._snaplen, LINKTYPE_ETHERNET)
        self._size = os.write(self._file, header)

    def _stop(self, error: OSError) -> None:
        """End the recording, not the traffic; what is in the file stays readable."""
        self.stopped = 1
        self._waiting.clear()
        self._waiting_size = 0
        if self._file >= 0:
            try:
                os.ftruncate(self._file, self._size)
            except OSError:
                pass  # a pipe or device has no end to cut off
            os.close(self._file)
            self._file = -1
        self._warn(f"recording to {self._path} has stopped: {error.strerror}")


def set_aside(path: Path, keep: int = KEEP) -> None:
    """Number the file at `path` and those before it up, for another to take its place.

    `keep` files stay, that one included; raises OSError.
    """
    for number in range(keep - 1, 0, -1):
        older = _numbered(path, number - 1)
        if older.exists():
            older.replace(_numbered(path, number))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}") if number else path


def read_pcap(path: str | os.PathLike[str]) -> list[Captured]:
    """Every record of a classic pcap file of Ethernet frames, in either byte order and precision.

    A last record that is cut short, as a crash leaves it, is left out. Raises OSError, and
    WireError when it is another kind of file or a record's length lies.
    """
    data = Path(path).read_bytes()
    for order in "<>":
        magic = Struct(order + "I")
        if len(data) >= _FILE.size and magic.unpack_from(data)[0] in (MAGIC_NANO, MAGIC_MICRO):
            break
    else:
        raise WireError("pcap_format")
    scale = 1 if magic.unpack_from(data)[0] == MAGIC_NANO else 1000
    # The upper bits of the last field say whether frames carry their check sequence.
    if magic.unpack_from(data, 20)[0] & 0xFFFF != LINKTYPE_ETHERNET:
        raise WireError("pcap_format")
    record = Struct(order + "IIII")
    found: list[Captured] = []
    at = _FILE.size
    while at + record.size <= len(data):
        seconds, fraction, kept, length = record.unpack_from(data, at)
        if kept > SNAPLEN or kept > length:
            raise WireError("pcap_truncated")
        at += record.size
        if at + kept > len(data):
            break
        found.append(Captured(seconds * _NS + fraction * scale, data[at : at + kept], length))
        at += kept
    return found
