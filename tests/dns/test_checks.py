"""What a loaded zone is judged by: warnings (errors are in test_zonefile.py)."""

from __future__ import annotations

import pytest

from appliance.dns import Zone
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
        ("@ RRSIG SOA 8 2 600 20300101000000 20200101000000 1 @ AAAA\n", 1, "signatures do not go"),
        ("a 5 A 192.0.2.1\na 6 A 192.0.2.2\n", 2, "TTL 6 differs within the RRset; all get 5"),
    ],
)
def test_each_warning_is_told_with_its_line(text: str, line: int, complaint: str) -> None:
    problems = zone(text).problems
    assert {problem.severity for problem in problems} == {"warning"}
    assert len(problems) == 1 + ("mail" in text)
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
    ],
)
def test_what_is_well_is_not_complained_of(text: str) -> None:
    assert zone(text).problems == ()


def test_rfc1912_2_2_soa_times() -> None:
    """RFC 1912 §2.2: expire is more than refresh and retry."""
    text = "x.test. 1 SOA a. b. 1 100 50 {} 5\nx.test. 1 NS a.\n"
    assert Zone.from_text(text.format(151)).problems == ()
    assert [problem.line for problem in Zone.from_text(text.format(150)).problems] == [1]
