"""Segments in packetdrill's notation, and the comparison of one expected with one that came.

The comparison is packetdrill's: flags, numbers, payload, options in their order with NOPs, urgent
pointer; the window and the IP header only where the script names them; timestamps' values only
when it says how fast their clock ticks.  Beyond packetdrill, the echo of a timestamp is compared.

PSH is compared by its meaning.  RFC 9293 §3.9.1.2 leaves a sender free to set it where it likes
but for one case: the segment that empties the send queue must carry it (MUST-61).  Linux also
sets it on every segment that it hands to the link as more than one, which scripts record, and
which changes when offload is switched off.  `exact_push` compares the flag bit by bit instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.fuzz.script.events import Icmp, IpInfo, Segment, TcpOption
from appliance.fuzz.script.faults import Row
from appliance.fuzz.script.flow import FLAGS, Leaving
from appliance.net.wire.tcp import PSH

_ORDER: Final = "SFRPEUWA."
_ECN_NAMES: Final = ("noecn", "ect1", "ect0", "ce")


def letters(flags: int) -> str:
    """Flags as packetdrill writes them: P. for PSH and ACK, - for none."""
    named = "".join(letter for letter in "FSRPEWU" if flags & FLAGS[letter])
    return (named + ("." if flags & FLAGS["."] else "")) or "-"


def options_text(options: Sequence[TcpOption] | None) -> str:
    """Options as packetdrill writes them."""
    if options is None:
        return "<...>"
    if not options:
        return ""
    return f"<{','.join(_option(option) for option in options)}>"


def _option(option: TcpOption) -> str:
    numbers = option.numbers
    if option.name == "TS" and numbers:
        return f"TS val {numbers[0]} ecr {numbers[1]}"
    if option.name == "sack":
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return "sack " + " ".join(f"{left}:{right}" for left, right in pairs)
    if option.blob:
        return f"{option.name} {option.blob.hex()}"
    return " ".join((option.name, *map(str, numbers)))


def segment_text(segment: Segment) -> str:
    """One line of a script."""
    parts = [
        "<" if segment.arrives else ">",
        _ip_text(segment.ip),
        segment.flags or "-",
        f"{segment.seq}:{segment.end}({segment.length})",
        "" if segment.ack is None else f"ack {segment.ack}",
        "" if segment.window is None else f"win {segment.window}",
        f"urg {segment.urgent}" if segment.urgent else "",
        options_text(segment.options),
    ]
    return " ".join(part for part in parts if part)


def _ip_text(info: IpInfo) -> str:
    return f"[{info.ecn}]" if info.ecn else ""


def leaving_text(segment: Leaving) -> str:
    """What the host sent, as the line that would expect it."""
    end = segment.seq + segment.length
    parts = [
        ">",
        f"[{_ECN_NAMES[segment.tos & 3]}]" if segment.tos & 3 else "",
        letters(segment.flags),
        f"{segment.seq}:{end}({segment.length})",
        f"ack {segment.ack}" if segment.flags & FLAGS["."] else "",
        f"win {segment.window}",
        options_text(segment.options),
    ]
    return " ".join(part for part in parts if part)


def icmp_text(message: Icmp) -> str:
    """One line of a script."""
    return " ".join(filter(None, (">", "icmp", message.type, message.code)))


def compare(
    expected: Segment, got: Leaving, *, tick: int, tolerance: int, empties: bool, exact_push: bool
) -> list[Row]:
    """Each field, side by side.

    `tick` is microseconds of a timestamp's unit (0: values are not compared), `tolerance` how many
    microseconds they may be off; `empties` tells that nothing was left to send after this segment.
    """
    rows = [_flags_row(expected, got, empties, exact_push)]
    numbers = f"{expected.seq}:{expected.end}({expected.length})"
    came = f"{got.seq}:{got.seq + got.length}({got.length})"
    if got.pieces > 1:
        rows.append(Row("octets", numbers, f"{came} in {got.pieces}", numbers == came))
    else:
        rows.append(Row("octets", numbers, came, numbers == came))
    wanted_ack = "" if expected.ack is None else str(expected.ack)
    got_ack = str(got.ack) if got.flags & FLAGS["."] else ""
    rows.append(Row("ack", wanted_ack, got_ack, wanted_ack == got_ack))
    window = "any" if expected.window is None else str(expected.window)
    rows.append(Row("win", window, str(got.window), expected.window in (None, got.window)))
    if expected.urgent or got.urgent:
        rows.append(
            Row("urg", str(expected.urgent), str(got.urgent), expected.urgent == got.urgent)
        )
    same = expected.options is None or _same_options(expected.options, got.options, tick, tolerance)
    wanted = options_text(expected.options) or "none"
    rows.append(Row("options", wanted, options_text(got.options) or "none", same))
    rows += _ip_rows(expected.ip, got)
    return rows


def _flags_row(expected: Segment, got: Leaving, empties: bool, exact: bool) -> Row:
    wanted = sum(FLAGS.get(letter, 0) for letter in expected.flags)
    differ = wanted ^ got.flags
    # Expected and absent is a fault only where RFC 9293 §3.9.1.2 (MUST-61) demands it; present and
    # not expected is always allowed.
    if differ == PSH and not exact and (got.flags & PSH or not empties):
        differ = 0
    return Row("flags", letters(wanted), letters(got.flags), not differ)


def _same_options(
    expected: Sequence[TcpOption], got: Sequence[TcpOption], tick: int, tolerance: int
) -> bool:
    if len(expected) != len(got):
        return False
    for wanted, came in zip(expected, got, strict=True):
        if wanted.name == came.name == "TS":
            if wanted.numbers[1] != came.numbers[1]:
                return False
            off = (came.numbers[0] - wanted.numbers[0] + (1 << 31)) % (1 << 32) - (1 << 31)
            if tick and abs(off) * tick > tolerance:
                return False
        elif wanted != came:
            return False
    return True


def _ip_rows(info: IpInfo, got: Leaving) -> list[Row]:
    rows: list[Row] = []
    if info.ecn is not None:
        came = _ECN_NAMES[got.tos & 3]
        same = came in ("ect0", "ect1") if info.ecn == "ect01" else came == info.ecn
        rows.append(Row("ecn", info.ecn, came, same))
    if info.tos is not None:
        rows.append(Row("tos", hex(info.tos), hex(got.tos), info.tos == got.tos))
    if info.ttl is not None:
        rows.append(Row("ttl", str(info.ttl), str(got.ttl), info.ttl == got.ttl))
    return rows
