"""Networks of others: a LAN through a bridge, IPv6 alone by radvd, a clash, two links at once.

All of them run at the same time, since most of what happens is waiting: leases and addresses are
probed for before they are used.
"""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench import lab
from bench.lab import Namespace, Server
from tests.interop.conftest import ENVIRONMENT, require, write_house
from tests.interop.test_lan import cable, keep_out

LAN = ipaddress.ip_network("2001:db8:7::/64")
ALONE = ipaddress.ip_network("2001:db8:6::/64")
RESOLVERS = ["2001:db8:6::53", "2001:db8:6::54"]
RADVD = """\
interface lan0 {
    AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 10; AdvLinkMTU 1400;
    prefix 2001:db8:6::/64 { AdvValidLifetime 600; AdvPreferredLifetime 300; };
    RDNSS 2001:db8:6::53 2001:db8:6::54 { AdvRDNSSLifetime 600; };
};
"""


@dataclass
class Appliance:
    """One that runs, with a folder of its own, and what it says and answers."""

    space: Namespace
    server: Server
    folder: Path

    def ready(self) -> None:
        self.server.wait(lambda: "Ctrl-C" in self.server.words(), 40.0)

    def urls(self) -> list[str]:
        self.ready()
        return re.findall(r"^  (http://\S+/)$", self.server.words(), re.MULTILINE)

    def ask(self, *command: str) -> list[dict[str, Any]]:
        """What `appliance COMMAND --json` answers: a Unix socket, so no namespace matters."""
        words = [sys.executable, "-m", "appliance", *command, "--json", "-c", "appliance.toml"]
        told = self.space.run("env", "-C", str(self.folder), f"PYTHONPATH={ROOT}", *words)
        return [json.loads(line) for line in told.splitlines()]


ROOT = ENVIRONMENT["PYTHONPATH"]


@dataclass
class Networks:
    """The scene: `box` has the bridge with both appliances on it, `router` lends and routes."""

    box: Namespace
    router: Namespace
    tap: Appliance
    card: Appliance
    alone: Appliance
    provider: Namespace
    radvd: Server
    clash: Appliance
    twice: Appliance


def fetch(space: Namespace, url: str, size: int = 100_000) -> None:
    told = space.run(
        *("curl", "-sS", "-g", "--max-time", "30", "-o", "/dev/null"),
        *("-w", "%{http_code} %{size_download}", f"{url}100k.bin"),
    )
    assert told == f"200 {size}"


def start(stack: ExitStack, folder: Path, space: Namespace, name: str, *words: str) -> Appliance:
    """Start an appliance with settings and a control socket of its own; nobody waits here."""
    mine = folder / name
    mine.mkdir()
    (mine / "appliance.toml").write_text((folder / "appliance.toml").read_text())
    command = [sys.executable, "-m", "appliance", "serve", "-v", "-c", "appliance.toml"]
    command += ["--site", str(folder / "site"), "--zones", str(folder / "zones"), *words]
    server = stack.enter_context(lab.serve(name, space.command(*command), mine, env=ENVIRONMENT))
    return Appliance(space, server, mine)


def bridged(stack: ExitStack) -> tuple[Namespace, Namespace]:
    """A box with a bridge: the kernel's own address, a tap, a card's cable, and a router's."""
    box = stack.enter_context(lab.namespace("box"))
    router = stack.enter_context(lab.namespace("gate"))
    here = ("ip", "-n", box.name)
    lab.run(*here, "link", "add", "br0", "type", "bridge")
    lab.run(*here, "link", "add", "up0", "type", "veth", "peer", "name", "lan0", "netns",
            router.name)  # fmt: skip
    lab.run(*here, "link", "add", "card0", "type", "veth", "peer", "name", "port0")
    lab.run(*here, "tuntap", "add", "dev", "om0", "mode", "tap", "vnet_hdr")
    keep_out(box)
    for port in ("up0", "port0", "om0"):
        lab.run(*here, "link", "set", port, "master", "br0")
    for device in ("up0", "port0", "om0", "card0", "br0"):
        lab.run(*here, "link", "set", device, "up")
    box.address("br0", "10.7.0.3/24")
    router.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1")
    router.address("lan0", "10.7.0.1/24")
    lab.run("ip", "-n", router.name, "address", "add", f"{LAN[1]}/64", "dev", "lan0", "nodad")
    return box, router


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Networks]:
    """Start everything, and then wait for all of it."""
    require("dnsmasq", "radvd", "curl", "ping", "sysctl")
    folder = tmp_path_factory.mktemp("networks")
    write_house(folder)
    (folder / "appliance.toml").write_text('[site]\ntitle = "Here"\n')
    with ExitStack() as stack:
        box, router = bridged(stack)
        dnsmasq = router.command(
            *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=lan0"),
            *("--dhcp-range=10.7.0.50,10.7.0.60,2m", f"--dhcp-leasefile={folder}/leases"),
            *("--dhcp-option=option:dns-server,10.7.0.1", "--dhcp-option=option:mtu,1480"),
            *("--enable-ra", f"--dhcp-range={LAN[0]},ra-only", "--user=root", "--no-ping"),
        )
        stack.enter_context(lab.serve("dnsmasq", dnsmasq, folder))
        tap = start(stack, folder, box, "tap", "--link", "tap:om0")
        card = start(stack, folder, box, "card", "--link", "packet:card0")

        house, provider = cable(stack, "6")
        lab.run("ip", "-n", provider.name, "address", "flush", "dev", "lan0", "scope", "global")
        lab.run(*("ip", "-n", provider.name, "address", "add", f"{ALONE[1]}/64"),
                *("dev", "lan0", "nodad"))  # fmt: skip
        (folder / "radvd.conf").write_text(RADVD)
        words = ["radvd", "-n", "-C", str(folder / "radvd.conf"), "-p", str(folder / "radvd.pid")]
        words += ["-m", "stderr"]
        radvd = stack.enter_context(lab.serve("radvd", provider.command(*words), folder))
        alone = start(stack, folder, house, "alone", "--link", "packet:card0")

        other, _ = cable(stack, "clash")
        clash = start(
            *(stack, folder, other, "clash", "--link", "packet:card0", "--address", "10.9.0.1/24")
        )
        both = stack.enter_context(lab.namespace("both"))
        both.tap("om1", "10.8.1.1/24")
        both.tap("om2", "10.8.2.1/24")
        twice = start(
            *(stack, folder, both, "twice", "--link", "tap:om1", "--address", "10.8.1.2/24"),
            *("--gateway", "10.8.1.1", "--link", "tap:om2", "--address", "10.8.2.2/24"),
        )
        everyone = (tap, card, alone, clash, twice)
        for one in everyone:
            one.ready()
        yield Networks(box, router, tap, card, alone, provider, radvd, clash, twice)
        for one in everyone:
            assert one.server.stop() == 0
            assert "Traceback" not in one.server.words()


