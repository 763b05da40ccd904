"""Playing scripts: what passes, what fails and how that looks, what does not apply."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli import main
from appliance.fuzz.script.parser import parse
from appliance.fuzz.script.report import page, summary, text
from appliance.fuzz.script.runner import (
    FAILED,
    NOT_APPLICABLE,
    PASSED,
    Choices,
    Result,
    run_file,
    run_script,
)

LISTEN = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 8) = 0
"""
OPEN = (
    LISTEN
    + """
   +0 < S 0:0(0) win 32768 <mss 1000,sackOK,nop,nop,nop,wscale 7>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK,nop,wscale 7>
  +.1 < . 1:1(0) ack 1 win 1024
   +0 accept(3, ..., ...) = 4
"""
)


def play(words: str, **choices: object) -> Result:
    return run_script(parse(words, "x.pkt"), Choices(**choices))  # type: ignore[arg-type]


def fails(words: str, *parts: str) -> Result:
    result = play(words)
    assert result.outcome == FAILED, result.reason
    for part in parts:
        assert part in result.reason
    return result


def inapplicable(words: str, part: str) -> None:
    result = play(words)
    assert (result.outcome, part in result.reason) == (NOT_APPLICABLE, True), result.reason


def test_a_script_passes() -> None:
    result = play(OPEN + "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1")
    assert (result.outcome, result.events, result.seconds) == (PASSED, 9, 0.1)


@pytest.mark.parametrize(
    ("expected", "part"),
    [
        ("+0 > . 1:101(100) ack 1", ""),  # PSH may always be set (RFC 9293 §3.9.1.2)
        ("+0 > FP. 1:101(100) ack 1", "flags: FP. expected, P. came"),
        ("+0 > P. 2:102(100) ack 1", "octets: 2:102(100) expected, 1:101(100) came"),
        ("+0 > P. 1:1(0) ack 1", "octets: 1:1(0) expected, 1:101(100) came"),
        ("+0 > P. 1:101(100) ack 2", "ack: 2 expected, 1 came"),
        ("+0 > P. 1:101(100) ack 1 win 1", "win: 1 expected, 512 came"),
        ("+0 > P. 1:101(100) ack 1 urg 1", "urg: 1 expected, 0 came"),
        ("+0 > P. 1:101(100) ack 1 <nop>", "options: <nop> expected, none came"),
        ("+0 > [ce] P. 1:101(100) ack 1", "ecn: ce expected, noecn came"),
        ("+.01 > P. 1:101(100) ack 1", "when: 0.110000 ± 0.004 expected, 0.100000 came"),
        ("+.01~+.02 > P. 1:101(100) ack 1", "when: 0.110000~0.120000 ± 0.004 expected"),
        ("+0~+.02 > P. 1:101(100) ack 1", ""),
        ("* > P. 1:101(100) ack 1", ""),
    ],
)
def test_each_field_is_compared(expected: str, part: str) -> None:
    result = play(OPEN + "+0 write(4, ..., 100) = 100\n" + expected)
    assert (result.outcome, part in result.reason) == (FAILED if part else PASSED, True), (
        result.reason
    )


def test_four_milliseconds_are_forgiven_and_an_eighth_of_the_wait() -> None:
    """The language's --tolerance_usecs and --tolerance_percent."""
    lost = OPEN + "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1\n+{} > P. 1:101(100) ack 1"
    assert play(lost.format(".3")).outcome == PASSED
    assert play(lost.format(".33")).outcome == PASSED
    assert play(lost.format(".35")).outcome == FAILED


def test_push_is_demanded_where_the_queue_ends() -> None:
    """RFC 9293 §3.9.1.2 (MUST-61): nowhere else, unless one asks for the bit itself."""
    words = OPEN + "+0 write(4, ..., 20000) = 20000\n+0 > P. 1:10001(10000) ack 1"
    assert play(words).outcome == PASSED
    result = play(words, exact_push=True)
    assert (result.outcome, result.reason) == (FAILED, "flags: P. expected, . came")


def test_segments_are_joined_to_the_length_expected() -> None:
    words = OPEN + "+0 write(4, ..., 4000) = 4000\n"
    assert (
        play(words + "+0 > . 1:3001(3000) ack 1\n+0 > P. 3001:4001(1000) ack 1").outcome == PASSED
    )
    fails(words + "+0 > . 1:2501(2500) ack 1", "octets: 1:2501(2500) expected, 1:3001(3000) in 3")


