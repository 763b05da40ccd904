"""The zones that this repository serves: sound, complete, and in agreement with each other."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import dns.rdatatype
import dns.reversename
import pytest

from appliance.dns import Catalog, LoadedZones, load_zones, names
from tests.dns.util import ask

ZONES = Path(__file__).parents[2] / "zones"


@pytest.fixture(scope="module")
def loaded() -> LoadedZones:
    return load_zones(ZONES)


@pytest.fixture(scope="module")
def catalog(loaded: LoadedZones) -> Catalog:
    return Catalog(loaded.zones)


def test_there_is_nothing_to_complain_of(loaded: LoadedZones) -> None:
    assert loaded.problems == ()
    assert sorted(zone.name for zone in loaded.zones) == [
        "0.0.10.in-addr.arpa.",
        "1.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
        "openmirage.org.",
    ]


def test_every_kind_of_record_of_a_real_zone_is_there(loaded: LoadedZones) -> None:
    kinds = {
        dns.rdatatype.to_text(rrset.rtype)
        for zone in loaded.zones
        if zone.name == "openmirage.org."
        for _, rrset in zone
    }
    wanted = "SOA NS A AAAA MX TXT CAA HTTPS CNAME TLSA SRV DNAME SSHFP RP"
    assert set(wanted.split()) <= kinds


def test_the_dkim_key_needs_more_than_one_string(catalog: Catalog) -> None:
    """RFC 6376 §3.6.2.2; RFC 1035 §3.3: 255 octets a string."""
    rrset = ask(catalog, "key1._domainkey.openmirage.org.", "TXT").message.answer[0]
    assert sum(len(string) for string in rrset[0].strings) > 255


@pytest.mark.parametrize(
    ("name", "rdtype", "kinds"),
    [
        ("openmirage.org.", "HTTPS", (["HTTPS"], [], ["A", "AAAA"])),
        ("openmirage.org.", "MX", (["MX"], [], ["A", "AAAA"])),
        ("decks.openmirage.org.", "A", (["CNAME", "A"], [], [])),
        ("_443._tcp.openmirage.org.", "TLSA", (["TLSA"], [], [])),
        ("_dmarc.openmirage.org.", "TXT", (["TXT"], [], [])),
        ("_acme-challenge.openmirage.org.", "TXT", (["TXT"], [], [])),
        ("host.lab.openmirage.org.", "A", ([], ["NS"], ["A", "AAAA", "A", "AAAA"])),
        ("anything.demo.openmirage.org.", "A", (["A"], [], [])),
        ("tcp.manual.openmirage.org.", "A", (["DNAME", "CNAME"], ["SOA"], [])),
        ("2.0.0.10.in-addr.arpa.", "PTR", (["PTR"], [], [])),
    ],
)
def test_what_the_pages_say_can_be_asked(
    catalog: Catalog, name: str, rdtype: str, kinds: tuple[list[str], ...]
) -> None:
    assert ask(catalog, name, rdtype).kinds() == kinds


def test_reverse_names_lead_back(loaded: LoadedZones, catalog: Catalog) -> None:
    """RFC 1912 §2.1: PTR records and addresses agree."""
    seen = 0
    for zone in loaded.zones:
        for node, rrset in zone:
            if rrset.rtype != dns.rdatatype.PTR:
                continue
            reverse = dns.name.from_text(names.to_text(node.name))
            address = ipaddress.ip_address(dns.reversename.to_address(reverse))
            host = names.to_text(rrset.rdatas[0])
            if host == "ns.lab.openmirage.org.":
                continue  # the delegated zone's
            reply = ask(catalog, host, "A" if address.version == 4 else "AAAA")
            assert any(line.endswith(f" {address}") for line in reply.answer), host
            seen += 1
    assert seen > 20
