"""The names of the C library that scripts use, as numbers.

Most come from Python's own modules; those that Python does not carry stand below with their
values from Linux's headers.  A name that nobody knows makes a script not applicable, not wrong.
It imports the standard library and the shapes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from typing import Final

from appliance.fuzz.script.events import (
    Array,
    Assigned,
    Either,
    Structure,
    Symbol,
    Value,
    Whatever,
)
from appliance.fuzz.script.faults import InapplicableError

# include/uapi/linux: tcp.h, in.h, socket.h, sockios.h, errqueue.h, net_tstamp.h.
_MORE: Final = {
    "EPOLLET": 1 << 31,
    "EPOLL_CTL_ADD": 1,
    "EPOLL_CTL_DEL": 2,
    "EPOLL_CTL_MOD": 3,
    "IP_FREEBIND": 15,
    "IP_MTU_DISCOVER": 10,
    "IP_PMTUDISC_DO": 2,
    "IP_PMTUDISC_DONT": 0,
    "IP_PMTUDISC_PROBE": 3,
    "IP_PMTUDISC_WANT": 1,
    "IP_RECVERR": 11,
    "MSG_EOR": 0x80,
    "MSG_FASTOPEN": 0x2000_0000,
    "MSG_MORE": 0x8000,
    "MSG_ZEROCOPY": 0x400_0000,
    "IPV6_FREEBIND": 78,
    "IPV6_MTU_DISCOVER": 23,
    "NULL": 0,
    "SIOCINQ": 0x541B,
    "SIOCOUTQ": 0x5411,
    "SOL_IP": 0,
    "SOL_IPV6": 41,
    "SOL_TCP": 6,
    "SO_MARK": 36,
    "SO_MAX_PACING_RATE": 47,
    "SO_TIMESTAMPING": 37,
    "SO_ZEROCOPY": 60,
    "TCP_CM_INQ": 36,
    "TCP_CORK": 3,
    "TCP_FASTOPEN": 23,
    "TCP_FASTOPEN_CONNECT": 30,
    "TCP_FASTOPEN_KEY": 33,
    "TCP_INFO": 11,
    "TCP_INQ": 36,
    "TCP_MAXSEG": 2,
    "TCP_MD5SIG": 14,
    "TCP_NOTSENT_LOWAT": 25,
    "TCP_SYNCNT": 7,
    "TCP_TX_DELAY": 37,
    "TCP_USER_TIMEOUT": 18,
}


def number_of(name: str) -> int:
    """The number that `name` stands for; raises InapplicableError for a name that nobody knows."""
    if name in _MORE:
        return _MORE[name]
    for module in (socket, errno, select, os, fcntl):
        value = getattr(module, name, None)
        if isinstance(value, int):
            return int(value)
    raise InapplicableError(f"{name} means nothing here")


def number(value: Value) -> int:
    """The number that an expression comes to; raises InapplicableError."""
    if isinstance(value, int):
        return value
    if isinstance(value, Symbol):
        return number_of(value.name)
    if isinstance(value, Either):
        return number(value.left) | number(value.right)
    if isinstance(value, Array) and len(value.members) == 1:
        return number(value.members[0])
    raise InapplicableError(f"{written(value)} is not a number")


def member(value: Value, name: str) -> Value | None:
    """The value of `name=` in a structure, or None; `name(...)=` counts as well."""
    if isinstance(value, Structure):
        for entry in value.members:
            if isinstance(entry, Assigned):
                key = entry.key
                if getattr(key, "name", "") == name:
                    return entry.value
    return None


def names_in(value: Value) -> set[str]:
    """Every name that an expression mentions."""
    if isinstance(value, Symbol):
        return {value.name}
    if isinstance(value, Either):
        return names_in(value.left) | names_in(value.right)
    if isinstance(value, Assigned):
        return names_in(value.key) | names_in(value.value)
    if isinstance(value, Structure | Array):
        return set().union(*(names_in(m) for m in value.members)) if value.members else set()
    return set()


def written(value: Value) -> str:
    """An expression as a script writes it."""
    if isinstance(value, Whatever):
        return "..."
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, Either):
        return f"{written(value.left)}|{written(value.right)}"
    if isinstance(value, Assigned):
        return f"{written(value.key)}={written(value.value)}"
    if isinstance(value, Array):
        return f"[{', '.join(map(written, value.members))}]"
    if isinstance(value, Structure):
        return f"{{{', '.join(map(written, value.members))}}}"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, int | float):
        return str(value)
    return f"{value.name}({', '.join(map(written, value.arguments))})"


def errno_name(number: int) -> str:
    """EPIPE for 32."""
    return errno.errorcode.get(number, str(number))
