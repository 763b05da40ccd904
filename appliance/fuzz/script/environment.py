"""The shell commands of a script, as far as they mean something to one host in one process.

Scripts set up Linux by sysctl, tc, ethtool and ip.  What such a setting means is put into
`TcpSettings` here; what only shapes Linux's own packets of packets (segmentation offload, pacing
of a queueing discipline that is never asked for its timing) changes nothing; everything else makes
the script not applicable, with the reason.  No command is ever run.

The defaults are those of packetdrill's `defaults.sh`: what its scripts believe of their host.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Final

from appliance.fuzz.script.faults import InapplicableError, MismatchError
from appliance.net.tcb import TcpSettings

_KNOWS: Final = frozenset(f.name for f in fields(TcpSettings))
_OPERATORS: Final = frozenset((";", "&&", "||", "|", "&", "\n"))
# Linux's names of counters that scripts look at, and ours.
_NSTAT: Final = {"TcpExtOutOfWindowIcmps": "icmp_ignored"}
FIRST_WINDOW: Final = 65_535  # octets that Linux's SYN offers, whatever tcp_rmem's middle value


@dataclass
class Environment:
    """The host as its script has set it up."""

    tcp: TcpSettings = field(default_factory=TcpSettings)
    paced: bool = False  # the fq discipline would space our packets
    sndbuf: int = 0  # octets, of tcp_wmem's middle value
    files: dict[str, int] = field(default_factory=dict)  # octets of nought, by path
    fast_open: int = 1  # tcp_fastopen, in Linux's bits
    fast_keys: tuple[bytes, ...] = ()  # tcp_fastopen_key
    forgotten: int = 0  # how often what is known of servers was forgotten
    counters: Callable[[], dict[str, int]] | None = None  # the host's, for nstat
    _seen: dict[str, int] = field(default_factory=dict)  # when nstat looked last, ...
    _grown: dict[str, int] = field(default_factory=dict)  # ... and what it showed

    @property
    def fast_open_connects(self) -> bool:
        """Whether a client may open fast (RFC 7413)."""
        return bool(self.fast_open & 1)

    @property
    def fast_open_serves(self) -> bool:
        """Whether a listener may that asks for it."""
        return bool(self.fast_open & 2)

    @property
    def fast_open_without_cookies(self) -> bool:
        """Whether a client sends data without having a cookie."""
        return bool(self.fast_open & 4)

    @property
    def serves_every_listener(self) -> bool:
        """Whether every listener takes data of a SYN, asked or not."""
        return self.fast_open & 0x402 == 0x402

    def run(self, text: str) -> None:
        """Take in the commands of one pair of backquotes; raises InapplicableError."""
        for words in _commands(text):
            self._one(words)

    def _one(self, words: list[str]) -> None:
        words, target = _redirected(words)
        if not words:
            return
        name = words[0].rpartition("/")[2]
        rest = words[1:]
        if name == "defaults.sh":
            self._defaults()
        elif name in ("set_sysctls.py", "sysctl"):
            for word in rest:
                if not word.startswith("-"):
                    self._sysctl(*_setting(word))
        elif name == "echo" and target:
            self._sysctl(_dotted(target), " ".join(rest))
        elif name == "tc":
            self._discipline(rest)
        elif name == "nstat" and not rest:
            self._grown = self._look()
        elif name == "grep" and len(rest) == 1 and rest[0] in _NSTAT:
            self._grep(rest[0])
        elif name == "ethtool" and rest[:1] == ["-K"]:
            pass  # segments are compared octet by octet, however they are packed
        elif name == "ip" and rest[:1] == ["tcp_metrics"]:
            self.forgotten += "flush" in rest
        elif name == "dd":
            self._zeros(dict(word.partition("=")[::2] for word in rest))
        elif name.startswith("sysctl_restore_") or name in ("rm", "true", ":"):
            pass
        else:
            raise InapplicableError(f"the shell command `{' '.join(words)}` means nothing here")

    def _grep(self, name: str) -> None:
        """A counter that nstat shows, which it does when it has moved; raises MismatchError."""
        if self.counters is not None and not self._grown.get(_NSTAT[name]):
            raise MismatchError(f"the counter {name} has not moved since nstat looked last")

    def _look(self) -> dict[str, int]:
        """By how much each counter has grown since this was called last, as nstat shows it."""
        before, self._seen = self._seen, self.counters() if self.counters is not None else {}
        return {name: value - before.get(name, 0) for name, value in self._seen.items()}

    def _zeros(self, words: dict[str, str]) -> None:
        """`dd if=/dev/zero of=FILE bs=N count=M`: a file that a script may send."""
        sizes = (words.get("bs", "512"), words.get("count", ""))
        if words.get("if") != "/dev/zero" or not all(size.isdecimal() for size in sizes):
            raise InapplicableError("of dd's files only those of noughts are there")
        self.files[words.get("of", "")] = int(sizes[0]) * int(sizes[1])

    def _defaults(self) -> None:
        self.tcp = replace(
            self.tcp,
            receive_buffer=15 << 20,
            receive_start=FIRST_WINDOW,
            timestamps=True,
            sack=True,
            ecn=False,
            ecn_request=False,
            congestion="cubic",
        )
        self.sndbuf = 256 << 10
        self.fast_open = 0x70403
        _fast_open_key(self, "a1a1a1a1-b2b2b2b2-c3c3c3c3-d4d4d4d4")
        _syn_retries(self, "5")
        self._choose("slow_start_after_idle", False)

    def _choose(self, name: str, value: object) -> None:
        """Set a field of the stack's settings that older stacks lack."""
        if name in _KNOWS:
            self.tcp = replace(self.tcp, **{name: value})  # type: ignore[arg-type]

    def _sysctl(self, name: str, value: str) -> None:
        short = name.removeprefix("net.ipv4.")
        if short in _NO_MEANING:
            return
        if short in _AS_IT_IS:
            if value not in _AS_IT_IS[short]:
                raise InapplicableError(f"{name}={value}: the stack has no such choice")
            return
        handler = _SYSCTLS.get(short)
        if "hystart" in short:
            raise InapplicableError(f"{name}: the stack has HyStart++ (RFC 9406), not HyStart")
        if handler is None:
            raise InapplicableError(f"the sysctl {name} means nothing here")
        try:
            handler(self, value)
        except ValueError:
            raise InapplicableError(f"{name}={value} means nothing here") from None

    def _discipline(self, words: list[str]) -> None:
        """`tc qdisc add|replace dev tun0 root KIND [limit N]`."""
        if "limit" in words and words[words.index("limit") + 1 :][:1] == ["0"]:
            raise InapplicableError(
                "a queueing discipline that drops everything is Linux's own affair"
            )
        if "fq" in words:
            self.paced = True
        elif "pfifo" in words or "del" in words or "delete" in words:
            self.paced = False
        else:
            raise InapplicableError(f"`tc {' '.join(words)}` means nothing here")


