"""On a network of others: the kernel as router and peer, dnsmasq, a card, fragments, path MTU.

A namespace is the router and the client; the appliance's card is a veth whose other end is there.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import lab
from bench.lab import Namespace, Server
from tests.interop.conftest import ENVIRONMENT, require, write_house

PREFIX = "2001:db8:9:"


class Lan:
    """A router, the appliance on a card behind it, and where it was found."""

    def __init__(self, router: Namespace, server: Server, urls: list[str]) -> None:
        self.router = router
        self.server = server
        self.v4 = next(u for u in urls if "[" not in u)
        self.v6 = next(u for u in urls if "[" in u)

    @property
    def hosts(self) -> tuple[str, str]:
        return self.v4[7:-1], self.v6[8:-2]

    def fetch(self, url: str, *more: str) -> str:
        command = ["curl", "-sS", "-g", "--max-time", "30", "-o", "/dev/null", "-w"]
        form = "%{http_code} %{size_download}"
        return self.router.run(*command, form, *more, url)


def keep_out(house: Namespace) -> None:
    """Keep the kernel from speaking on the card, and from forwarding what arrives there."""
    for setting in ("net.ipv6.conf.card0.disable_ipv6=1", "net.ipv4.conf.card0.forwarding=0"):
        house.run("sysctl", "-qw", setting)


def cable(stack: ExitStack, suffix: str = "") -> tuple[Namespace, Namespace]:
    """A host's namespace and a router's, joined; the kernel has no address on the host's side."""
    house = stack.enter_context(lab.namespace("house" + suffix))
    router = stack.enter_context(lab.namespace("router" + suffix))
    lab.run(
        *("ip", "-n", house.name, "link", "add", "card0", "type", "veth"),
        *("peer", "name", "lan0", "netns", router.name),
    )
    keep_out(house)
    lab.run("ip", "-n", house.name, "link", "set", "card0", "up")
    router.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1")
    router.address("lan0", "10.9.0.1/24")
    lab.run(*("ip", "-n", router.name, "address", "add", f"{PREFIX}:1/64", "dev", "lan0", "nodad"))
    return house, router


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """The appliance on `packet:card0`, which finds its addresses by itself."""
    require("dnsmasq", "curl", "dig", "ping", "sysctl")
    folder = tmp_path_factory.mktemp("lan")
    arguments, _ = write_house(folder)
    with ExitStack() as stack:
        house, router = cable(stack)
        dnsmasq = router.command(
            *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=lan0"),
            *("--dhcp-range=10.9.0.50,10.9.0.60,2m", f"--dhcp-leasefile={folder}/leases"),
            *("--enable-ra", f"--dhcp-range={PREFIX}:,ra-only", "--user=root"),
        )
        stack.enter_context(lab.serve("dnsmasq", dnsmasq, folder))
        command = [sys.executable, "-m", "appliance", "serve", "-v", "--link", "packet:card0"]
        server = stack.enter_context(
            lab.serve("appliance", house.command(*command, *arguments), folder, env=ENVIRONMENT)
        )
        server.wait(lambda: "Ctrl-C" in server.words(), 30.0)
        urls = re.findall(r"^  (http://\S+/)$", server.words(), re.MULTILINE)
        assert len(urls) == 2, server.words()
        yield Lan(router, server, urls)
        assert server.stop() == 0
        said = server.words()
        assert "Traceback" not in said
        for counter in ("tcp_path_mtu_reduced", "ip_reassembled", "ip_fragments_out"):
            assert f"'{counter}'" in said  # what the tests were about did happen


def test_both_urls_are_printed_and_work(lan: Lan) -> None:
    """RFC 2131, RFC 4862: a lease from the range, an address of the prefix; both serve."""
    v4, v6 = lan.hosts
    assert ipaddress.ip_address("10.9.0.50") <= ipaddress.ip_address(v4)
    assert ipaddress.ip_address(v6) in ipaddress.ip_network(f"{PREFIX}:/64")
    for url in (lan.v4, lan.v6):
        assert lan.fetch(f"{url}100k.bin") == "200 100000"


def test_dns_over_both(lan: Lan) -> None:
    for host in lan.hosts:
        for transport in ("+notcp", "+tcp"):
            said = lan.router.run(
                "dig", f"@{host}", transport, "+short", "any.wild.bench.test", "A"
            )
            assert said.strip() == "192.0.2.4"


@pytest.mark.parametrize("size", ["56", "1452", "4000", "20000"])
def test_ping_in_pieces(lan: Lan, size: str) -> None:
    """RFC 792, RFC 4443 §4; RFC 791 §3.2, RFC 8200 §4.5: echo, whole and in fragments."""
    for host in lan.hosts:
        told = lan.router.run("ping", "-c", "3", "-i", "0.01", "-W", "5", "-s", size, host)
        assert " 0% packet loss" in told