def test_a_failure_stands_side_by_side() -> None:
    result = fails(OPEN + "+0 write(4, ..., 100) = 100\n\n+0 > P. 1:201(200) ack 1")
    assert result.line == 12
    lines = result.detail.splitlines()
    assert lines[0].split() == ["expected", "got"]
    assert ["*", "octets", "1:201(200)", "1:101(100)"] in [line.split() for line in lines]
    assert any(line.startswith("    ack ") for line in lines)
    assert any("> P. 1:101(100) ack 1 win 512" in line for line in lines)


def test_nothing_came() -> None:
    fails(OPEN + "+0 > . 1:1(0) ack 1", "nothing left until", "> . 1:1(0) ack 1 was expected")


@pytest.mark.parametrize(
    ("call", "part"),
    [
        ("write(4, ..., 10) = 11", "write() returned 10, not 11"),
        ("write(9, ..., 10) = 10", "write() returned -1 EBADF, not 10"),
        ("read(4, ..., 10) = 0", "read() waits, and the script does not say until when"),
        ("ioctl(4, SIOCINQ, [5]) = 0", "value [5] expected, 0 found"),
        ("...0.150 read(4, ..., 10) = 10", "read() still waits"),
    ],
)
def test_calls_are_compared(call: str, part: str) -> None:
    fails(OPEN + "+0 " + call, part)


def test_a_call_that_waits_ends_in_time() -> None:
    words = OPEN + "+0...0.200 read(4, ..., 10) = 5\n+{} < P. 1:6(5) ack 1 win 1024\n"
    assert play(words.format(".2")).outcome == PASSED
    fails(words.format(".25"), "read() ended at another time")


def test_errors_are_compared_by_name() -> None:
    end = OPEN + "+0 < R 1:1(0) win 0\n+0 read(4, ..., 10) = -1 "
    assert play(end + "ECONNRESET (Connection reset by peer)").outcome == PASSED
    fails(end + "EPIPE", "-1 ECONNRESET, not -1 EPIPE")


def test_code_sees_the_connection() -> None:
    result = play(OPEN + "+0 %{ print(tcpi_snd_mss); x = 1 }%\n+0 %{ assert x == 1 }%")
    assert (result.outcome, result.output) == (PASSED, "1000\n")
    result = fails(
        OPEN + "\n+0 %{\nassert tcpi_snd_cwnd == 10\nassert tcpi_snd_cwnd == 11, 'no'\n}%"
    )
    assert result.reason == "assert tcpi_snd_cwnd == 11, 'no': no"
    fails(OPEN + "+0 %{ nonsense( }%", "the code is no Python")
    fails(OPEN + "+0 %{ 1 / 0 }%", "ZeroDivisionError")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (OPEN + "+0 setsockopt(4, SOL_TCP, TCP_MD5SIG, [1], 4) = 0", "MD5"),
        (OPEN + "+0 sendmsg(4, {msg_iov(1)=[{..., 4}]}, MSG_ZEROCOPY) = 4", "zero-copy"),
        (OPEN + "+0 splice(4, NULL, 6, NULL, 99, 0) = 99", "system call splice()"),
        (OPEN + "+0 %{ assert tcpi_pacing_rate }%", "does not keep tcpi_pacing_rate"),
        (OPEN + "+0 `iptables -F`", "the shell command `iptables -F`"),
        ("`sysctl -w net.ipv4.tcp_congestion_control=bbr`" + OPEN, "congestion control bbr"),
        ("`sysctl net.ipv4.tcp_what=1`" + OPEN, "sysctl net.ipv4.tcp_what"),
        ("`echo 5 > /proc/sys/net/ipv4/tcp_base_mss`" + OPEN, "sysctl net.ipv4.tcp_base_mss"),
        ("`tc qdisc add dev tun0 root pfifo limit 0`" + OPEN, "drops everything"),
        ("--ip_version=ipv5\n" + OPEN, "--ip_version is ipv4 or"),
        ("--ip_version=ipv6\n--local_ip=192.0.2.7\n" + OPEN, "is none of ipv6"),
        ("--local_ip=fd::1\n" + OPEN, "is none of ipv4"),
        ("--remote_ip=there\n" + OPEN, "is no address"),
        ("--ip_version=ipv6\n0 socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = 3", "socket of IPv4"),
        ("0 socket(AF_UNIX, SOCK_STREAM, 0) = 3", "sockets of AF_UNIX"),
        (
            "0 socket(AF_INET6, SOCK_STREAM, 0) = 3\n+0 setsockopt(3, 41, IPV6_V6ONLY, [1], 4) = 0",
            "IPV6_V6ONLY",
        ),
        ("--ip_version=ipv6\n" + OPEN + "+0 < icmp unreachable frag_needed", "of ICMPv6"),
        (OPEN + "+0 < icmp packet_too_big mtu 1300 [1:2(1)]", "no message of ICMP"),
        ("--wire_client\n" + OPEN, "--wire_client"),
        (OPEN + "+0 write(4, ..., 59000) = 58000", "SO_SNDBUF"),
        ("0 socket(..., SOCK_RAW, IPPROTO_RAW) = 3", "sockets of protocol"),
    ],
)  # fmt: skip
def test_what_linux_alone_has_does_not_apply(words: str, part: str) -> None:
    """Never passed, always with the reason."""
    inapplicable(words, part)


