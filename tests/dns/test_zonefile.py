"""Master files: what is understood, and every kind of fault with its file and line."""

from __future__ import annotations

from pathlib import Path

import dns.name
import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns import Zone, ZoneError, load_zones, names
from appliance.dns.zonefile import MAX_DEPTH, MAX_PROBLEMS
from tests.dns.util import SOA, zone

HEAD = f"$ORIGIN example.test.\n$TTL 600\n{SOA}"
HEAD_LINES = HEAD.count("\n")


def problems(text: str) -> list[tuple[int, str, str]]:
    try:
        found = Zone.from_text(text).problems
    except ZoneError as error:
        found = error.problems
    return [(problem.line, problem.severity, problem.message) for problem in found]


def fault(lines: str) -> tuple[int, str]:
    """The only error of a zone with these lines after the usual head; line counted behind it."""
    found = [found for found in problems(HEAD + lines) if found[1] == "error"]
    assert len(found) == 1, found
    return found[0][0] - HEAD_LINES, found[0][2]


def test_a_zone_as_people_write_them() -> None:
    """RFC 1035 §5.3's example, near enough."""
    loaded = Zone.from_text(
        """
@   IN  SOA     VENERA      Action.domains (
                                 20     ; SERIAL
                                 7200   ; REFRESH
                                 600    ; RETRY
                                 3600000; EXPIRE
                                 60)    ; MINIMUM
        NS      A.ISI.EDU.
        NS      VENERA
        MX      10      VENERA
        MX      20      VAXA
A       A       26.3.0.103
VENERA  A       10.1.0.52
        A       128.9.0.32
VAXA    A       10.2.0.27
        A       128.9.0.33
""",
        "ISI.EDU",
    )
    assert loaded.name == "ISI.EDU."
    assert loaded.serial == 20
    assert loaded.records == 10
    venera = loaded.nodes[names.from_text("venera.isi.edu.")]
    assert names.to_text(venera.owner) == "VENERA.ISI.EDU."
    assert [len(rrset.rdatas) for rrset in venera.rrsets.values()] == [2]


@pytest.mark.parametrize(
    "record",
    [
        "a 60 IN A 192.0.2.1",
        "a IN 60 A 192.0.2.1",
        "a 60 A 192.0.2.1",
        "a in 1m a 192.0.2.1",
        "A CLASS1 60 TYPE1 \\# 4 c0000201",
        "a.example.test. 0h1M A ( 192.0.2.1 ) ; comment",
    ],
)
def test_ttl_and_class_in_any_order_and_generic_forms(record: str) -> None:
    """RFC 1035 §5.1 and RFC 3597 §5."""
    rrset = zone(record).nodes[b"\x01a\x07example\x04test\0"].rrsets[1]
    assert (rrset.ttl, rrset.rdatas) == (60, (bytes((192, 0, 2, 1)),))


def test_every_type_is_what_dnspython_reads() -> None:
    text = (
        HEAD
        + """
a A 192.0.2.1
a AAAA 2001:db8::1
m MX 10 a
t TXT "quoted; text" plain "esc\\"aped" \\065\\;
s SRV 1 2 80 a
c CAA 0 issue "ca.example"
l TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
h HTTPS 1 . alpn="h2,h3" port=8443 ipv4hint=192.0.2.1
v SVCB 0 a
n NAPTR 100 50 "s" "z3950+I2L+I2C" "" _z3950._tcp
r RP hostmaster t
f SSHFP 4 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
d DS 12345 8 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
d NS ns.other.example.
u URI 10 1 "ftp://example.test/"
o LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m
i HINFO "CPU" "OS"
x TYPE65400 \\# 3 abcdef
p PTR a
dn DNAME a
al CNAME a
k DNSKEY 257 3 13 ( mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+
    KkxLbxIL fDLUT0rAK9iUzy1L53eKGQ== )
3 NSEC3PARAM 1 0 0 -
op OPENPGPKEY AQID
cs CSYNC 66 3 A NS AAAA
af AFSDB 1 a
eu EUI48 00-00-5e-00-53-2a
"""
    )
    loaded = Zone.from_text(text)
    expected = dns.zone.from_text(text, "example.test.", relativize=False)
    got = {
        (names.to_text(node.name), rrset.rtype, rrset.ttl, rdata)
        for node, rrset in loaded
        for rdata in rrset.rdatas
    }
    want = {
        (name.to_text().lower(), int(rdataset.rdtype), rdataset.ttl, rdata.to_wire())
        for name, rdataset in expected.iterate_rdatasets()
        for rdata in rdataset
    }
    assert got == want
    assert loaded.records == len(want)


