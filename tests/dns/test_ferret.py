"""Answers against those of real servers.

The dataset (FerretDataset, MIT licence) is not part of this repository: APPLIANCE_FERRET_CASES
names its file. The cases here are of our own writing, in its form, so that the judge is tested.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.dns.ferret import differences

CASES = os.environ.get("APPLIANCE_FERRET_CASES", "")
HEAD = "a.test. 500 IN SOA ns.b.test. h.b.test. 3 604800 86400 2419200 604800\n"
SOA = "a.test. 500 IN SOA ns.b.test. h.b.test. 3 604800 86400 2419200 604800"


def case(qname: str, qtype: str, rcode: str, flags: str, *sections: list[str]) -> dict[str, Any]:
    answer, authority, additional = sections
    return {
        "zone": HEAD
        + "a.test. 500 IN NS ns.b.test.\n"
        + '*.w.a.test. 500 IN TXT "x"\n'
        + "d.a.test. 500 IN DNAME w.a.test.\n"
        + "c.a.test. 500 IN NS ns.c.a.test.\n"
        + "ns.c.a.test. 500 IN A 1.1.1.1\n",
        "qname": qname,
        "qtype": qtype,
        "expected": {
            "rcode": rcode,
            "flags": flags.split(),
            "answer": answer,
            "authority": authority,
            "additional": additional,
        },
    }


OURS = [
    case("no.a.test.", "A", "NXDOMAIN", "QR AA", [], [SOA], []),
    case("w.a.test.", "A", "NOERROR", "QR AA", [], [SOA], []),
    case("x.w.a.test.", "TXT", "NOERROR", "QR AA", ['x.w.a.test. 500 IN TXT "x"'], [], []),
    case(
        "x.d.a.test.",
        "TXT",
        "NOERROR",
        "QR AA",
        [
            "d.a.test. 500 IN DNAME w.a.test.",
            "x.d.a.test. 500 IN CNAME x.w.a.test.",
            'x.w.a.test. 500 IN TXT "x"',
        ],
        [],
        [],
    ),
    case(
        "x.c.a.test.",
        "A",
        "NOERROR",
        "QR",
        [],
        ["c.a.test. 500 IN NS ns.c.a.test."],
        ["ns.c.a.test. 500 IN A 1.1.1.1"],
    ),
]


@pytest.mark.parametrize("one", OURS, ids=lambda one: f"{one['qname']}{one['qtype']}")
def test_our_own_cases(one: dict[str, Any]) -> None:
    assert differences(one) == []


def test_the_judge_sees_what_differs() -> None:
    wrong = case("no.a.test.", "A", "NOERROR", "QR", ["no.a.test. 500 IN A 1.1.1.1"], [], [])
    assert [found.split()[0] for found in differences(wrong)] == [
        "rcode",
        "flags",
        "answer",
        "authority",
    ]


@pytest.mark.skipif(not CASES, reason="APPLIANCE_FERRET_CASES names no file of cases")
@pytest.mark.parametrize("minimal", [True, False])
def test_the_dataset(minimal: bool) -> None:
    """Every answer is what most of BIND, NSD, Knot and PowerDNS gave; in full, NS and all."""
    with Path(CASES).open() as lines:
        for line in lines:
            one = json.loads(line)
            assert differences(one, minimal=minimal, strict=not minimal) == [], one["case"]