@pytest.mark.parametrize(
    ("setting", "syn_ack"),
    [
        ("tcp_timestamps=0", "<mss 1460,nop,nop,sackOK,nop,wscale 7>"),
        ("tcp_sack=0", "<mss 1460,nop,nop,TS val 1 ecr 7,nop,wscale 7>"),
        ("tcp_window_scaling=0", "<mss 1460,sackOK,TS val 1 ecr 7>"),
        ('tcp_rmem="4096 131072 33554432"', "<mss 1460,sackOK,TS val 1 ecr 7,nop,wscale 10>"),
    ],
)
def test_settings_of_linux_are_settings_here(setting: str, syn_ack: str) -> None:
    words = (
        f"`sysctl -q net.ipv4.{setting}`{LISTEN}"
        "+0 < S 0:0(0) win 32768 <mss 1000,sackOK,TS val 7 ecr 0,nop,wscale 7>\n"
        f"+0 > S. 0:0(0) ack 1 {syn_ack}\n"
    )
    result = play(words)
    assert result.outcome == PASSED, result.reason


def test_packetdrills_defaults() -> None:
    """What its defaults.sh means: 15 MB of buffer, so a scale of 8; no ECN."""
    words = (
        f"`../common/defaults.sh`{LISTEN}"
        "+0 < SEW 0:0(0) win 32768 <mss 1000,sackOK,TS val 7 ecr 0,nop,wscale 7>\n"
        "+0 > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 1 ecr 7,nop,wscale 8>\n"
    )
    result = play(words)
    assert result.outcome == PASSED, result.reason


def test_super_segments_come_with_the_size_of_their_pieces() -> None:
    """RFC 5681 §4.2: then every second of these is acknowledged, not of those that we send."""
    words = "--mss=500\n" + OPEN + "+0 < . 1:5001(5000) ack 1 win 1024\n+0 > . 1:1(0) ack 5001\n"
    result = play(words + "+0 %{ assert tcpi_rcv_mss == 500, tcpi_rcv_mss }%")
    assert result.outcome == PASSED, result.reason


MORE = OPEN + "+0 send(4, ..., 40, MSG_MORE) = 40\n"
CORKED = OPEN + "+0 setsockopt(4, SOL_TCP, TCP_CORK, [1], 4) = 0\n+0 write(4, ..., 40) = 40\n"


@pytest.mark.parametrize(
    "words",
    [
        CORKED + "+.05 setsockopt(4, SOL_TCP, TCP_CORK, [0], 4) = 0\n+0 > P. 1:41(40) ack 1",
        CORKED + "+.05 setsockopt(4, SOL_TCP, TCP_NODELAY, [1], 4) = 0\n+0 > P. 1:41(40) ack 1",
        CORKED + "+.05 write(4, ..., 2000) = 2000\n+0 > P. 1:2001(2000) ack 1",
        CORKED + "+.05 shutdown(4, SHUT_WR) = 0\n+0 > FP. 1:41(40) ack 1",
        CORKED + "+.05 close(4) = 0\n+0 > FP. 1:41(40) ack 1",
        CORKED + "+.3 > P. 1:41(40) ack 1",  # a retransmission timeout, of a round trip of 0.1 s
        MORE + "+.05 write(4, ..., 5) = 5\n+0 > P. 1:46(45) ack 1",
        MORE + "+.3 > P. 1:41(40) ack 1",
        MORE
        + "+.05 sendmsg(4, {msg_iov(1)=[{..., 960}]}, MSG_MORE) = 960\n+0 > . 1:1001(1000) ack 1",
        OPEN
        + """
           +0 send(4, ..., 1040, MSG_MORE) = 1040
           +0 > . 1:1001(1000) ack 1
          +.1 < . 1:1(0) ack 1001 win 1024
           +0 > P. 1001:1041(40) ack 1
        """,
    ],
)
def test_what_lets_octets_past_a_cork(words: str) -> None:
    """tcp(7): the cork's pull, a write without MSG_MORE, a full segment, an ACK, a timeout."""
    result = play(words)
    assert result.outcome == PASSED, result.reason


