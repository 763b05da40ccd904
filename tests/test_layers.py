"""Who may import whom: every module's syntax tree is held against the table of docs/architecture.

Downward only. The rooms, from the ground up:

    1 seq checksum errors counters        the standard library (and siphash, for all rooms)
    2 wire                                1
    3 TCP's leaves                        1, and the smaller leaves that one is made of
    4 tcp udp icmp ip neighbor and kin    1 to 3
    5 stack                               4
    6 vif                                 1, wire, the operating system
    7 transport                           stack, vif, asyncio
    8 dns http tls                        themselves, files; asyncio in their protocol modules only
    9 app gateway cli ...                 everything

An import under TYPE_CHECKING counts like any other: a type is knowledge too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "appliance"

GROUND = {"net.seq", "net.checksum", "net.errors", "net.counters", "siphash"}
# Functions of octets that everybody may use, whatever the room; of files, from 8 on.
SHARED = {"siphash", "files"}
LEAVES = {
    "net.congestion",
    "net.cubic",
    "net.ecn",
    "net.fast_open",
    "net.flight",
    "net.hystart",
    "net.isn",
    "net.newreno",
    "net.pacing",
    "net.plpmtud",
    "net.prr",
    "net.rack",
    "net.reassembly",
    "net.rtt",
    "net.sack",
    "net.sendq",
    "net.syn_budget",
    "net.tcp_state",
}
# A leaf that is made of, or written against, smaller ones; every other leaf knows the ground only.
LEAVES_OF = {
    "net.congestion": {"net.hystart", "net.rtt"},
    "net.cubic": {"net.congestion", "net.rtt"},
    "net.newreno": {"net.congestion", "net.rtt"},
    "net.rack": {"net.flight"},
}
# The room of tcp, udp, icmp, ip and neighbor is whatever else lies in net/ by itself.
STACK = {"net.stack"}
TRANSPORT = {"net", "net.transport"}  # and net.transport_*; net/__init__ shows the public names
# And every module that lies directly in appliance/.
TOP = {"fuzz", "image", "parts", "commands", "settings", "trace"}

# Besides net.transport*, app and gateway: where asyncio's protocols are implemented.
ASYNCIO = {
    "dns.conversation", "dns.forward", "dns.protocol", "dns.service", "http.http1", "http.http2",
    "http.server", "tls.protocol", "tls.stream",
}  # fmt: skip
ASYNCIO_TOP = {"app", "dial", "resolver", "gateway", "worker", "fuzz", "image", "parts"}

# A sans-I/O module gets time, randomness and frames from its caller.
OUTSIDE_WORLD = {
    "datetime", "fcntl", "multiprocessing", "os", "secrets", "select", "selectors", "signal",
    "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uvloop",
}  # fmt: skip
# The one library that net/ is allowed, and where.
THIRD_PARTY = {"net.vif.tap": {"pytun"}}


def name_of(path: Path, package: Path = PACKAGE) -> str:
    """`net.wire.tcp` for appliance/net/wire/tcp.py; `net` for its __init__."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(tree: ast.AST, name: str, is_package: bool, known: set[str]) -> Iterator[str]:
    """Everything imported, as full names; of ours, without `appliance.`, marked with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield resolved(alias.name, known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                # One dot is the package that the module lies in.
                parts = f"appliance.{name}".strip(".").split(".")
                keep = len(parts) - node.level + (1 if is_package else 0)
                base = ".".join([*parts[:keep], *filter(None, [base])])
            for alias in node.names:
                deeper = resolved(f"{base}.{alias.name}", known)
                yield deeper if deeper[:1] == "." and deeper[1:] in known else resolved(base, known)


def resolved(full: str, known: set[str]) -> str:
    if full != "appliance" and not full.startswith("appliance."):
        return full
    inner = full.removeprefix("appliance").lstrip(".")
    while inner and inner not in known and "." in inner:
        inner = inner.rpartition(".")[0]
    return "." + inner


def room(name: str) -> int:
    """The number of the room that a module is in."""
    if name in GROUND:
        return 1
    if name == "net.wire" or name.startswith("net.wire."):
        return 2
    if name in LEAVES:
        return 3
    if name in STACK:
        return 5
    if name == "net.vif" or name.startswith("net.vif."):
        return 6
    if name in TRANSPORT or name.startswith("net.transport_"):
        return 7
    if name.startswith("net."):
        return 4
    if name.split(".")[0] in ("dns", "http", "tls"):
        return 8
    if "." not in name or name.split(".")[0] in TOP:
        return 9
    return 0


ALLOWED = {
    1: {1},
    2: {1, 2},
    3: {1},
    4: {1, 2, 3, 4},
    5: {1, 2, 3, 4},
    6: {1, 2, 6},
    7: {1, 2, 3, 4, 5, 6, 7},
    8: set(),
    9: {1, 2, 3, 4, 5, 6, 7, 8, 9},
}


def violations(name: str, source: str, is_package: bool = False) -> list[str]:
    """Every import of module `name` that the table does not allow, in words."""
    here = room(name)
    if here == 0:
        return [f"{name} is in no room; give it one in tests/test_layers.py"]
    known = set(MODULES) | {name}
    tree = ast.parse(source)
    found: list[str] = []
    for target in imports_of(tree, name, is_package, known):
        if target.startswith("."):
            found += ours(name, here, target[1:])
        else:
            found += theirs(name, here, target.split(".")[0])
    if here < 6:
        found += randomness(name, tree)
    return found


def ours(name: str, here: int, target: str) -> list[str]:
    there = room(target)
    allowed = there in ALLOWED[here]
    if here == 3:
        allowed = allowed or target in LEAVES_OF.get(name, set())
    if here in (4, 5):
        # What an interface looks like is a protocol class without any interface behind it.
        allowed = allowed or target == "net.vif.base"
    if name in SHARED:
        allowed = False
    if here == 8:
        allowed = target.split(".")[0] == name.split(".")[0] or target in SHARED
    return [] if allowed else [f"{name} (room {here}) imports {target} (room {there})"]


def theirs(name: str, here: int, top: str) -> list[str]:
    if top == "asyncio":
        allowed = here == 7 or name in ASYNCIO or name.split(".")[0] in ASYNCIO_TOP
        return [] if allowed else [f"{name} imports asyncio"]
    if here < 6 and top in OUTSIDE_WORLD:
        return [f"{name} imports {top}: time, randomness and I/O come from the caller"]
    known = sys.stdlib_module_names | THIRD_PARTY.get(name, set())
    if here < 8 and top not in known:
        return [f"{name} imports {top}, which is not in the standard library"]
    return []


def randomness(name: str, tree: ast.AST) -> list[str]:
    """Below the VIFs `random` is imported for the type of the generator handed in, no more."""
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "random"
    }
    called = [
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in aliases
    ]
    return [f"{name} calls random.{function}(): take a generator instead" for function in called]


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downward(name: str) -> None:
    path = MODULES[name]
    assert violations(name, path.read_text(), path.name == "__init__.py") == []


def test_the_rooms_are_there() -> None:
    """A table that matches nothing would allow everything."""
    rooms = {room(name) for name in MODULES}
    assert rooms >= {1, 2, 3, 4, 5, 6, 7, 8, 9}
    assert {"net.seq", "net.tcp_state", "net.stack", "net.transport"} <= set(MODULES)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("net.checksum", "from appliance.net import seq", 0),
        ("net.checksum", "from appliance.net.wire import tcp", 1),
        ("net.wire.tcp", "import appliance.net.checksum\nfrom . import udp", 0),
        ("net.wire.tcp", "from appliance.net.tcp import Connection", 1),
        ("net.wire.tcp", "from ..stack import Host", 1),
        ("net.sendq", "from appliance.net.seq import MASK\nfrom bisect import bisect", 0),
        ("net.sendq", "from appliance.net.wire import tcp", 1),
        ("net.newreno", "from appliance.net.congestion import CongestionControl", 0),
        ("net.newreno", "from appliance.net.sendq import SendQueue", 1),
        ("net.rtt", "import time", 1),
        ("net.isn", "import random\ndef f(r: random.Random) -> None: ...", 0),
        ("net.isn", "import random as r\nx = r.randbytes(16)", 1),
        ("net.isn", "import random\ng = random.Random(1)", 1),
        ("net.tcp", "from appliance.net import stack", 1),
        ("net.tcp", "def f():\n    import asyncio", 1),
        ("net.neighbor", "from appliance.net.vif.base import Vif", 0),
        ("net.neighbor", "from appliance.net.vif.tap import open_tap", 1),
        ("net.stack", "from appliance.net.tcp import Connection", 0),
        ("net.stack", "from appliance.net.transport import Stack", 1),
        ("net.stack", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import asyncio", 1),
        ("net.vif.tap", "import pytun, os", 0),
        ("net.vif.pair", "import pytun", 1),
        ("net.vif.pair", "from appliance.net.stack import Host", 1),
        ("net.transport", "import asyncio\nfrom appliance.net.stack import Host", 0),
        ("net.transport", "from appliance.dns import Catalog", 1),
        ("dns.zone", "import asyncio", 1),
        ("dns.protocol", "import asyncio\nfrom appliance.dns.answer import Catalog", 0),
        ("dns.answer", "from appliance.net.errors import WireError", 1),
        ("http.http1", "import asyncio, h11", 0),
        ("http.semantics", "from appliance.dns import names", 1),
        ("dns.cookies", "from appliance.siphash import siphash24", 0),
        ("siphash", "from appliance.net.seq import MASK", 1),
        ("dns.journal", "from appliance import files", 0),
        ("tls.store", "from appliance.files import write_whole", 0),
        ("net.stack", "from appliance.files import write_whole", 1),
        ("files", "import fcntl, os", 0),
        ("files", "from appliance.siphash import siphash24", 1),
        ("siphash", "from appliance.net.tcp import Connection", 1),
        (
            "app",
            "import asyncio\nfrom appliance.net import Stack\nfrom appliance.dns import Zone",
            0,
        ),
        ("config", "import asyncio", 1),
        ("somewhere.new", "", 1),
    ],
)
def test_the_test_notices(name: str, source: str, expected: int) -> None:
    assert len(violations(name, source)) == expected
