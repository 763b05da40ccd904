"""The language: what scripts say, and where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fuzz.script import events as e
from appliance.fuzz.script.parser import ScriptError, parse, parse_file


def only(text: str) -> e.Event:
    """The one event of a script."""
    script = parse(text)
    assert len(script.events) == 1
    return script.events[0]


@pytest.mark.parametrize(
    ("words", "when"),
    [
        ("0", e.When("absolute", 0)),
        ("0.0", e.When("absolute", 0)),
        ("+0", e.When("relative", 0)),
        ("*", e.When("any")),
        ("0~0.1", e.When("absolute", 0, 100_000)),
        ("+0~+.303", e.When("relative", 0, 303_000)),
    ],
)
def test_times(words: str, when: e.When) -> None:
    assert only(f"{words} > . 1:1(0) ack 1").when == when


def test_times_of_later_events() -> None:
    script = parse("0 close(3) = 0\n+.001 close(3) = 0\n 1.5 close(3) = 0\n+2~+3 > R 1:1(0)")
    assert [event.when.at for event in script.events] == [0, 1000, 1_500_000, 2_000_000]


def test_a_segment() -> None:
    action = only(
        "0 < [ce] SEW. 0:10(10) ack 5 win 32792 urg 3 "
        "<mss 1000,sackOK,TS val 100 ecr 7,nop,wscale 7,sack 1:2 5:9,eol>"
    ).action
    assert action == e.Segment(
        True, "SEW.", 0, 10, 10, 5, 32792, 3,
        (
            e.TcpOption("mss", (1000,)), e.TcpOption("sackOK"), e.TcpOption("TS", (100, 7)),
            e.TcpOption("nop"), e.TcpOption("wscale", (7,)), e.TcpOption("sack", (1, 2, 5, 9)),
            e.TcpOption("eol"),
        ),
        e.IpInfo(ecn="ce"),
    )  # fmt: skip


def test_any_options_will_do() -> None:
    action = only("0 > S. 0:0(0) ack 1 <...>").action
    assert isinstance(action, e.Segment)
    assert action.options is None


def test_no_flags_and_ports() -> None:
    action = only("0 < 8080 > 53 - 1:1001(1000) win 3").action
    assert isinstance(action, e.Segment)
    assert (action.flags, action.ports, action.ack) == ("", (8080, 53), None)


def test_other_protocols() -> None:
    assert only("0 < udp 9000 > 53 (100)").action == e.Datagram(True, 100, ports=(9000, 53))
    assert only("0 < icmp unreachable frag_needed mtu 1240 [1:1461(1460)]").action == e.Icmp(
        True, "unreachable", "frag_needed", 1240, None, ("tcp", (1, 1461, 1460))
    )


def test_a_call() -> None:
    event = only(
        "0...0.2 sendmsg(4, {msg_iov(1)=[{..., 40}]}, MSG_MORE|0x80) = -1 EPIPE (Broken pipe)"
    )
    call = event.action
    assert isinstance(call, e.Call)
    assert (call.name, call.ends, call.result, call.errno) == ("sendmsg", 200_000, -1, "EPIPE")
    piece = e.Structure((e.WHATEVER, 40))
    vector = e.Assigned(e.Applied("msg_iov", (1,)), e.Array((piece,)))
    assert call.arguments == (4, e.Structure((vector,)), e.Either(e.Symbol("MSG_MORE"), 0x80))


def test_words_that_mean_something_in_packets_are_words_in_calls() -> None:
    call = only("0 ack(...) = 0 (mss and win)").action
    assert isinstance(call, e.Call)
    assert call.name == "ack"


def test_commands_and_code() -> None:
    script = parse("--mss=1000\n`setup`\n0 %{ x = 1 }%\n+0 `middle`\n`cleanup`")
    assert script.options == {"mss": "1000"}
    assert script.setup == (e.Command("setup"), e.Place(2, 1))
    assert [event.action for event in script.events] == [e.Code("x = 1 "[:-1]), e.Command("middle")]
    assert script.cleanup == e.Command("cleanup")


def test_comments_stand_anywhere() -> None:
    script = parse("// one\n0 /* two\n lines */ close( // three\n 3) = 0\n")
    assert script.events[0].place == e.Place(2, 1)


def test_words_stand_for_others() -> None:
    script = parse("0 < icmp unreachable CODE", definitions={"CODE": "net_unreachable"})
    action = script.events[0].action
    assert isinstance(action, e.Icmp)
    assert action.code == "net_unreachable"


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("0 < S 0:0(0) wim 5", (1, 14), "'wim' does not belong here"),
        ("0 < S 0:5(0)", (1, 7), "0:5 are 5 octets, not 0"),
        ("0 < S 0:0(0) ack 1", (1, 7), 'an acknowledgment needs the "." flag'),
        ("0 > . 0:0(0)", (1, 7), 'the "." flag needs an acknowledgment'),
        ("0 < X 0:0(0)", (1, 5), "'X' is no TCP flag"),
        ("0 < SS 0:0(0)", (1, 5), "a flag stands twice"),
        ("0 < . 0:0(0) ack 1 win 70000", (1, 24), "the window field has 16 bits"),
        ("0 < . 0:0(0) ack 1 <...>", (1, 7), "<...> is for segments that are expected"),
        ("0 < . 0:0(0) ack 1 <mss 70000>", (1, 25), "does not fit into 16 bits"),
        ("0 < . 0:0(0) ack 1 <md5 xyz>", (1, 25), "is not hexadecimal"),
        ("+1 close(3) = 0", (1, 1), "the first event is at time 0"),
        ("0 close(3) = 0\n2 close(3) = 0\n1 close(3) = 0", (3, 1), "time runs backwards"),
        ("0 close(3) = ", (1, 1), "the end of the file does not belong here"),
        ("0 close(3\n ; 0", (2, 2), "';' does not belong here"),
        ("", (1, 1), "the end of the file does not belong here"),
        ("0 < 99999 > 5 . 1:1(0) ack 1", (1, 5), "99999 is not a port"),
        ("0 \x00", (1, 3), "'\\x00' does not belong here"),
    ],
)
def test_errors_name_their_place(text: str, where: tuple[int, int], message: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse(text, "a.pkt")
    assert (caught.value.line, caught.value.column) == where
    assert message in caught.value.message
    assert str(caught.value).startswith(f"a.pkt:{where[0]}:{where[1]}: ")


def test_an_error_says_what_would_fit() -> None:
    with pytest.raises(ScriptError, match="a whole number would fit"):
        parse("0 < S 0:x(0)")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.pkt"
    path.write_bytes(b"0 close(3) = 0\n\xff\xfe")
    with pytest.raises(ScriptError, match=r":2:1: not UTF-8 text"):
        parse_file(path)


@given(st.text(alphabet=' \n0123456789.+~*<>(){}[]=|,`"/SPack win mss_%-:', max_size=80))
def test_nothing_else_is_raised(text: str) -> None:
    try:
        parse(text)
    except ScriptError as error:
        fault = error
    else:
        return
    assert fault.line >= 1
    assert fault.column >= 1