@pytest.mark.parametrize(
    ("record", "rdata"),
    [
        ("MD x", b"\1x\7example\4test\0"),
        ("MF x.", b"\1x\0"),
        ("MB @", b"\7example\4test\0"),
        ("MG x.", b"\1x\0"),
        ("MR x.", b"\1x\0"),
        ("MINFO x. .", b"\1x\0\0"),
        ("MINFO \\# 4 01780000", b"\1x\0\0"),
    ],
)
def test_the_mailboxes_of_rfc1035(record: str, rdata: bytes) -> None:
    """RFC 1035 §3.3.3 to §3.3.8, which dnspython reads as unknown types only."""
    (rrset,) = zone(f"a {record}\n").nodes[b"\1a\7example\4test\0"].rrsets.values()
    assert rrset.rdatas == (rdata,)


@pytest.mark.parametrize("record", ["MINFO x.", "MB x. y.", "MB", "MINFO \\# 0", "NS \\# 2 0178"])
def test_what_is_no_mailbox_is_told(record: str) -> None:
    with pytest.raises(ZoneError, match=r"<text>:6: error: bad [MN]"):
        zone(f"a {record}\n")


# RFC 9460 Appendix D: texts and what they are on the wire.
SERVICES = [
    (r"0 foo.example.com.", "0000 FOO.COM"),
    (r"1 .", "0001 00"),
    (r"16 foo.example.com. port=53", "0010 FOO.COM 0003 0002 0035"),
    (
        r"1 foo.example.com. key667=hello",
        "0001 FOO.COM 029b 0005 68656c6c6f",
    ),
    (
        r'1 foo.example.com. key667="hello\210qoo"',
        "0001 FOO.COM 029b 0009 68656c6c6fd2716f6f",
    ),
    (
        r'1 foo.example.com. ipv6hint="2001:db8::1,2001:db8::53:1"',
        "0001 FOO.COM 0006 0020 20010db8000000000000000000000001 20010db8000000000000000000530001",
    ),
    (
        r'1 example.com. ipv6hint="2001:db8:122:344::192.0.2.33"',
        "0001 076578616d706c6503636f6d00 0006 0010 20010db8012203440000 0000c0000221",
    ),
    (
        r"16 foo.example.org. ( alpn=h2,h3-19 mandatory=ipv4hint,alpn ipv4hint=192.0.2.1 )",
        "0010 FOO.ORG 0000 0004 0001 0004 0001 0009 026832 0568332d3139 0004 0004 c0000201",
    ),
    (
        r'16 foo.example.org. alpn="f\\\\oo\\,bar,h2"',
        "0010 FOO.ORG 0001 000c 08665c6f6f2c626172 026832",
    ),
    (
        r"16 foo.example.org. alpn=f\\\092oo\092,bar,h2",
        "0010 FOO.ORG 0001 000c 08665c6f6f2c626172 026832",
    ),
]


@pytest.mark.parametrize(("text", "wire"), SERVICES)
def test_rfc9460_appendix_d_vectors(text: str, wire: str) -> None:
    (rrset,) = zone(f"a SVCB {text}\n").nodes[b"\1a\7example\4test\0"].rrsets.values()
    for top in ("com", "org"):
        name = names.from_text(f"foo.example.{top}.")
        wire = wire.replace(f"FOO.{top.upper()}", name.hex())
    assert rrset.rdatas == (bytes.fromhex(wire),)


@pytest.mark.parametrize(
    "text",
    [
        "foo.example.com. key123=abc key123=def",
        *(f"foo.example.com. {key}" for key in ("mandatory", "alpn", "port", "ipv4hint")),
        "foo.example.com. ipv6hint",
        "foo.example.com. no-default-alpn=abc",
        "foo.example.com. mandatory=key123",
        "foo.example.com. mandatory=mandatory",
        "foo.example.com. mandatory=key123,key123 key123=abc",
    ],
)
def test_rfc9460_appendix_d_3_failures(text: str) -> None:
    with pytest.raises(ZoneError, match="<text>:6: error: bad SVCB data"):
        zone(f"a SVCB 1 {text}\n")


