"""What is answered, by the RFCs' own sections; from data/corner.zone unless a test says more."""

from __future__ import annotations

import pytest

from appliance.dns import Catalog, Zone
from appliance.dns.consts import MAX_CHAIN
from tests.dns.util import Reply, corner, question, zone
from tests.dns.util import ask as ask_catalog

CORNER = corner()
NEGATIVE = "corner.test. SOA ns1.corner.test. hostmaster.corner.test. 1 7200 1800 1209600 300"


def ask(name: str, rdtype: str = "A") -> Reply:
    return ask_catalog(CORNER, f"{name}.corner.test." if name else "corner.test.", rdtype)


def is_nodata(reply: Reply) -> bool:
    return (
        reply.rcode == "NOERROR"
        and reply.flags == {"QR", "AA"}
        and not reply.answer
        and reply.authority == [NEGATIVE]
        and not reply.additional
    )


def is_nxdomain(reply: Reply) -> bool:
    return (
        reply.rcode == "NXDOMAIN"
        and reply.flags == {"QR", "AA"}
        and not reply.answer
        and reply.authority == [NEGATIVE]
        and not reply.additional
    )


def test_rfc1034_4_3_2_exact_match() -> None:
    """RFC 1034 §4.3.2 step 3a, §6.2.1."""
    reply = ask("ns1")
    assert reply.rcode == "NOERROR"
    assert reply.flags == {"QR", "AA"}
    assert reply.answer == ["ns1.corner.test. A 192.0.2.53"]
    assert reply.authority == reply.additional == []


def test_rfc2308_2_2_nodata_has_the_soa_with_the_lesser_ttl() -> None:
    """RFC 2308 §2.2, §3 and §5: the SOA's TTL in it is min(TTL, MINIMUM)."""
    reply = ask("ns1", "MX")
    assert is_nodata(reply)
    assert reply.message.authority[0].ttl == 300
    high = Catalog([Zone.from_text("x. 60 SOA a. b. 1 2 3 9 500\nx. 60 NS a.\n")])
    assert ask_catalog(high, "x.", "A").message.authority[0].ttl == 60


def test_rfc8020_2_nothing_below_what_does_not_exist() -> None:
    """RFC 8020 §2 and RFC 2308 §2.1: NXDOMAIN."""
    catalog = Catalog([zone()])
    for name in ("no.example.test.", "a.b.no.example.test.", "x.ns1.example.test."):
        reply = ask_catalog(catalog, name)
        assert reply.rcode == "NXDOMAIN"
        assert reply.kinds() == ([], ["SOA"], [])


def test_rfc4592_2_2_2_empty_non_terminals_exist() -> None:
    """RFC 4592 §2.2.2: a name without records above a name with some is NODATA."""
    catalog = Catalog([zone("a.b.c A 192.0.2.1")])
    for name in ("b.c.example.test.", "c.example.test."):
        assert ask_catalog(catalog, name).rcode == "NOERROR"
        assert ask_catalog(catalog, name).kinds() == ([], ["SOA"], [])
    assert ask_catalog(catalog, "x.b.c.example.test.").rcode == "NXDOMAIN"


@pytest.mark.parametrize(
    ("name", "rdtype", "chain"),
    [
        ("alias", "A", ["alias CNAME mail", "mail A 192.0.2.25"]),
        ("alias2", "A", ["alias CNAME mail", "alias2 CNAME alias", "mail A 192.0.2.25"]),
        ("alias", "CNAME", ["alias CNAME mail"]),
        ("alias", "ANY", ["alias CNAME mail"]),
        ("loop1", "A", ["loop1 CNAME loop2", "loop2 CNAME loop1"]),
        ("self", "A", ["self CNAME self"]),
    ],
)
def test_rfc1034_3_6_2_aliases(name: str, rdtype: str, chain: list[str]) -> None:
    """RFC 1034 §3.6.2: a CNAME is followed, but for queries that match it; loops end."""
    reply = ask(name, rdtype)
    assert reply.rcode == "NOERROR"
    assert reply.flags == {"QR", "AA"}
    got = [line.replace(".corner.test.", "").lower() for line in reply.answer]
    assert got == [line.lower() for line in chain]
    assert reply.authority == []