def _commands(text: str) -> list[list[str]]:
    """The simple commands in a piece of shell, as words."""
    text = text.replace("\\\n", " ")
    found: list[list[str]] = []
    for line in text.split("\n"):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|>")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words: list[str] = []
        try:
            tokens = list(lexer)
        except ValueError as error:
            raise InapplicableError(f"the shell command `{line.strip()}`: {error}") from None
        for word in [*tokens, ";"]:
            if word in _OPERATORS:
                if words:
                    found.append(words)
                words = []
                if word == "||":
                    break  # what follows runs when the first fails, and here none does
            else:
                words.append(word)
    return found


def _redirected(words: list[str]) -> tuple[list[str], str]:
    """A command without its redirections, and where its output goes."""
    kept: list[str] = []
    target = ""
    skip = False
    for i, word in enumerate(words):
        if skip:
            skip = False
        elif word in (">", ">>", ">&", "&>"):
            if kept and kept[-1] in ("1", "2"):
                kept.pop()
            elif i + 1 < len(words):
                target = words[i + 1]
            skip = True
        else:
            kept.append(word)
    return kept, target


def _dotted(path: str) -> str:
    return path.removeprefix("/proc/sys/").strip("/").replace("/", ".")


def _setting(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return _dotted(name), value.strip()


def _whole(value: str) -> int:
    return int(value, 0)


def _rmem(at: Environment, value: str) -> None:
    largest = int(value.rsplit(maxsplit=1)[-1])
    at.tcp = replace(at.tcp, receive_buffer=largest, receive_start=FIRST_WINDOW)


def _wmem(at: Environment, value: str) -> None:
    at.sndbuf = int(value.split()[1])


def _congestion(at: Environment, value: str) -> None:
    named = {"cubic": "cubic", "reno": "newreno"}.get(value)
    if named is None:
        raise InapplicableError(f"the congestion control {value} is not there")
    at.tcp = replace(at.tcp, congestion=named)


def _ecn(at: Environment, value: str) -> None:
    chosen = _whole(value)
    if chosen not in (0, 1, 2):
        raise InapplicableError(f"tcp_ecn={value}: accurate ECN is not there")
    at.tcp = replace(at.tcp, ecn=chosen > 0, ecn_request=chosen == 1)


def _timestamps(at: Environment, value: str) -> None:
    at.tcp = replace(at.tcp, timestamps=_whole(value) != 0)


def _sack(at: Environment, value: str) -> None:
    at.tcp = replace(at.tcp, sack=_whole(value) != 0)


def _scaling(at: Environment, value: str) -> None:
    at.tcp = replace(at.tcp, window_scaling=_whole(value) != 0)


def _idle(at: Environment, value: str) -> None:
    wanted = _whole(value) != 0
    if "slow_start_after_idle" not in _KNOWS and not wanted:
        raise InapplicableError("slow start after idle cannot be switched off")
    at._choose("slow_start_after_idle", wanted)


def _tail_probe(at: Environment, value: str) -> None:
    wanted = _whole(value) in (3, 4)
    if "tail_probe" not in _KNOWS and not wanted:
        raise InapplicableError("the tail loss probe cannot be switched off")
    at._choose("tail_probe", wanted)


def _keepalive(name: str) -> Callable[[Environment, str], None]:
    def apply(at: Environment, value: str) -> None:
        number = _whole(value)
        at.tcp = replace(at.tcp, **{name: number if name.endswith("count") else float(number)})  # type: ignore[arg-type]

    return apply


def _fast_open(at: Environment, value: str) -> None:
    at.fast_open = _whole(value)
    at.tcp = replace(at.tcp, fast_open_cookies=not at.fast_open & 0x200)


def _fast_open_key(at: Environment, value: str) -> None:
    """One key or two, each as four words of the machine: `0a1b2c3d-...` (RFC 7413 §4.1.2)."""
    keys = []
    for text in value.split(","):
        words = text.strip().split("-")
        if len(words) != 4:
            raise ValueError(text)
        keys.append(b"".join(int(word, 16).to_bytes(4, "little") for word in words))
    at.fast_keys = tuple(keys)


def _fast_open_cookies(at: Environment, value: str) -> None:
    """How many servers older kernels remembered: none, for a moment, makes them forget."""
    if _whole(value) == 0:
        at.forgotten += 1


def _syn_retries(at: Environment, value: str) -> None:
    at.tcp = replace(at.tcp, syn_retries=_whole(value))


def _lowat(at: Environment, value: str) -> None:
    if _whole(value) != 0xFFFF_FFFF:
        raise InapplicableError("tcp_notsent_lowat bounds Linux's send buffer")


_SYSCTLS: Final[dict[str, Callable[[Environment, str], None]]] = {
    "tcp_congestion_control": _congestion,
    "tcp_early_retrans": _tail_probe,
    "tcp_ecn": _ecn,
    "tcp_fastopen": _fast_open,
    "tcp_fastopen_cookies": _fast_open_cookies,
    "tcp_fastopen_key": _fast_open_key,
    "tcp_keepalive_intvl": _keepalive("keepalive_interval"),
    "tcp_keepalive_probes": _keepalive("keepalive_count"),
    "tcp_notsent_lowat": _lowat,
    "tcp_rmem": _rmem,
    "tcp_sack": _sack,
    "tcp_slow_start_after_idle": _idle,
    "tcp_syn_retries": _syn_retries,
    "tcp_timestamps": _timestamps,
    "tcp_window_scaling": _scaling,
    "tcp_wmem": _wmem,
}
# What the stack always does; another value asks for what it cannot do.
_AS_IT_IS: Final = {
    "tcp_dsack": ("1",),
    "tcp_frto": ("1", "2"),
    "tcp_recovery": ("1",),
    "tcp_reordering": ("3",),
    "tcp_synack_retries": ("5",),
    "tcp_syncookies": ("1", "2"),
}
# How Linux packs octets into super-segments, spaces them, and options that are never used.
_NO_MEANING: Final = frozenset(
    (
        "tcp_ecn_option",
        "tcp_fack",
        "tcp_fastopen_blackhole_timeout_sec",
        "tcp_min_tso_segs",
        "tcp_pacing_ca_ratio",
        "tcp_pacing_ss_ratio",
        "tcp_tso_win_divisor",
    )
)