@pytest.mark.parametrize("words", [MORE, CORKED])
def test_a_cork_holds(words: str) -> None:
    fails(words + "+.05 > P. 1:41(40) ack 1", "when: ")


def test_a_file_is_sent() -> None:
    """What dd made of /dev/zero leaves like any other write."""
    made = "`dd bs=10 count=5 if=/dev/zero of=/tmp/zeros status=none`"
    words = made + OPEN + '+0 open("/tmp/zeros", O_RDONLY) = 5\n+0 sendfile(4, 5, [20], 99) = 30\n'
    result = play(words + '+0 > P. 1:31(30) ack 1\n+0 open("/etc/passwd", O_RDONLY) = -1 ENOENT')
    assert result.outcome == PASSED, result.reason


def test_every_push_of_time_runs_the_timers() -> None:
    """A second SYN,ACK after one second, at its own instant."""
    words = LISTEN + "+0 < S 0:0(0) win 32768 <mss 1000>\n+0 > S. 0:0(0) ack 1 <mss 1460>\n"
    assert play(words + "+3 close(3) = 0\n* > S. 0:0(0) ack 1 <mss 1460>").outcome == PASSED


@pytest.mark.parametrize("version", ["ipv4", "ipv4-mapped-ipv6", "ipv6"])
def test_the_same_script_is_played_over_each_ip(version: str) -> None:
    """RFC 9293 §3.1: TCP is the same on both; marks and hops stand elsewhere in the header."""
    words = OPEN + (
        "+0 < [ce] P. 1:101(100) ack 1 win 1024\n+0 write(4, ..., 100) = 100\n"
        "+0 > [noecn,ttl 64] P. 1:101(100) ack 101\n"
    )
    script = parse(words, "x.pkt")
    result = run_script(script, Choices(ip_version=version))
    assert result.outcome == PASSED, result.reason
    wrong = run_script(parse(words.replace("ttl 64", "ttl 63")), Choices(ip_version=version))
    assert wrong.reason == "ttl: 63 expected, 64 came"


def test_a_listener_of_both_hears_a_peer_of_ipv4() -> None:
    """RFC 4291 §2.5.5.2: a socket of IPv6, its peer's address mapped."""
    words = """
        0 socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP) = 3
       +0 setsockopt(3, SOL_IPV6, IPV6_V6ONLY, [0], 4) = 0
       +0...0.01 connect(3, {sa_family=AF_INET6, sin6_port=htons(80),
                             sin6_addr=inet_pton(AF_INET6, "::ffff:192.0.2.9")}, ...) = 0
       +0 > S 0:0(0) <...>
     +.01 < S. 0:0(0) ack 1 win 1000 <mss 1000>
       +0 > . 1:1(0) ack 1
    """
    result = run_script(parse(words, "x.pkt"), Choices(ip_version="ipv4-mapped-ipv6"))
    assert result.outcome == PASSED, result.reason
    inapplicable("--ip_version=ipv6\n" + words, "is no address of ipv6")


def test_datagrams_and_icmp_over_ipv6() -> None:
    """RFC 4443 §3.1: a datagram for an unused port is told of, with code 4."""
    words = """
        0 socket(..., SOCK_DGRAM, IPPROTO_UDP) = 3
       +0 bind(3, ..., ...) = 0
       +0 < udp 9000 > 8080 (100)
       +0 read(3, ..., 1000) = 100
       +0 < icmp echo_request id 7
       +0 > icmp echo_reply
       +9 < udp 9000 > 8081 (100)
       +0 > icmp unreachable {}
    """
    result = play("--ip_version=ipv6\n" + words.format("port_unreachable"))
    assert result.outcome == PASSED, result.reason
    fails("--ip_version=ipv6\n" + words.format("no_route"), "icmp: 1 0 expected, 1 4 came")