def test_an_alias_to_nodata_nxdomain_referral_and_elsewhere() -> None:
    """RFC 6604 §2.1 and §3: AA is about the first name, RCODE about the last."""
    reply = ask("alias", "MX")
    assert (reply.rcode, reply.kinds()) == ("NOERROR", (["CNAME"], ["SOA"], []))
    reply = ask("dangling", "A")
    # The wildcard at the top matches what the alias leads to, without this type.
    assert (reply.rcode, reply.kinds()) == ("NOERROR", (["CNAME"], ["SOA"], []))
    reply = ask("out")
    assert (reply.rcode, reply.kinds()) == ("NOERROR", (["CNAME"], [], []))
    reply = ask("tosub")
    assert "AA" in reply.flags
    assert reply.kinds()[:2] == (["CNAME"], ["NS"])
    catalog = Catalog([zone("a CNAME nothing")])
    reply = ask_catalog(catalog, "a.example.test.")
    assert (reply.rcode, reply.kinds()) == ("NXDOMAIN", (["CNAME"], ["SOA"], []))
    assert reply.flags == {"QR", "AA"}


@pytest.mark.parametrize("rdtype", ["RRSIG", "NSEC"])
def test_rfc4034_types_beside_cname_are_asked_of_the_alias(rdtype: str) -> None:
    """RFC 4034 §3, §4: these may stand at an alias, so the alias is not followed."""
    assert is_nodata(ask("alias", rdtype))


def test_rfc3755_nxt_is_a_type_like_any_other() -> None:
    """RFC 3755 §2: it stands at no alias any more, which is followed for it."""
    assert ask("alias", "NXT").kinds()[0] == ["CNAME"]


def test_chains_are_bounded() -> None:
    text = "".join(f"c{number} CNAME c{number + 1}\n" for number in range(40))
    catalog = Catalog([zone(text + "c40 A 192.0.2.1")])
    reply = ask_catalog(catalog, "c0.example.test.")
    assert reply.rcode == "NOERROR"
    assert reply.kinds() == (["CNAME"] * (MAX_CHAIN + 1), [], [])
    reply = ask_catalog(
        Catalog([zone(text + "c40 A 192.0.2.1")]), f"c{40 - MAX_CHAIN}.example.test."
    )
    assert reply.kinds()[0][-1] == "A"


def test_aliases_across_zones() -> None:
    other = zone("web A 192.0.2.7\nback CNAME there.example.test.", "other.test.")
    catalog = Catalog([zone("a CNAME web.other.test.\nthere A 192.0.2.8"), other])
    assert ask_catalog(catalog, "a.example.test.").answer == [
        "a.example.test. CNAME web.other.test.",
        "web.other.test. A 192.0.2.7",
    ]
    reply = ask_catalog(catalog, "a.example.test.", "MX")
    assert reply.authority[0].startswith("other.test. SOA")
    assert ask_catalog(catalog, "back.other.test.").kinds()[0] == ["CNAME", "A"]


@pytest.mark.parametrize("name", ["sub", "nothing.sub", "a.b.sub", "ns.sub", "host.sub"])
@pytest.mark.parametrize("rdtype", ["A", "NS", "SOA", "ANY", "TXT"])
def test_rfc1034_6_2_6_referrals(name: str, rdtype: str) -> None:
    """RFC 1034 §4.3.2 step 3b, §6.2.6; RFC 9471: NS of the cut, its glue, no AA."""
    reply = ask(name, rdtype)
    assert (reply.rcode, reply.flags) == ("NOERROR", {"QR"})
    assert reply.answer == []
    assert reply.authority == [
        f"sub.corner.test. NS {host}.corner.test." for host in ("ns.other", "ns.sub", "ns1")
    ]
    assert reply.additional == [
        "ns.other.corner.test. A 192.0.2.70",
        "ns.sub.corner.test. A 192.0.2.60",
        "ns.sub.corner.test. AAAA 2001:db8::60",
        "ns1.corner.test. A 192.0.2.53",
        "ns1.corner.test. AAAA 2001:db8::53",
    ]