def test_the_sample_text_of_dns_names_outside_ascii() -> None:
    loaded = zone("bücher A 192.0.2.1\nbücher TXT x")
    assert b"\x0dxn--bcher-kva\x07example\x04test\0" in loaded.nodes


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("a A 192.0.2.300\n", 1, "no IPv4 address"),
        ("a A 192.0.2\n", 1, "no IPv4 address"),
        ("a AAAA 192.0.2.1\n", 1, "no IPv6 address"),
        ("\n\na A\n", 3, "bad A data"),
        ("a A 192.0.2.1 192.0.2.2\n", 1, "bad A data"),
        ("a MX mail\n", 1, "bad MX data"),
        ("a TLSA 3 1 1 zz\n", 1, "bad TLSA data"),
        ("a HTTPS 1 . mandatory=alpn\n", 1, "bad HTTPS data"),
        ('a TXT "' + "x" * 256 + '"\n', 1, "bad TXT data"),
        ("a TYPE65400 \\# 4 00\n", 1, "bad TYPE65400 data"),
        ("a NOSUCH x\n", 1, "unknown type NOSUCH"),
        ("a AXFR x\n", 1, "cannot stand in a zone"),
        ("a OPT x\n", 1, "cannot stand in a zone"),
        ("a 60\n", 1, "no type"),
        ("a CH TXT x\n", 1, "only IN"),
        ("a 3000000000 A 192.0.2.1\n", 1, "RFC 2181"),
        ("a..b A 192.0.2.1\n", 1, "a label has"),
        (f"{'x' * 64} A 192.0.2.1\n", 1, "a label has"),
        ("b CNAME a..\n", 1, "a label has"),
        ("outside.example. A 192.0.2.1\n", 1, "lies outside the zone example.test."),
        ("sub SOA a b 1 2 3 9 5\n", 1, "SOA at sub.example.test."),
        ('a TXT "open\n', 1, "no end"),
        ("\na TXT (\nx\n", 2, "never closed"),
        ("a TXT x )\n", 1, "not opened"),
        (f"a TYPE65400 \\# 64001 {'00' * 64001}\n", 1, "too many for any message"),
        ("$TTL\n", 1, "$TTL wants"),
        ("$TTL soon\n", 1, "$TTL wants"),
        ("$ORIGIN a b\n", 1, "$ORIGIN wants"),
        ("$NOSUCH x\n", 1, "unknown directive $NOSUCH"),
        ("$INCLUDE x\n", 1, "in files only"),
        ("$GENERATE 1-2 x\n", 1, "$GENERATE wants"),
        ("$GENERATE 2-1 x A 192.0.2.$\n", 1, "empty"),
        ("$GENERATE 254-256 x A 192.0.2.$\n", 1, "no IPv4"),
        ("$GENERATE 0-4000000000 x A 192.0.2.1\n", 1, "more than 1048576"),
        ("\udcff A 192.0.2.1\n", 1, ""),
        ("a CNAME b\na A 192.0.2.1\n", 2, "CNAME and other data: A"),
        ("a A 192.0.2.1\na CNAME b\n", 2, "CNAME and other data: A"),
        ("a CNAME b\na CNAME c\n", 1, "2 CNAME records"),
        ("a DNAME b\na DNAME c\n", 1, "2 DNAME records"),
        ("x.y.a A 192.0.2.1\na DNAME b\n", 1, "stands below the DNAME of a.example.test."),
        ("@ SOA a b 2 2 3 9 5\n", 1 - HEAD_LINES + 2, "2 SOA records"),
    ],
)
def test_each_fault_is_told_with_its_line(text: str, line: int, complaint: str) -> None:
    found, message = fault(text)
    assert (found, complaint in message) == (line, True), message


def test_one_run_names_all_faults_in_order() -> None:
    found = problems(HEAD + "a A x\nb AAAA y\nok A 192.0.2.1\nc MX z\nout.side. A 192.0.2.1\n")
    assert [line - HEAD_LINES for line, _, _ in found] == [1, 2, 4, 5]


def test_a_file_that_is_no_zone_is_given_up() -> None:
    with pytest.raises(ZoneError) as caught:
        Zone.from_text("this is no zone\n" * (2 * MAX_PROBLEMS))
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert "and 981 more" in str(caught.value)


def test_warnings_without_end_stop_nothing_and_hide_no_error() -> None:
    text = "".join(f"a{number} MX 1 nowhere\n" for number in range(MAX_PROBLEMS + 7))
    loaded = zone(text)
    assert len(loaded.problems) == MAX_PROBLEMS + 1
    assert loaded.problems[-1].message == "7 more warnings like these"
    with pytest.raises(ZoneError, match="CNAME and other data"):
        zone(text + "b CNAME ns1\nb A 192.0.2.1\n")


def test_no_soa_and_no_ns() -> None:
    """RFC 1035 §5.2."""
    assert problems("$TTL 1\na.example. A 192.0.2.1\n") == [
        (0, "error", "there is no SOA record, so this is no zone")
    ]
    assert problems("example. 1 SOA a. b. 1 2 3 9 5\n") == [
        (1, "error", "example. has no NS record")
    ]


