"""Changed zones go back into the files that people wrote, and little else changes there."""

from __future__ import annotations

import difflib
from pathlib import Path
from random import Random

import pytest

from appliance.dns import Zone
from appliance.dns.edit import apply
from appliance.dns.serial import Difference, Record, difference, records, soa_record, with_serial
from appliance.dns.writeback import Rewriter

HERE = Path(__file__).parent
TEXT = """\
; A zone of somebody who likes it tidy.
$ORIGIN example.test.
$TTL 3600
@       IN SOA ns1 hostmaster (
               2026010100 ; serial
               2h 15m 2w
               300 )      ; negative
        IN NS  ns1
ns1     IN A   192.0.2.1  ; the only one

; Machines.
web     IN A   192.0.2.80 ; the old one
        IN AAAA 2001:db8::80
alone 60 A     192.0.2.7
$GENERATE 1-4 host$ A 192.0.2.$
$INCLUDE more.inc
last    IN TXT "a;b" ; not ; the ( end
"""
MORE = """\
inc1    A   192.0.2.21
        TXT "one" "two"
$ORIGIN sub
inc2    A   192.0.2.22 ; below sub
"""


def write(folder: Path) -> Path:
    path = folder / "example.test.zone"
    path.write_text(TEXT)
    (folder / "more.inc").write_text(MORE)
    return path


def changed(path: Path, removed: list[str], added: list[str], serial: int = 2026010101) -> Zone:
    """The zone with records, given as lines, taken away and added."""

    def rows(lines: list[str]) -> tuple[Record, ...]:
        head = (
            f"@ SOA ns1.example.test. hostmaster {serial} 2h 15m 2w 300\n@ NS ns1\nns1 A 0.0.0.1\n"
        )
        text = "$ORIGIN example.test.\n$TTL 3600\n" + head
        base = set(records(Zone.from_text(text)))
        return tuple(
            one
            for one in records(Zone.from_text(text + "\n".join(lines) + "\n"))
            if one not in base
        )

    zone = Zone.from_file(path)
    old = soa_record(zone)
    new = (*old[:3], with_serial(old[3], serial))
    return apply(zone, Difference(old, new, rows(removed), rows(added))).zone


def lines_of(path: Path, zone: Zone) -> tuple[list[str], dict[str, str]]:
    """What a diff would show, without context."""
    rewriter = Rewriter(zone, path, path.parent)
    texts = rewriter.texts()
    assert not rewriter.whole
    out: list[str] = []
    for name, text in texts.items():
        before = Path(name).read_text().splitlines()
        diff = difflib.unified_diff(before, text.splitlines(), lineterm="", n=0)
        out += [line for line in diff if line[:3] not in ("---", "+++") and line[:2] != "@@"]
    return out, texts


@pytest.mark.parametrize(
    ("removed", "added", "expected"),
    [
        (
            ["web A 192.0.2.80"],
            ["web A 192.0.2.81"],
            [
                "-web     IN A   192.0.2.80 ; the old one",
                "+web     IN A   192.0.2.81 ; the old one",
            ],
        ),
        # The next record leant on the owner of the one that went.
        (
            ["web A 192.0.2.80"],
            [],
            [
                "-web     IN A   192.0.2.80 ; the old one",
                "-        IN AAAA 2001:db8::80",
                "+web     IN AAAA 2001:db8::80",
            ],
        ),
        (
            [],
            ["web A 192.0.2.82", "new.dyn 60 A 192.0.2.9"],
            [
                "+web     IN A    192.0.2.82",
                "+new.dyn 60 IN A    192.0.2.9",
            ],
        ),
        (["alone 60 A 192.0.2.7"], [], ["-alone 60 A     192.0.2.7"]),
        (
            ["sub TXT x", "inc2.sub A 192.0.2.22"],
            ["inc2.sub A 192.0.2.222"],
            ["-inc2    A   192.0.2.22 ; below sub", "+inc2    A   192.0.2.222 ; below sub"],
        ),
        (
            ["host2 A 192.0.2.2"],
            [],
            [
                "-$GENERATE 1-4 host$ A 192.0.2.$",
                "+; $GENERATE 1-4 host$ A 192.0.2.$",
                "+host1 IN A    192.0.2.1",
                "+host3 IN A    192.0.2.3",
                "+host4 IN A    192.0.2.4",
            ],
        ),
        (
            ['last TXT "a;b"'],
            ['last TXT "c"'],
            [
                '-last    IN TXT "a;b" ; not ; the ( end',
                '+last    IN TXT "c"   ; not ; the ( end',
            ],
        ),
    ],
)
def test_only_what_must_change_changes(
    tmp_path: Path, removed: list[str], added: list[str], expected: list[str]
) -> None:
    path = write(tmp_path)
    removed = [line for line in removed if line != "sub TXT x"]
    found, _ = lines_of(path, changed(path, removed, added))
    serial = ["-               2026010100 ; serial", "+               2026010101 ; serial"]
    assert sorted(found) == sorted(serial + expected)


def test_a_file_too_clever_is_written_anew(tmp_path: Path) -> None:
    """One file is included twice, under two names; only one of them is to change."""
    path = tmp_path / "example.test.zone"
    path.write_text(TEXT.replace("$INCLUDE more.inc", "$INCLUDE two.inc a\n$INCLUDE two.inc b"))
    (tmp_path / "two.inc").write_text("x A 192.0.2.1\n")
    zone = changed(path, ["x.a A 192.0.2.1"], ["x.a A 192.0.2.2"])
    rewriter = Rewriter(zone, path, tmp_path)
    texts = rewriter.texts()
    assert rewriter.whole
    assert list(texts) == [str(path)]
    assert texts[str(path)].startswith("; A zone of somebody who likes it tidy.\n")
    again = Zone.from_text(texts[str(path)])
    change = difference(zone, again)
    assert not change.removed
    assert not change.added
    assert again.serial == zone.serial


@pytest.mark.parametrize("seed", range(25))
def test_random_changes_of_a_real_file(tmp_path: Path, seed: int) -> None:
    """Whatever changes, what is written says exactly the zone, and comments stay."""
    random = Random(seed)
    path = tmp_path / "openmirage.org.zone"
    original = (HERE.parent.parent / "zones" / "openmirage.org.zone").read_text()
    path.write_text(original)
    for step in range(3):
        zone = Zone.from_file(path)
        some = [one for one in records(zone) if one[1] in (1, 16, 28, 15)]
        gone = random.sample(some, 3)
        come = [
            (b"\3new\x04dyn" + bytes((48 + step,)) + zone.origin, 1, 60, random.randbytes(4)),
            (gone[0][0], gone[0][1], gone[0][2] + step, _other(gone[0])),
        ]
        old = soa_record(zone)
        new = (*old[:3], with_serial(old[3], zone.serial + 1))
        try:
            wanted = apply(zone, Difference(old, new, tuple(gone), tuple(come))).zone
        except ValueError:
            continue
        rewriter = Rewriter(wanted, path, tmp_path)
        texts = rewriter.texts()
        assert not rewriter.whole
        path.write_text(texts[str(path)])
        read = difference(wanted, Zone.from_file(path))
        assert not read.removed
        assert not read.added
    kept = set(path.read_text().splitlines())
    comments = [line for line in original.splitlines() if line.startswith(";")]
    assert all(line in kept for line in comments)


def _other(record: Record) -> bytes:
    _, rtype, _, rdata = record
    return (
        b"\x03abc"
        if rtype == 16
        else rdata[:-1] + bytes((rdata[-1] ^ 1,))
        if rtype != 15
        else (b"\0\x63" + rdata[2:])
    )