def test_rfc4035_3_1_4_1_ds_stands_in_the_parent() -> None:
    """RFC 4035 §3.1.4.1: DS of a cut is answered with authority, its absence too."""
    reply = ask("sub", "DS")
    assert (reply.flags, reply.kinds()) == ({"QR", "AA"}, (["DS"], [], []))
    assert is_nodata(ask("other", "DS"))
    assert ask("x.sub", "DS").kinds()[:2] == ([], ["NS"])
    both = Catalog([zone("sub NS ns1"), zone(origin="sub.example.test.")])
    assert ask_catalog(both, "sub.example.test.", "DS").authority[0].startswith("example.test. SOA")
    child = Catalog([zone(origin="sub.example.test.")])
    assert ask_catalog(child, "sub.example.test.", "DS").authority[0].startswith("sub.example")


def test_the_deeper_zone_answers_although_the_parent_delegates() -> None:
    both = Catalog([zone("sub NS ns1\nhidden.sub A 192.0.2.1"), zone(origin="sub.example.test.")])
    reply = ask_catalog(both, "hidden.sub.example.test.")
    assert (reply.rcode, reply.flags) == ("NXDOMAIN", {"QR", "AA"})
    assert ask_catalog(both, "x.hidden.sub.example.test.").rcode == "NXDOMAIN"


def test_occluded_data_is_not_served() -> None:
    """RFC 2136 §7.18 and RFC 4592 §2.2.1: what lies below a cut is not the zone's any more."""
    reply = ask("deep.below.other")
    assert (reply.answer, reply.flags) == ([], {"QR"})
    assert reply.authority == ["other.corner.test. NS ns.other.corner.test."]
    assert ask("ns.other", "TXT").kinds()[:2] == ([], ["NS"])


@pytest.mark.parametrize(
    ("name", "rdtype", "answer"),
    [
        ("x.wild", "A", ["x.wild A 192.0.2.90"]),
        ("x.y.z.wild", "A", ["x.y.z.wild A 192.0.2.90"]),
        ("*.wild", "A", ["*.wild A 192.0.2.90"]),
        ("x.*.wild2", "A", None),
        ("sub.*.wild2", "A", ["sub.*.wild2 A 192.0.2.96"]),
        ("*.wild2", "A", ["*.wild2 A 192.0.2.97"]),
        ("x.wild", "AAAA", []),
        ("a.wild", "A", []),
        ("wild", "A", []),
        ("c.wild", "A", []),
        ("x.star.star", "A", ["x.star.star A 192.0.2.95"]),
        ("towild", "A", ["towild CNAME x.y.wild", "x.y.wild A 192.0.2.90"]),
        ("x.wc", "A", ["alias CNAME Mail", "Mail A 192.0.2.25", "x.wc CNAME alias"]),
        ("x.wc", "CNAME", ["x.wc CNAME alias"]),
        ("x.wcout", "A", ["x.wcout CNAME z.example.com."]),
        ("x.wcloop", "A", ["x.wcloop CNAME x.wcloop"]),
        ("y.wcloop", "A", ["x.wcloop CNAME x.wcloop", "y.wcloop CNAME x.wcloop"]),
    ],
)
def test_rfc4592_wildcards(name: str, rdtype: str, answer: list[str] | None) -> None:
    """RFC 4592 §2.2, §3.3, §4.1: synthesis at the closest encloser, and its exceptions."""
    reply = ask(name, rdtype)
    if answer is None:
        assert is_nxdomain(reply)
    elif answer:
        got = {line.replace(".corner.test.", "").lower() for line in reply.answer}
        assert got == {line.lower() for line in answer}
        assert reply.authority == []
    else:
        assert is_nodata(reply)