def test_link_local_and_neighbours(lan: Lan) -> None:
    """RFC 4861 §7.2.4: the kernel resolves us, and believes in us."""
    lan.router.run("ping", "-c", "1", "-W", "5", lan.hosts[1])
    state = lan.router.run("ip", "-6", "neigh", "show", "dev", "lan0")
    assert re.search(rf"{re.escape(lan.hosts[1])} .*(REACHABLE|DELAY|STALE)", state)
    told = lan.router.run("ping", "-c", "3", "-i", "0.2", "-W", "2", "ff02::1%lan0")
    assert "bytes from fe80::" in told


def test_nobody_listens(lan: Lan) -> None:
    """RFC 9293 §3.5.2, RFC 4443 §3.1: a reset; port unreachable."""
    script = (
        "import socket, sys\n"
        "a = sys.argv[1]; f = socket.AF_INET6 if ':' in a else socket.AF_INET\n"
        "s = socket.socket(f, socket.SOCK_STREAM)\n"
        "try: s.connect((a, 81)); print('open')\n"
        "except ConnectionRefusedError: print('refused')\n"
        "s = socket.socket(f, socket.SOCK_DGRAM); s.settimeout(3); s.connect((a, 81))\n"
        "s.send(b'x')\n"
        "try: s.recv(9); print('?')\n"
        "except ConnectionRefusedError: print('refused')\n"
    )
    for host in lan.hosts:
        assert lan.router.run(sys.executable, "-c", script, host).split() == ["refused"] * 2


def test_path_mtu_shrinks_during_a_download(tmp_path: Path, lan: Lan) -> None:
    """RFC 8201, RFC 1191: 1500 to 1280 on a link behind the router, in mid-download."""
    with lab.namespace("far") as far:
        lab.run(
            *("ip", "-n", lan.router.name, "link", "add", "far0", "type", "veth"),
            *("peer", "name", "near0", "netns", far.name),
        )
        lan.router.address("far0", "10.10.0.1/24")
        far.address("near0", "10.10.0.2/24")
        for space, address, device in (
            (lan.router, "2001:db8:10::1/64", "far0"),
            (far, "2001:db8:10::2/64", "near0"),
        ):
            lab.run("ip", "-n", space.name, "address", "add", address, "dev", device, "nodad")
        far.run("ip", "route", "add", "default", "via", "10.10.0.1")
        far.run("ip", "-6", "route", "add", "default", "via", "2001:db8:10::1")
        # As a narrow link further on would: what a router forwards is cut to size or refused.
        for url in (lan.v4, lan.v6):
            for space, device in ((lan.router, "far0"), (far, "near0")):
                lab.run("ip", "-n", space.name, "link", "set", device, "mtu", "1500")
            command = ["curl", "-sS", "-g", "--max-time", "60", "--limit-rate", "20M"]
            command += ["-o", "/dev/null", "-w", "%{http_code} %{size_download}", f"{url}100m.bin"]
            with subprocess.Popen(
                far.command(*command), stdout=subprocess.PIPE, text=True
            ) as process:
                time.sleep(1.0)  # the kernel's clock, not ours
                lab.run("ip", "-n", lan.router.name, "link", "set", "far0", "mtu", "1280")
                told, _ = process.communicate(timeout=60)
            assert told == "200 100000000"


def test_a_card_with_the_kernels_address_is_refused(tmp_path: Path) -> None:
    require()
    arguments, _ = write_house(tmp_path)
    with ExitStack() as stack:
        house, _ = cable(stack, "2")
        house.address("card0", "10.9.0.7/24")
        command = [sys.executable, "-m", "appliance", "serve", "--link", "packet:card0"]
        done = subprocess.run(
            house.command(*command, *arguments), capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 1
        assert "the kernel has 10.9.0.7 on card0" in done.stderr


def test_a_card_whose_packets_the_kernel_forwards_is_refused(tmp_path: Path) -> None:
    """The kernel of a router would send on what is ours, or tell that it cannot."""
    require()
    arguments, _ = write_house(tmp_path)
    with ExitStack() as stack:
        house, _ = cable(stack, "3")
        house.run("sysctl", "-qw", "net.ipv4.conf.card0.forwarding=1")
        command = [sys.executable, "-m", "appliance", "serve", "--link", "packet:card0"]
        done = subprocess.run(
            house.command(*command, *arguments), capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 1
        assert "sysctl -w net.ipv4.conf.card0.forwarding=0" in done.stderr
