"""Calls about options: fcntl, ioctl, setsockopt and getsockopt.

Imports the process.
"""

from __future__ import annotations

import codecs
import errno
from collections.abc import Callable
from typing import Final

from appliance.fuzz.script import events as e
from appliance.fuzz.script.faults import InapplicableError
from appliance.fuzz.script.process import Process
from appliance.fuzz.script.sockets import O_NONBLOCK, O_RDWR, ErrnoError, Socket
from appliance.fuzz.script.symbols import member, number, number_of, written
from appliance.net.tcp_state import SYN_SENT
from appliance.siphash import KEY_LEN

# Options that may be set and mean nothing to one host on one link without a wall clock.
_HARMLESS: Final = {
    "SO_REUSEADDR", "SO_REUSEPORT", "SO_RCVLOWAT", "SO_RCVTIMEO", "SO_SNDTIMEO", "SO_KEEPALIVE",
    "IP_MTU_DISCOVER", "IP_FREEBIND", "IP_RECVERR", "IP_TTL", "SO_MARK", "SO_PRIORITY",
    "TCP_QUICKACK", "SO_BINDTODEVICE", "IPV6_MTU_DISCOVER", "IPV6_RECVERR", "IPV6_FREEBIND",
    "IPV6_UNICAST_HOPS", "IPV6_V6ONLY",
}  # fmt: skip
# Options that are fields of `TcpSettings`, and what their numbers are there.
_SETTINGS: Final[dict[str, tuple[str, Callable[[int], object]]]] = {
    "TCP_KEEPCNT": ("keepalive_count", int),
    "TCP_KEEPIDLE": ("keepalive", float),
    "TCP_KEEPINTVL": ("keepalive_interval", float),
    "TCP_MAXSEG": ("max_segment", int),
    "TCP_NODELAY": ("nodelay", bool),
    "TCP_SYNCNT": ("syn_retries", int),
    "TCP_USER_TIMEOUT": ("user_timeout", lambda milliseconds: milliseconds / 1000.0),
}


class OptionCalls(Process):
    """What may be asked of and set on a descriptor."""

    def sys_fcntl(self, call: e.Call) -> int:
        """fcntl(fd, F_GETFL | F_SETFL, flags)."""
        thing = self._socket(call)
        command = self._int(call, 1)
        if command == number_of("F_GETFL"):
            return thing.flags
        if command != number_of("F_SETFL"):
            raise InapplicableError("fcntl() knows F_GETFL and F_SETFL")
        thing.flags = O_RDWR | (self._int(call, 2) & O_NONBLOCK)
        return 0

    def sys_ioctl(self, call: e.Call) -> int:
        """ioctl(fd, SIOCINQ | SIOCOUTQ, [n])."""
        thing = self._socket(call)
        request = self._int(call, 1)
        connection = thing.connection()
        if connection is None or thing.stream is None:
            raise ErrnoError(errno.EINVAL)
        if request == number_of("SIOCINQ"):
            found = thing.stream.available()
        elif request == number_of("SIOCOUTQ"):
            found = connection.snd_nxt + connection.unsent - connection.snd_una
        else:
            raise InapplicableError("ioctl() knows SIOCINQ and SIOCOUTQ")
        self._equal("value", call.arguments[2], found)
        return 0

    def sys_setsockopt(self, call: e.Call) -> int:
        """setsockopt(fd, level, name, value, length)."""
        thing = self._socket(call)
        option = _option_name(call.arguments[2])
        if option == "SO_LINGER":
            on, seconds = (member(call.arguments[3], key) for key in ("onoff", "linger"))
            if on and seconds:
                raise InapplicableError("SO_LINGER with a time to wait is not there")
            thing.options[1, 13] = 0 if on else -1
            return 0
        if option == "TCP_FASTOPEN_KEY":
            return self._set_fast_key(thing, call)
        value = number(call.arguments[3])
        if option == "TCP_FASTOPEN_CONNECT" and not self.environment.fast_open_connects:
            raise ErrnoError(errno.EOPNOTSUPP)
        thing.options[self._int(call, 1), number_of(option)] = value
        if option == "TCP_CORK":
            thing.set_cork(value != 0)
        else:
            self._apply(thing, option, value)
        return 0

    def _set_fast_key(self, thing: Socket, call: e.Call) -> int:
        """A key of Fast Open, or two, for one listener."""
        text, length = call.arguments[3], self._int(call, 4)
        octets = b""
        if isinstance(text, str):  # written as in C
            octets = codecs.escape_decode(text.encode())[0][:length]
        if len(octets) not in (KEY_LEN, 2 * KEY_LEN):
            raise ErrnoError(errno.EINVAL)
        thing.fast_keys = tuple(octets[at : at + KEY_LEN] for at in range(0, len(octets), KEY_LEN))
        if thing.listener is not None:
            thing.listener.opens.keys = thing.fast_keys
        return 0

    def _apply(self, thing: Socket, option: str, value: int) -> None:
        settings: dict[str, object]
        if option in _SETTINGS:
            name, convert = _SETTINGS[option]
            settings = {name: convert(value)}
        elif option == "TCP_FASTOPEN":
            settings = {"fast_open": value if self.environment.fast_open_serves else 0}
        elif option == "TCP_FASTOPEN_CONNECT":
            thing.fast_connect = value != 0
            return
        elif option == "SO_RCVBUF":
            doubled = 2 * value  # Linux counts its own structures in; half of it is for octets
            settings = {"receive_buffer": doubled // 2, "receive_start": doubled // 2}
        elif option == "TCP_CONGESTION":
            raise InapplicableError("TCP_CONGESTION wants a string")
        elif option == "SO_SNDBUF":
            thing.sndbuf = 2 * value
            return
        elif option == "TCP_INQ":
            thing.inq = value != 0
            return
        elif option == "IP_TOS":
            if value & ~3:
                thing.options[0, 1] = value
            return
        elif option in _HARMLESS and not (option == "IPV6_V6ONLY" and value and not self.six):
            return
        else:
            raise InapplicableError(f"the socket option {option} means nothing here")
        thing.set_option(settings)

    def sys_getsockopt(self, call: e.Call) -> int:
        """getsockopt(fd, level, name, [value], [length])."""
        thing = self._socket(call)
        option = _option_name(call.arguments[2])
        connection = thing.connection()
        if option == "SO_ERROR":
            error = thing.stream.error if thing.stream else None
            found = 0
            if error is not None and thing.told is not error:
                thing.told, found = error, error.errno or 0
        elif option == "TCP_MAXSEG" and connection is not None and connection.state > SYN_SENT:
            found = connection.mss
        elif option == "TCP_MAXSEG":
            found = thing.settings.max_segment or 536
        elif option == "SO_SNDBUF":
            found = thing.sndbuf
        elif option == "TCP_NOTSENT_LOWAT":
            found = thing.options.get((6, number_of(option)), 0)
        else:
            key = (self._int(call, 1), number_of(option))
            if key not in thing.options and option not in ("TCP_NODELAY", "SO_REUSEADDR"):
                raise InapplicableError(f"getsockopt() does not know {option}")
            found = thing.options.get(key, 0)
        self._equal(option, call.arguments[3], found)
        return 0


def _option_name(value: e.Value) -> str:
    if isinstance(value, e.Symbol):
        return value.name
    raise InapplicableError(f"a socket option without a name: {written(value)}")