@pytest.mark.parametrize("which", ["tap", "card"])
def test_bridged_on_a_lan(networks: Networks, which: str) -> None:
    """RFC 2131, RFC 4862: a lease and an address of the prefix; the router and the box reach both.

    The box is the machine whose bridge it is: a tap in it, or the end of a cable to it, is a
    neighbour like any other.
    """
    one: Appliance = getattr(networks, which)
    v4, v6 = sorted(one.urls(), key=lambda url: "[" in url)
    assert ipaddress.ip_address("10.7.0.50") <= ipaddress.ip_address(v4[7:-1])
    assert ipaddress.ip_address(v6[8:-2]) in LAN
    for url in (v4, v6):
        fetch(networks.router, url)
    fetch(networks.box, v4)


def test_what_was_lent_is_used(networks: Networks) -> None:
    """RFC 2132 §3.5, §3.8, §5.1: the router, the resolver and the MTU of the lease."""
    rows = networks.tap.ask("route")
    routes = {(row["to"], row["via"]) for row in rows if row["kind"] == "route"}
    assert ("0.0.0.0/0", "10.7.0.1") in routes
    assert "10.7.0.1" in {row["address"] for row in rows if row["kind"] == "resolver"}
    # Whole datagrams of the MTU that was lent go out, longer ones in fragments.
    (v4, *_) = [url for url in networks.tap.urls() if "[" not in url]
    host = v4[7:-1]
    seen = networks.router.run("ping", "-c", "1", "-W", "5", "-s", "1472", "-M", "dont", host)
    assert " 0% packet loss" in seen


def test_two_appliances_on_one_lan(networks: Networks) -> None:
    """One pings the other over both families, through the bridge."""
    for url in networks.card.urls():
        host = url[7:-1].strip("[]")
        *_, last = networks.tap.ask("ping", host, "--count", "2", "--interval", "0.05")
        assert last == {"sent": 2, "received": 2}


def test_ipv6_alone(networks: Networks) -> None:
    """RFC 4861 §6.3.4, RFC 8106: a prefix, a router, an MTU and resolvers by radvd; no IPv4."""
    (url,) = networks.alone.urls()
    assert ipaddress.ip_address(url[8:-2]) in ALONE
    fetch(networks.provider, url)
    rows = networks.alone.ask("route")
    assert [row["address"] for row in rows if row["kind"] == "resolver"] == RESOLVERS
    router = [row["via"] for row in rows if row["kind"] == "route" and row["to"] == "::/0"]
    assert len(router) == 1
    assert ipaddress.ip_address(router[0]).is_link_local


def test_a_router_that_leaves(networks: Networks) -> None:
    """RFC 4861 §6.3.4: radvd says goodbye with a lifetime of nought, and the default route goes."""
    assert networks.alone.ask("route")
    networks.radvd.stop()

    def gone() -> bool:
        return not any(row.get("to") == "::/0" for row in networks.alone.ask("route"))

    networks.alone.server.wait(gone, 5.0)
    # What is on the link is reached as before.
    (url,) = networks.alone.urls()
    fetch(networks.provider, url)


def test_an_address_that_the_router_has(networks: Networks) -> None:
    """RFC 5227 §2.1.1: the operator hears whose it is, and it is not used."""
    said = networks.clash.server.words()
    assert re.search(r"10\.9\.0\.1 is in use by ([0-9a-f]{2}:){5}[0-9a-f]{2}: it is not used", said)
    assert "http://10.9.0.1/" not in said


def test_two_networks_at_once(networks: Networks) -> None:
    """Two taps, two networks: both URLs stand in the banner and serve."""
    assert networks.twice.urls() == ["http://10.8.1.2/", "http://10.8.2.2/"]
    for url in networks.twice.urls():
        fetch(networks.twice.space, url)