def test_the_origin_that_a_caller_wants_is_checked() -> None:
    text = "example. 1 SOA a. b. 1 2 3 9 5\nexample. 1 NS a.\n"
    assert Zone.from_text(text, "EXAMPLE").name == "example."
    with pytest.raises(ZoneError, match=r"1: error: the SOA is example.'s, not other.'s"):
        Zone.from_text(text, "other.")
    with pytest.raises(ZoneError, match="a label"):
        Zone.from_text(text, "a..b")


def test_records_before_the_soa_are_kept_and_judged() -> None:
    text = "$TTL 60\na.example. A 192.0.2.1\nb.other. A 192.0.2.1\n"
    found = problems(text + "example. SOA ns.example. h. 1 2 3 9 5\nexample. NS ns.other.\n")
    assert found == [(3, "error", "b.other. lies outside the zone example.")]


def test_ttls() -> None:
    """RFC 2308 §4 ($TTL), RFC 1035 §5.1 (the last stated TTL), RFC 2181 §5.2 (one for an RRset)."""
    loaded = zone("a A 192.0.2.1\nb 5 A 192.0.2.1\nc A 192.0.2.1\n$TTL 1d\nd A 192.0.2.1\n")
    ttls = {names.to_text(node.name)[0]: rrset.ttl for node, rrset in loaded if rrset.rtype == 1}
    assert ttls == {"n": 600, "a": 600, "b": 5, "c": 600, "d": 86400}

    text = "example. SOA a. b. 1 2 3 9 77\nexample. NS a.\nb.example. 9 A 192.0.2.1\n\tTXT x\n"
    loaded = Zone.from_text(text)
    assert {rrset.rtype: rrset.ttl for _, rrset in loaded} == {6: 77, 2: 77, 1: 9, 16: 9}
    assert [problem.line for problem in loaded.problems] == [1]

    loaded = zone("a 60 A 192.0.2.1\na 30 A 192.0.2.2\na 90 A 192.0.2.3\n")
    assert loaded.nodes[b"\x01a\x07example\x04test\0"].rrsets[1].ttl == 30
    assert ["TTL" in problem.message for problem in loaded.problems] == [True, True]


def test_no_ttl_at_all() -> None:
    found = problems("example. NS a.\nexample. 5 SOA a. b. 1 2 3 9 77\nexample. NS a.\n")
    assert found == [(1, "error", "the record has no TTL and there is no $TTL")]


@pytest.mark.parametrize("count", [3, 40])
def test_duplicates_are_left_out(count: int) -> None:
    """RFC 2181 §5: an RRset is a set; names in rdata are compared as names."""
    text = "".join(f"@ NS n{number}.other.\n" for number in range(count))
    loaded = zone(text + "@ NS N1.Other.\n")
    assert len(loaded.apex.rrsets[2].rdatas) == count + 1
    messages = [(problem.line - HEAD_LINES, problem.message) for problem in loaded.problems]
    assert messages == [(count + 1, "the same record was given before")]


def test_generate_makes_what_its_text_says() -> None:
    loaded = zone("$GENERATE 1-3 host-$ 60 IN A 192.0.2.${10}\n$GENERATE 1-2 $.rev PTR host-$\n")
    assert loaded.nodes[b"\x06host-3\x07example\x04test\0"].rrsets[1].rdatas == (b"\xc0\0\x02\x0d",)
    assert loaded.nodes[b"\x012\x03rev\x07example\x04test\0"].rrsets[12].rdatas == (
        b"\x06host-2\x07example\x04test\0",
    )


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_include(tmp_path: Path) -> None:
    """RFC 1035 §5.1: with an origin of its own, and without effect on the includer's."""
    write(tmp_path, "parts/hosts.inc", "a A 192.0.2.1\n$ORIGIN deep\n$TTL 9\nb A 192.0.2.2\n")
    main = write(
        tmp_path,
        "example.test.zone",
        f"$TTL 600\n{SOA}$INCLUDE parts/hosts.inc sub\n TXT beside-ns1\nc A 192.0.2.3\n",
    )
    loaded = Zone.from_file(main)
    assert loaded.name == "example.test."
    ttls = {names.to_text(node.name): rrset.ttl for node, rrset in loaded if rrset.rtype == 1}
    assert ttls == {
        "ns1.example.test.": 600,
        "a.sub.example.test.": 600,
        "b.deep.sub.example.test.": 9,
        "c.example.test.": 600,
    }
    assert 16 in loaded.nodes[b"\x03ns1\x07example\x04test\0"].rrsets
    assert loaded.files == (str(main), str(tmp_path / "parts/hosts.inc"))
    where = loaded.nodes[b"\x01a\x03sub\x07example\x04test\0"].rrsets[1].where
    assert loaded.place(where) == (str(tmp_path / "parts/hosts.inc"), 1)