def test_rfc4592_2_2_1_the_closest_encloser_decides() -> None:
    """RFC 4592 §2.2.1: a wildcard further up does not help below a name that exists."""
    assert ask("any.thing", "TXT").answer == ['any.thing.corner.test. TXT "top wildcard"']
    assert is_nxdomain(ask("x.a.wild", "TXT"))
    assert is_nxdomain(ask("x.n.t", "TXT"))
    assert is_nodata(ask("n.t", "TXT"))


def test_rfc6672_2_4_dname_redirects_below_and_not_itself() -> None:
    """RFC 6672 §2.4, §3.1, §3.2: DNAME, then a CNAME with its TTL, then what that leads to."""
    reply = ask("x.dn")
    assert [str(rrset) for rrset in reply.message.answer] == [
        "dn.corner.test. 600 IN DNAME target.corner.test.",
        "x.dn.corner.test. 600 IN CNAME x.target.corner.test.",
        "x.target.corner.test. 600 IN A 192.0.2.81",
    ]
    assert reply.flags == {"QR", "AA"}
    assert ask("dn").answer == ["dn.corner.test. A 192.0.2.80"]
    assert ask("dn", "DNAME").answer == ["dn.corner.test. DNAME target.corner.test."]
    assert ask("x.dn", "CNAME").kinds() == (["DNAME", "CNAME"], [], [])
    assert ask("x.dn", "ANY").kinds()[0] == ["DNAME", "CNAME", "A"]
    assert ask("x.y.dn", "DNAME").kinds()[0][:2] == ["DNAME", "CNAME"]
    reply = ask("q.dnout")
    assert (reply.rcode, reply.kinds()) == ("NOERROR", (["DNAME", "CNAME"], [], []))
    assert ask("todname", "TXT").kinds()[0] == ["CNAME", "DNAME", "CNAME", "TXT"]


def test_rfc6672_2_2_a_name_too_long_is_yxdomain() -> None:
    """RFC 6672 §2.2: the DNAME alone, RCODE YXDOMAIN."""
    reply = ask(f"{'b' * 50}.long")
    assert (reply.rcode, reply.kinds()) == ("YXDOMAIN", (["DNAME"], [], []))
    assert ask("b.long", "TXT").rcode == "NOERROR"


def test_dname_loops_end() -> None:
    assert ask("x.dnloop").kinds()[0] == ["DNAME", "CNAME", "DNAME", "CNAME"]
    wire = CORNER.answer(question("x.dnself.corner.test."), transport="tcp")
    reply = Reply(wire)
    assert reply.rcode == "NOERROR"
    assert reply.kinds()[0] == ["DNAME"] + ["CNAME"] * (MAX_CHAIN + 1)


def test_dname_at_the_apex() -> None:
    """RFC 6672 §2.3: the apex keeps its own records, all else is redirected."""
    apex = Zone.from_text("x. 9 SOA a. b. 1 2 3 9 5\nx. 9 NS a.\nx. 9 DNAME y.\n")
    catalog = Catalog([apex])
    assert ask_catalog(catalog, "x.", "NS").answer == ["x. NS a."]
    assert ask_catalog(catalog, "any.x.").kinds()[0] == ["DNAME", "CNAME"]


def test_a_cut_wins_over_a_dname_below_and_at_it() -> None:
    catalog = Catalog([zone("d NS ns1\nd DNAME t\nx.d NS ns1\ny NS ns1\nz.y DNAME t")])
    for name in ("d", "a.d", "x.d"):
        assert ask_catalog(catalog, f"{name}.example.test.").authority == [
            "d.example.test. NS ns1.example.test."
        ]
    assert ask_catalog(catalog, "a.z.y.example.test.").authority == [
        "y.example.test. NS ns1.example.test."
    ]


def test_rfc8482_4_1_any_gets_one_rrset() -> None:
    """RFC 8482 §4.1."""
    assert len(ask("", "ANY").message.answer) == 1
    assert len(ask("x.wild", "ANY").message.answer) == 1
    assert is_nodata(ask("wild", "ANY"))
    assert ask("sub", "ANY").kinds()[:2] == ([], ["NS"])