@pytest.mark.parametrize("name", ["packet_too_big", "unreachable packet_too_big"])
def test_a_path_of_ipv6_is_narrow(name: str) -> None:
    """RFC 8201 §4: what was too big leaves again in smaller segments."""
    words = f"""{OPEN.replace("mss 1000", "mss 1460")}
       +0 write(4, ..., 1460) = 1460
       +0 > P. 1:1461(1460) ack 1
     +.01 < icmp {name} mtu 1280 [1:1461(1460)]
       +0 > . 1:1221(1220) ack 1
    """
    result = play("--ip_version=ipv6\n" + words)
    assert result.outcome == PASSED, result.reason


def test_a_name_tells_the_version(tmp_path: Path) -> None:
    """The runner of packetdrill plays what ends in v6.pkt over IPv6 alone."""
    path = tmp_path / "some-v6.pkt"
    path.write_text(OPEN + "+0 < icmp packet_too_big mtu 1280")
    assert run_file(path).outcome == PASSED
    result = run_file(path, Choices(ip_version="ipv4"))
    assert (result.outcome, result.reason) == (NOT_APPLICABLE, "the script is one of ipv6")


# ---------------------------------------------------------------------- the command


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    (tmp_path / "good.pkt").write_text(OPEN)
    (tmp_path / "bad.pkt").write_text(OPEN + "+0 > . 1:1(0) ack 1\n")
    (tmp_path / "other.pkt").write_text("--ip_version=ipv5\n" + OPEN)
    (tmp_path / "wrong.pkt").write_text("0 wrong")
    return tmp_path


def test_the_command_fails_when_a_script_does(
    scripts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fuzz", "script", str(scripts)]) == 1
    said = capsys.readouterr().out
    assert f"{scripts}/good.pkt: passed" in said
    assert f"{scripts}/bad.pkt:10: failed: nothing left" in said
    assert f"{scripts}/other.pkt:0: not applicable: --ip_version is" in said
    assert f"{scripts}/wrong.pkt:1: failed: syntax:" in said
    assert "4 scripts: 1 passed (33 % of the applicable), 2 failed, 1 not applicable" in said


def test_the_command_is_content(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "script", "-q", f"{scripts}/good.pkt", f"{scripts}/other.pkt"]) == 0
    assert capsys.readouterr().out == (
        "2 scripts: 1 passed (100 % of the applicable), 0 failed, 1 not applicable\n"
    )


def test_the_command_plays_over_several(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "script", "--ip-version", "all", f"{scripts}/good.pkt"]) == 0
    said = capsys.readouterr().out
    assert f"{scripts}/good.pkt (ipv4-mapped-ipv6): passed" in said
    assert "3 scripts: 3 passed" in said
    assert main(["fuzz", "script", "-q", "--ip-version", "ipv6", f"{scripts}/bad.pkt"]) == 1
    assert f"{scripts}/bad.pkt:10: failed" in capsys.readouterr().out


def test_the_command_is_misused(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "script", f"{scripts}/none.pkt"]) == 2
    (scripts / "empty").mkdir()
    assert main(["fuzz", "script", f"{scripts}/empty"]) == 2
    assert main(["fuzz", "script", "--define", "X", f"{scripts}/good.pkt"]) == 2
    assert main(["fuzz", "script", "--report", f"{scripts}/no/x", f"{scripts}/good.pkt"]) == 2
    said = capsys.readouterr().err
    assert "none.pkt: No such file" in said
    assert "--define wants NAME=VALUE" in said


def test_reports(scripts: Path) -> None:
    table, site = scripts / "report.md", scripts / "report.html"
    main(["fuzz", "script", "-q", str(scripts), "--report", str(table), "--report", str(site)])
    assert table.read_text().startswith("4 scripts: 1 passed")
    html = site.read_text()
    assert html.startswith("<!doctype html>")
    assert '<tr class="failed">' in html
    assert "<td>not applicable<td>" in html


def test_a_report_escapes_what_scripts_say() -> None:
    result = Result("<b>.pkt", FAILED, 1, "<script>|", "<i>")
    assert "<script>" not in page([result])
    assert "\\|" in text([result])
    assert summary([]) == "0 scripts: 0 passed, 0 failed, 0 not applicable"


def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_file(tmp_path / "none.pkt")