def test_an_included_fault_names_its_own_file(tmp_path: Path) -> None:
    inner = write(tmp_path, "x.inc", "\na A nonsense\n")
    main = write(tmp_path, "example.test.zone", f"$TTL 600\n{SOA}$INCLUDE x.inc\n")
    with pytest.raises(ZoneError) as caught:
        Zone.from_file(main)
    assert str(caught.value) == f"{inner}:2: error: nonsense is no IPv4 address"


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside.inc", "link.inc", "none.inc", "."])
def test_includes_are_confined(tmp_path: Path, name: str) -> None:
    write(tmp_path, "outside.inc", "a A 192.0.2.1\n")
    main = write(tmp_path, "zones/example.test.zone", f"$TTL 600\n{SOA}$INCLUDE {name}\n")
    (tmp_path / "zones/link.inc").symlink_to(tmp_path / "outside.inc")
    with pytest.raises(ZoneError) as caught:
        Zone.from_file(main)
    assert [problem.line for problem in caught.value.problems] == [5]


def test_include_loops_end(tmp_path: Path) -> None:
    main = write(tmp_path, "example.test.zone", f"$TTL 600\n{SOA}$INCLUDE example.test.zone\n")
    with pytest.raises(ZoneError, match=f"more than {MAX_DEPTH} files"):
        Zone.from_file(main)


def test_the_digest_covers_included_files(tmp_path: Path) -> None:
    inner = write(tmp_path, "x.inc", "a A 192.0.2.1\n")
    main = write(tmp_path, "example.test.zone", f"$TTL 600\n{SOA}$INCLUDE x.inc\n")
    first = Zone.from_file(main).digest
    assert Zone.from_file(main).digest == first
    inner.write_text("a A 192.0.2.2\n")
    assert Zone.from_file(main).digest != first


def test_a_directory_of_zones_good_and_bad(tmp_path: Path) -> None:
    write(tmp_path, "a.test.zone", f"$TTL 600\n{SOA}")
    write(tmp_path, "b.test.zone", f"$TTL 600\n{SOA}x A nonsense\ny A rubbish\n")
    write(tmp_path, "c.test.zone", f"$ORIGIN a.test.\n$TTL 600\n{SOA}")
    write(tmp_path, "notes.txt", "not a zone")
    (tmp_path / "dir.zone").mkdir()
    (tmp_path / "latin.test.zone").write_bytes(b"; caf\xe9\n$TTL 600\n" + SOA.encode())
    loaded = load_zones(tmp_path)
    assert [zone.name for zone in loaded.zones] == ["a.test.", "latin.test."]
    assert [(Path(p.file).name, p.line) for p in loaded.problems] == [
        ("b.test.zone", 5),
        ("b.test.zone", 6),
        ("c.test.zone", 3),
        ("dir.zone", 0),
    ]
    assert str(loaded.problems[0]) == (
        f"{tmp_path}/b.test.zone:5: error: nonsense is no IPv4 address"
    )


def test_no_directory() -> None:
    loaded = load_zones("/nonexistent")
    assert loaded.zones == ()
    assert [problem.severity for problem in loaded.problems] == ["error"]


def test_progress_is_told(tmp_path: Path) -> None:
    main = write(
        tmp_path, "example.test.zone", f"$TTL 600\n{SOA}$GENERATE 1-25000 h$ A 192.0.2.1\n"
    )
    seen: list[int] = []
    parts: list[float] = []

    def told(count: int, part: float) -> None:
        seen.append(count)
        parts.append(part)

    load_zones(tmp_path, lambda path: told)
    assert seen == [10_000, 20_000]
    assert all(0 < part <= 1 for part in parts)
    assert Zone.from_file(main).records == 25_003


@given(st.text(alphabet='ab.@*$()";\\ \t\n0169INAMXTSOC#/{}-,', max_size=200))
def test_any_text_gives_a_zone_or_problems(text: str) -> None:
    found = problems(HEAD + text)
    assert all(line >= 0 and message for line, _, message in found)


@given(st.text(max_size=100))
def test_so_does_any_unicode(text: str) -> None:
    found = problems(HEAD + text)
    assert all(line >= 0 and message for line, _, message in found)
