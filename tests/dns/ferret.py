"""Judges answers as the Ferret dataset's authors do; used by the tests and runnable by hand.

    python tests/dns/ferret.py cases.jsonl

Response code, flags but RA, question, answer and additional sections as sets; the authority section
only when one side has no answer, since a server may add or leave out NS records beside one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from appliance.dns import Catalog, Zone

Records = set[str]


def records(section: list[Any]) -> Records:
    """Every record of a section as one lower-cased line."""
    return {
        f"{rrset.name} {rrset.ttl} in {dns.rdatatype.to_text(rrset.rdtype)} {rdata}".lower()
        for rrset in section
        for rdata in rrset
    }


def normal(lines: list[str]) -> Records:
    """The dataset's lines in the same form."""
    return {" ".join(line.split()).lower() for line in lines}


def ask(catalog: Catalog, qname: str, qtype: str) -> dns.message.Message:
    """One question without EDNS and RD, through octets both ways."""
    query = dns.message.make_query(qname, qtype, use_edns=False, flags=0)
    wire = catalog.answer(query.to_wire())
    assert wire is not None
    return dns.message.from_wire(wire)


def differences(case: dict[str, Any], *, minimal: bool = True, strict: bool = False) -> list[str]:
    """What differs from the expected answer; nothing when all is well.

    `strict` compares the authority section always.
    """
    got = ask(
        Catalog([Zone.from_text(case["zone"])], minimal=minimal), case["qname"], case["qtype"]
    )
    want = case["expected"]
    out = []
    if dns.rcode.to_text(got.rcode()) != want["rcode"]:
        out.append(f"rcode {dns.rcode.to_text(got.rcode())}, not {want['rcode']}")
    flags = set(dns.flags.to_text(got.flags).split()) - {"RA"}
    if flags != set(want["flags"]) - {"RA"}:
        out.append(f"flags {flags}, not {want['flags']}")
    sections = {"answer": got.answer, "authority": got.authority, "additional": got.additional}
    for name, section in sections.items():
        if name == "authority" and got.answer and want["answer"] and not strict:
            continue
        if records(section) != normal(want[name]):
            out.append(f"{name} {sorted(records(section))}, not {sorted(normal(want[name]))}")
    return out


def main(path: str) -> None:
    """Run all cases of a file and print what differs."""
    with open(path) as lines:
        cases = [json.loads(line) for line in lines]
    bad = 0
    for case in cases:
        found = differences(case, minimal="full" not in sys.argv, strict="full" in sys.argv)
        if found:
            bad += 1
            sys.stdout.write(
                f"{case['case']} {case['qname']} {case['qtype']} agree {case['agree']}\n"
            )
            sys.stdout.write(case["zone"] + "\n".join(found) + "\n\n")
    sys.stdout.write(f"{len(cases) - bad} of {len(cases)} equal\n")


if __name__ == "__main__":
    main(sys.argv[1])
