"""From the tree of a script to its events: one method for each rule of the grammar.

What the grammar cannot say (a port has 16 bits, an acknowledgment needs its flag) is checked here.
It imports lark and the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lark import Token, Transformer, Tree, v_args

from appliance.fuzz.script import events as e

MICRO: Final = 1_000_000  # microseconds in a second
MAX_PAYLOAD: Final = 65_535  # octets: no IP packet is longer


class ScriptError(Exception):
    """A script cannot be read: where, and why."""

    def __init__(self, path: str, line: int, column: int, message: str) -> None:
        super().__init__(f"{path}:{line}:{column}: {message}")
        self.path, self.line, self.column, self.message = path, line, column, message


def read(tree: Tree[Any], text: str, path: str, definitions: Mapping[str, str]) -> e.Script:
    """The events of a tree; raises lark's VisitError around a ScriptError."""
    script: e.Script = _Reader(text, path, definitions).transform(tree)
    return script


@v_args(inline=True)
class _Reader(Transformer[Token, Any]):
    """Each method makes the value of the rule that it is named after."""

    def __init__(self, text: str, path: str, definitions: Mapping[str, str]) -> None:
        super().__init__(visit_tokens=False)
        self._text, self._path, self._definitions = text, path, definitions

    def _fail(self, token: Token, message: str) -> ScriptError:
        return ScriptError(self._path, token.line or 1, token.column or 1, message)

    # -- the file

    @v_args(inline=False, tree=True)
    def start(self, tree: Tree[Any]) -> e.Script:
        child: Any
        options: dict[str, str] = {}
        commands: list[tuple[e.Command, e.Place]] = []
        found: list[e.Event] = []
        setup: tuple[e.Command, e.Place] | None = None
        for child in tree.children:
            if child is None:
                continue
            if isinstance(child, e.Event):
                found.append(child)
                if commands and setup is None:
                    setup = commands.pop()
            elif isinstance(child, tuple) and isinstance(child[0], e.Command):
                commands.append(child)
            else:
                options[child[0]] = child[1]
        cleanup = commands[0][0] if commands else None
        return e.Script(self._path, self._text, options, setup, tuple(found), cleanup)

    def option(self, token: Token) -> tuple[str, str]:
        name, _, value = str(token)[2:].partition("=")
        return name, value.strip('"')

    @v_args(inline=False, tree=True)
    def event(self, tree: Tree[Any]) -> e.Event:
        parts: list[Any] = tree.children
        when, action = parts
        if isinstance(action, tuple):
            action = action[0]
        place = e.Place(tree.meta.line, tree.meta.column)
        return e.Event(when, action, place, tree.meta.end_line)

    def relative(self, at: int) -> e.When:
        return e.When("relative", at)

    def absolute(self, at: int) -> e.When:
        return e.When("absolute", at)

    def any_time(self) -> e.When:
        return e.When("any")

    def absolute_range(self, at: int, until: int) -> e.When:
        return e.When("absolute", at, until)

    def relative_range(self, at: int, until: int) -> e.When:
        return e.When("relative", at, until)

    def seconds(self, token: Token) -> int:
        if token.startswith("-"):
            raise self._fail(token, "a time is not negative")
        return round(float(token) * MICRO)

    def command(self, token: Token) -> tuple[e.Command, e.Place]:
        return e.Command(str(token)[1:-1]), e.Place(token.line or 1, token.column or 1)

    def code(self, token: Token) -> e.Code:
        return e.Code(str(token)[2:-2].strip(" \t"))

    # -- packets

    def arrives(self) -> bool:
        return True

    def leaves(self) -> bool:
        return False

    def segment(
        self,
        arrives: bool,
        ip: e.IpInfo | None,
        ports: tuple[int, int] | None,
        flags: tuple[str, Token | None],
        sequence: tuple[int, int, int, Token],
        ack: int | None,
        window: int | None,
        urgent: int | None,
        options: Any,
    ) -> e.Segment:
        seq, end, length, token = sequence
        letters = flags[0]
        if end - seq != length:
            raise self._fail(token, f"{seq}:{end} are {end - seq} octets, not {length}")
        if not 0 <= length <= MAX_PAYLOAD:
            raise self._fail(token, f"{length} octets do not fit into a packet")
        if ack is not None and "." not in letters:
            raise self._fail(token, 'an acknowledgment needs the "." flag')
        if "." in letters and ack is None and not arrives:
            raise self._fail(token, 'the "." flag needs an acknowledgment ("ack N")')
        chosen = () if options is None else options
        if chosen == "any":
            if arrives:
                raise self._fail(token, "<...> is for segments that are expected")
            chosen = None
        info = ip or e.NO_IP_INFO
        return e.Segment(
            arrives, letters, seq, end, length, ack, window, urgent or 0, chosen, info, ports
        )

    def datagram(
        self, arrives: bool, ip: e.IpInfo | None, ports: tuple[int, int] | None, length: Token
    ) -> e.Datagram:
        if not 0 <= int(length) <= MAX_PAYLOAD:
            raise self._fail(length, f"{length} octets do not fit into a packet")
        return e.Datagram(arrives, int(length), ip or e.NO_IP_INFO, ports)

    def icmp(
        self,
        arrives: bool,
        ip: e.IpInfo | None,
        kind: Token,
        code: Token | None,
        mtu: int | None,
        ident: int | None,
        echoed: tuple[str, tuple[int, ...]] | None,
    ) -> e.Icmp:
        named = None if code is None else self._definitions.get(code, str(code))
        return e.Icmp(arrives, str(kind), named, mtu, ident, echoed, ip or e.NO_IP_INFO)

    @v_args(inline=False)
    def ip_info(self, fields: list[dict[str, Any]]) -> e.IpInfo:
        merged: dict[str, Any] = {}
        for field in fields:
            merged.update(field)
        return e.IpInfo(**merged)

    def noecn(self) -> dict[str, Any]:
        return {"ecn": "noecn"}

    def ect0(self) -> dict[str, Any]:
        return {"ecn": "ect0"}

    def ect1(self) -> dict[str, Any]:
        return {"ecn": "ect1"}

    def ect01(self) -> dict[str, Any]:
        return {"ecn": "ect01"}

    def ce(self) -> dict[str, Any]:
        return {"ecn": "ce"}

    def tos(self, token: Token) -> dict[str, Any]:
        return {"tos": int(token, 16)}

    def ttl(self, token: Token) -> dict[str, Any]:
        return {"ttl": int(token)}

    def flowlabel(self, token: Token) -> dict[str, Any]:
        return {"flow_label": int(token, 16)}

    def ports(self, source: Token, destination: Token) -> tuple[int, int]:
        for token in (source, destination):
            if not 0 < int(token) < 65_536:
                raise self._fail(token, f"{token} is not a port")
        return int(source), int(destination)

    def flags_ack(self, letters: Token) -> tuple[str, Token | None]:
        return self._letters(letters) + ".", letters

    def flags_only(self, letters: Token) -> tuple[str, Token | None]:
        return self._letters(letters), letters

    def flags_bare_ack(self) -> tuple[str, Token | None]:
        return ".", None

    def flags_none(self) -> tuple[str, Token | None]:
        return "", None

    def _letters(self, token: Token) -> str:
        unknown = "".join(sorted(set(token) - set("FSRPUEWA")))
        if unknown:
            raise self._fail(token, f"{unknown!r} is no TCP flag; F S R P . U E W are")
        if len(set(token)) < len(token):
            raise self._fail(token, f"a flag stands twice in {str(token)!r}")
        return str(token)

    def sequence(self, start: Token, end: Token, length: Token) -> tuple[int, int, int, Token]:
        return int(start), int(end), int(length), start

    def ack(self, token: Token) -> int:
        return int(token)

    def window(self, token: Token) -> int:
        if not 0 <= int(token) < 65_536:
            raise self._fail(token, f"the window field has 16 bits; {token} does not fit")
        return int(token)

    def urgent(self, token: Token) -> int:
        return int(token)

    def any_options(self, _: Token) -> str:
        return "any"

    @v_args(inline=False)
    def tcp_options(self, options: list[e.TcpOption]) -> tuple[e.TcpOption, ...]:
        return tuple(options)

    def option_nop(self) -> e.TcpOption:
        return e.TcpOption("nop")

    def option_eol(self) -> e.TcpOption:
        return e.TcpOption("eol")

    def option_mss(self, token: Token) -> e.TcpOption:
        return e.TcpOption("mss", (self._bounded(token, 16),))

    def option_wscale(self, token: Token) -> e.TcpOption:
        return e.TcpOption("wscale", (self._bounded(token, 8),))

    def option_sack_ok(self) -> e.TcpOption:
        return e.TcpOption("sackOK")

    @v_args(inline=False)
    def option_sack(self, blocks: list[tuple[int, int]]) -> e.TcpOption:
        return e.TcpOption("sack", tuple(number for block in blocks for number in block))

    def option_timestamp(self, value: Token, echo: Token) -> e.TcpOption:
        return e.TcpOption("TS", (self._bounded(value, 32), self._bounded(echo, 32)))

    def option_md5(self, token: Token) -> e.TcpOption:
        return e.TcpOption("md5", blob=self._blob(token))

    def option_fast_open(self, token: Token | None) -> e.TcpOption:
        return e.TcpOption("FO", blob=self._blob(token) if token else b"")

    def option_fast_open_experimental(self, token: Token | None) -> e.TcpOption:
        return e.TcpOption("FOEXP", blob=self._blob(token) if token else b"")

    def _blob(self, token: Token) -> bytes:
        try:
            return bytes.fromhex(self._definitions.get(token, token))
        except ValueError:
            raise self._fail(token, f"{str(token)!r} is not hexadecimal") from None

    def _bounded(self, token: Token, bits: int) -> int:
        if not 0 <= int(token) < 1 << bits:
            raise self._fail(token, f"{token} does not fit into {bits} bits")
        return int(token)

    def block(self, left: Token, right: Token) -> tuple[int, int]:
        return int(left), int(right)

    def mtu(self, token: Token) -> int:
        return int(token)

    def echo_id(self, token: Token) -> int:
        return int(token)

    def echoed_tcp(self, sequence: tuple[int, int, int, Token]) -> tuple[str, tuple[int, ...]]:
        return "tcp", sequence[:3]

    def echoed_udp(self, length: Token) -> tuple[str, tuple[int, ...]]:
        return "udp", (int(length),)

    def echoed_raw(self, length: Token) -> tuple[str, tuple[int, ...]]:
        return "raw", (int(length),)

    # -- system calls

    def call(
        self,
        until: int | None,
        name: str,
        arguments: tuple[e.Value, ...] | None,
        result: tuple[e.Value, str | None],
    ) -> e.Call:
        return e.Call(name, arguments or (), result[0], result[1], until)

    def until(self, _: Token, seconds: int) -> int:
        return seconds

    def result(self, value: e.Value, errno: str | None, note: object) -> tuple[e.Value, str | None]:
        return value, errno

    def errno(self, token: Token) -> str:
        return str(token)

    @v_args(inline=False)
    def note(self, words: list[str]) -> str:
        return " ".join(words)

    @v_args(inline=False, tree=True)
    def word(self, tree: Tree[Any]) -> str:
        if tree.children:
            return str(tree.children[0])
        return self._text[tree.meta.start_pos : tree.meta.end_pos]

    @v_args(inline=False)
    def arguments(self, values: list[e.Value]) -> tuple[e.Value, ...]:
        return tuple(values)

    def assigned(self, key: e.Value, value: e.Value) -> e.Assigned:
        return e.Assigned(key, value)

    def either(self, left: e.Value, right: e.Value) -> e.Either:
        return e.Either(left, right)

    def number(self, token: Token) -> int:
        return int(token, 16 if token.startswith("0x") else 10)

    def fraction(self, token: Token) -> float:
        return float(token)

    def whatever(self, _: Token) -> e.Whatever:
        return e.WHATEVER

    def symbol(self, token: Token) -> e.Symbol:
        return e.Symbol(self._definitions.get(token, str(token)))

    def applied(self, token: Token, arguments: tuple[e.Value, ...] | None) -> e.Applied:
        return e.Applied(str(token), arguments or ())

    def array(self, members: tuple[e.Value, ...] | None) -> e.Array:
        return e.Array(members or ())

    def structure(self, members: tuple[e.Value, ...] | None) -> e.Structure:
        return e.Structure(members or ())

    @v_args(inline=False)
    def string(self, tokens: list[Token]) -> str:
        return "".join(str(token)[1:-1] for token in tokens if token.type == "STRING")
