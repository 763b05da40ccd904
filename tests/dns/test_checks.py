"""What a loaded zone is judged by: warnings (errors are in test_zonefile.py)."""

from __future__ import annotations

import pytest

from appliance.dns import Zone, ZoneError
from tests.dns.util import SOA, zone

HEAD_LINES = SOA.count("\n") + 2


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("a MX 10 b\nb CNAME ns1\n", 1, "names b.example.test., which is an alias"),
        ("b CNAME ns1\na SRV 1 1 1 b\n", 2, "which is an alias"),
        ("a NS b\nb CNAME ns1\n", 1, "which is an alias"),
        ("a MX 10 nothere\n", 1, "which is not in the zone"),
        ("a NS ns.a\n", 1, "missing glue, RFC 9471"),
        ("a NS b\nb TXT x\n", 1, "has no address"),
        ("a NS ns1\na MX 10 ns1\n", 2, "MX of a.example.test. is hidden: the name is delegated"),
        ("a NS ns1\nx.a TXT x\n", 2, "TXT of x.a.example.test. is hidden"),
        ("*.a NS ns1\n", 1, "servers differ"),
        ("*.a DNAME b\n", 1, "servers differ"),
        ("*.a A 192.0.2.1\nx.a TXT x\n", 2, "RFC 4592 §2.2.1"),
        ("*.a A 192.0.2.1\ny.x.a A 192.0.2.2\n", 1, "because names below it do"),
        ("*.a CNAME ns1\nx.a TXT x\n", 2, "RFC 4592 §2.2.1"),
        (
            "a NS ns1\nb DS 1 8 1 0123456789abcdef0123456789abcdef01234567\n",
            2,
            "without a delegation",
        ),
        ("www.example.test A 192.0.2.1\n", 1, "is a final dot missing?"),
        ("a MX 10 mail.example.test\nmail.example.test A 192.0.2.1\n", 1, "final dot"),
        ("a CNAME www.example.test\n", 1, "is a final dot missing?"),
        ("a 5 A 192.0.2.1\na 6 A 192.0.2.2\n", 2, "TTL 6 differs within the RRset; all get 5"),
        ("a CNAME b\nb CNAME b\n", 1, "a.example.test. leads round in a circle"),
        ("a CNAME b\n", 1, "leads to b.example.test., which does not exist"),
        ("*.a CNAME b.a\n", 1, "leads round"),
        ("x.*.a TXT x\n", 1, "x.*.a.example.test.: a * inside a name stands for itself"),
        ("*.*.a TXT x\n", 1, "inside a name"),
        ("a_b A 192.0.2.1\n", 1, "a_b.example.test. is no host name (RFC 1123 §2.1)"),
        ("-a AAAA 2001:db8::1\n", 1, "is no host name"),
        ("a MX 1 x_y.elsewhere.\n", 1, "x_y.elsewhere., which is no host name"),
        ("a MX 1 192.0.2.1.\n", 1, "192.0.2.1., an address where a name is wanted"),
        ("a SVCB 0 b.\na SVCB 1 c.\n", 1, "SVCB of a.example.test. mixes priority 0"),
        ('a TXT "v=spf1 -all"\na TXT x\na TXT "v=spf1"\n', 1, "has 2 SPF policies"),
    ],
)
def test_each_warning_is_told_with_its_line(text: str, line: int, complaint: str) -> None:
    problems = zone(text).problems
    assert {problem.severity for problem in problems} == {"warning"}
    assert len(problems) == 1 + ("mail" in text or "b CNAME b" in text)
    assert problems[0].line - HEAD_LINES == line
    assert complaint in problems[0].message


@pytest.mark.parametrize(
    "text",
    [
        "a NS ns.a\nns.a A 192.0.2.1\n",
        "a NS ns.elsewhere.example.\n",
        "a NS ns.b\nb NS ns.b\nns.b A 192.0.2.1\n",
        "a MX 0 .\n",
        "a SRV 0 0 0 .\n",
        "a MX 10 x.wild\n*.wild A 192.0.2.1\n",
        "a MX 10 host.sub\nsub NS ns1\n",
        "a NS ns1\na DS 1 8 1 0123456789abcdef0123456789abcdef01234567\n",
        "a CNAME ns1\na RRSIG CNAME 8 3 600 20300101000000 20200101000000 1 example.test. AAAA\n",
        "*.a A 192.0.2.1\nx.a A 192.0.2.2\n_tcp.a TXT x\n",
        "a DNAME b\na A 192.0.2.1\n",
        "a CNAME b\nb CNAME ns1\nc CNAME elsewhere.\nd CNAME x.sub\nsub NS ns1\n",
        "_a TXT x\n_b._tcp SRV 0 0 1 ns1\n*.a MX 1 ns1\na CNAME x.a\n",
        'a TXT "v=spf10"\na TXT "v=spf1 -all"\n',
        "a HTTPS 1 . alpn=h2\na HTTPS 2 ns1\n",
    ],
)
def test_what_is_well_is_not_complained_of(text: str) -> None:
    assert zone(text).problems == ()


def test_rfc1912_2_2_soa_times() -> None:
    """RFC 1912 §2.2: expire is more than refresh and retry."""
    text = "x.test. 1 SOA a. b. 1 100 50 {} 5\nx.test. 1 NS a.\n"
    assert Zone.from_text(text.format(151)).problems == ()
    assert [problem.line for problem in Zone.from_text(text.format(150)).problems] == [1]


def test_rfc1035_8_the_mailbox_has_no_at_sign() -> None:
    """RFC 1035 §8: the first dot stands for it."""
    text = "x.test. 1 SOA a. {}x.test. 1 9 5 99 5\nx.test. 1 NS a.\n"
    assert Zone.from_text(text.format("host.")).problems == ()
    (problem,) = Zone.from_text(text.format("host@")).problems
    assert "wants a dot" in problem.message


def test_a_set_that_goes_into_no_message_is_refused() -> None:
    """RFC 1035 §4.2.2, RFC 2181 §5: sets are answered whole, in 65,535 octets at most."""
    some = [f"b A 10.0.{n >> 8}.{n & 255}\n" for n in range(4100)]
    assert zone("".join(some[:4000])).problems == ()
    with pytest.raises(ZoneError) as caught:
        zone("".join(some))
    (problem,) = caught.value.problems
    assert problem.line == HEAD_LINES + 1
    assert "A of b.example.test. takes 65600 octets; a message has 65492" in problem.message
    # What counts is the size with compressed names.
    long = "".join(f"@ NS h{n:04}.{'x' * 60}.{'y' * 60}\n" for n in range(2000))
    assert zone(long + "".join(f"h{n:04}.{'x' * 60}.{'y' * 60} A 10.0.0.1\n" for n in range(2000)))