def test_additional_data() -> None:
    """RFC 1035 §3.3.9 and §3.3.11, RFC 2782, RFC 9460 §4.1."""
    assert ask("", "MX").additional == [
        "mail.corner.test. A 192.0.2.25",
        "ns.sub.corner.test. A 192.0.2.60",
        "ns.sub.corner.test. AAAA 2001:db8::60",
        "w.wild.corner.test. A 192.0.2.90",
    ]
    assert ask("", "NS").kinds()[2] == ["A", "AAAA", "A", "AAAA"]
    assert [line.lower() for line in ask("srv", "SRV").additional] == [
        "mail.corner.test. a 192.0.2.25"
    ]
    assert [line.lower() for line in ask("svc", "SVCB").additional] == [
        "mail.corner.test. a 192.0.2.25"
    ]
    assert ask("svcalias", "SVCB").kinds()[2] == ["SVCB"]
    # RFC 9460 §2.5: "." in ServiceMode is the owner itself.
    assert ask("https", "HTTPS").additional == ["https.corner.test. A 192.0.2.98"]


def test_rfc3597_unknown_types_are_opaque() -> None:
    """RFC 3597 §3, §4."""
    assert ask("unknown", "TYPE65500").answer == ["unknown.corner.test. TYPE65500 \\# 4 01020304"]


def test_names_not_ours_are_refused() -> None:
    """RFC 8906 §3.1.1."""
    for name in ("example.com.", "test.", ".", "cornertest.", "xcorner.test."):
        reply = ask_catalog(CORNER, name)
        assert (reply.rcode, reply.flags) == ("REFUSED", {"QR"})
        assert reply.kinds() == ([], [], [])


def test_the_root_zone_can_be_served() -> None:
    root = Zone.from_text(". 60 SOA a. b. 1 2 3 9 5\n. 60 NS a.\na. 60 A 192.0.2.1\nx. 60 NS a.\n")
    catalog = Catalog([root])
    assert ask_catalog(catalog, ".", "NS").kinds() == (["NS"], [], ["A"])
    assert ask_catalog(catalog, "nope.").rcode == "NXDOMAIN"
    assert ask_catalog(catalog, "a.b.x.").kinds() == ([], ["NS"], ["A"])
    assert ask_catalog(catalog, ".", "DS").kinds() == ([], ["SOA"], [])


def test_two_zones_of_one_name_are_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match=r"two zones are called example\.test"):
        Catalog([zone(), zone()])


def test_with_minimal_off_the_apex_ns_go_along() -> None:
    """RFC 1034 §6.2.1, and servers since; but never at the price of TC."""
    catalog = Catalog(
        [zone('a A 192.0.2.1\nt TXT "' + "x" * 200 + '" "' + "x" * 200 + '"')], minimal=False
    )
    assert ask_catalog(catalog, "a.example.test.").kinds() == (["A"], ["NS"], ["A"])
    assert ask_catalog(catalog, "example.test.", "NS").kinds() == (["NS"], [], ["A"])
    assert ask_catalog(catalog, "a.example.test.", "ANY").kinds() == (["A"], [], [])
    reply = ask_catalog(catalog, "t.example.test.", "TXT")
    assert "TC" not in reply.flags


def test_explain_names_the_steps() -> None:
    """The path of decisions, with sections."""
    answer, steps = CORNER.explain("todname.corner.test", 16)
    assert [text for text, _ in steps] == [
        "RFC 1034 §4.3.2 step 2",
        "RFC 1034 §4.3.2 step 3",
        "RFC 1034 §3.6.2",
        "RFC 4592 §3.3.1",
        "RFC 6672 §3.2",
        "RFC 1034 §4.3.2 step 3",
        "RFC 1034 §4.3.2 step 3a",
    ]
    assert answer.rcode == 0
    assert CORNER.explain("example.com", 1)[1][0][0] == "RFC 8906 §3.1.1"
