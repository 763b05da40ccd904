"""Whatever a peer sends and an application does: no exception, and what must hold holds.

The peer is no scripted one here but a source of segments that are nearly right: numbers around the
edges of what is expected, any flags, any window.  Its octets are a function of their number, so
whatever comes out of the host in their place would show.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.fuzz.damage import corrupted
from appliance.net.seq import MASK, unwrap
from appliance.net.tcb import TcpSettings
from tests.net.tcp.harness import FLAGS, App, Peer, Scene, active, passive

SPAN = 1 << 17  # octets of the stream that the peer may ever send
STREAM = b"".join(n.to_bytes(3) for n in range(SPAN // 3 + 1))
OURS = bytes(range(251)) * 1000

# What is nearly right is what finds faults: most numbers and flags are those of an honest peer.
HONEST = (".", ".", ".", ".", ".", "P.", "P.", "PU.", "W.", "E.")
OPENING = ("S.", "S.", "S.", "S", ".", "R.")
STRANGE = ("F.", "F.", "FP.", "R", "S", "S.", "SE", "SW", "R.", "SF", "")
OFFSETS = (0, 0, 0, 0, 0, 0, -1, 1, -100, 100, 1448, 5000)
CALLS = ("send", "send", "send", "send", "pause", "resume", "resume", "writable")
ENDS = ("shutdown", "shutdown", "close", "abort")


def near(random: Random) -> int:
    """Zero, mostly; else a little off, or anywhere."""
    match random.randrange(20):
        case 0:
            return random.randrange(-(1 << 31), 1 << 31)
        case 1 | 2:
            return random.randrange(-3000, 3000)
        case _:
            return random.choice(OFFSETS)


def event_of(random: Random, state: str) -> dict[str, Any]:
    """What happens next."""
    match random.randrange(100):
        case 0:
            return {"kind": random.choice(ENDS)}
        case n if n < 10:
            return {"kind": "room", "frames": random.choice((0, 1, 3, inf, inf, inf))}
        case n if n < 25:
            seconds = random.choice((0.001, 0.03, 0.03, 0.05, 0.05, 0.3, 0.3, 2))
            return {"kind": "wait", "seconds": seconds}
        case 25:
            return {"kind": "wait", "seconds": random.choice((30, 400))}
        case n if n < 45:
            length = random.choice((1, 10, 1448, 5000, 40_000))
            return {"kind": random.choice(CALLS), "length": length}
    flags = random.choice(OPENING if state == "SYN-SENT" else HONEST)
    if random.randrange(25) == 0:
        flags = random.choice(STRANGE)
    return {
        "kind": "segment",
        "flags": flags,
        "seq": near(random),
        "progress": random.choice((0.0, 0.5, 1.0, 1.0)),  # of what is outstanding
        "ack": near(random),
        "length": random.choice((0, 0, 1, 100, 1448, 1448, 5000)),
        "window": random.choice((0, 8, 1000, 20_000, 1 << 16, 1 << 16, 1 << 18)),
        "age": random.choice((0, 0, 0, 0, 0, 0, 1, -1000, 1000)),
        "sack": [(near(random), near(random)) for _ in range(random.choice((0, 0, 1, 3)))],
        "ce": random.randrange(10) == 0,
    }


openings = st.sampled_from(["passive", "active", "syn-sent", "half-open", "simultaneous"])
choices = st.builds(
    TcpSettings,
    congestion=st.sampled_from(["cubic", "newreno"]),
    nodelay=st.booleans(),
    receive_start=st.sampled_from([1000, 1 << 16]),
    sack=st.booleans(),
    timestamps=st.booleans(),
    keepalive=st.sampled_from([0.0, 20.0]),
    user_timeout=st.sampled_from([0.0, 0.0, 10.0]),
)
scenes = st.builds(
    Scene, gso_max=st.sampled_from([0, 65_535]), now=st.sampled_from([0.0, 1000.0, 3e6])
)
peers = st.fixed_dictionaries(
    {
        "mss": st.sampled_from([None, 1, 536, 1460, 65_535]),
        "wscale": st.sampled_from([None, 0, 3, 14]),
        "sack": st.booleans(),
        "ts": st.booleans(),
        "window": st.sampled_from([0, 1000, 1 << 16]),
    }
)


class Trial:
    """One flow under fire, and what has been learnt about it so far."""

    def __init__(
        self, opening: str, chosen: TcpSettings, options: dict[str, Any], scene: Scene
    ) -> None:
        self.scene = scene
        self.ts = chosen.timestamps
        if opening == "passive":
            _, self.peer, _ = passive(scene=scene, settings=chosen, **options)
        elif opening == "active":
            _, self.peer, _ = active(scene=scene, settings=chosen, **options)
        elif opening == "half-open":
            scene.listen(80, settings=chosen)
            self.peer = Peer(scene, **options)
            self.peer.sends("S")
            self.peer.expects("S.")
        else:
            self.peer = Peer(scene, 80, 4000, **options)
            scene.connect(80, settings=chosen)
            self.peer.expects("S")
            if opening == "simultaneous":
                self.peer.sends("S", seq=0)
                self.peer.nxt = 1
                self.peer.drain()
        self.written = 0
        self.gone = False  # the application has closed
        self.edge = 0  # right edge of the largest window that the peer ever offered, relative
        self.acked = -inf  # last acknowledgment number that left

    @property
    def app(self) -> App | None:
        return self.scene.app() if self.scene.worlds[0].users else None

    @property
    def state(self) -> str:
        return self.app.state if self.app is not None else "LISTEN"

    # -- events

    def happens(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "segment":
            self.segment(event)
        elif kind == "wait":
            self.scene.advance(event["seconds"])
        elif kind == "room":
            for world in self.scene.worlds:
                world.vif.room = event["frames"]
            if event["frames"]:
                self.scene.step(lambda world: world.host.flush(self.scene.now))
        elif self.app is not None:
            self.call(self.app, event)

    def call(self, app: App, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "send":
            try:
                app.send(OURS[self.written : self.written + event["length"]])
            except ValueError:
                return  # after shutdown, as documented
            if app.state != "CLOSED":
                self.written += len(OURS[self.written : self.written + event["length"]])
        elif kind == "writable":
            if not self.gone:
                app.do(lambda c: setattr(c, "notify_below", 1000))
        else:
            self.gone = self.gone or kind in ("close", "abort")
            app.do(lambda c: getattr(c, kind)())

    def segment(self, event: dict[str, Any]) -> None:
        peer, app = self.peer, self.app
        nxt, una, out = 1, 1, 1
        if app is not None and app.connection.irs:
            c = app.connection
            peer.isn = c.irs & MASK  # in SYN-SENT any SYN of ours may have become the first
            nxt, una, out = c.rcv_nxt - c.irs, c.snd_una - c.iss, c.snd_nxt - c.iss
        flags = "".join(f for f in FLAGS if f in event["flags"])
        if app is not None and app.state == "CLOSED":
            flags = flags.replace("S", "")  # the listener would open another connection
        # Before there is a connection, its numbers begin where the first SYN said.
        seq = 0 if app is None and "S" in flags else nxt + event["seq"]
        length = event["length"] if 0 < seq < SPAN - 5000 and "S" not in flags else 0
        ack = una + int((out - una) * event["progress"]) + event["ack"]
        stamp = ((peer.clock + event["age"]) & MASK, peer.echo) if self.ts and peer.ts else None
        peer.sends(
            flags,
            seq=seq,
            ack=ack,
            data=STREAM[seq - 1 : seq - 1 + length],
            window=event["window"],
            ts=stamp,
            sack=[(una + a, una + b) for a, b in event["sack"]][: 3 if stamp else 4],
            dscp_ecn=3 if event["ce"] else 0,
        )

    # -- what must hold

    def check(self) -> None:
        app, peer = self.app, self.peer
        heard = peer.drain()
        for s in heard:
            at = s.seq - 1
            if s.data:
                assert s.data == OURS[at : at + len(s.data)], "an octet moved"
        if app is None:
            assert all(not s.data for s in heard)
            return
        c = app.connection
        assert STREAM.startswith(app.data)
        if app.state == "CLOSED":
            # What closed it may have been answered, or announced, in the same step.
            assert self.closing or all("R" in s.flags for s in heard)
            self.closing = bool(c.path.neighbor.queue)  # it may still wait for its neighbour
            assert c.next_deadline() == inf
            return
        assert c.iss <= c.snd_una <= c.snd_nxt <= c.iss + 1 + self.written + 1
        assert c.unsent >= 0
        self.edge = max(self.edge, c.snd_una + c.snd_wnd)
        assert c.snd_nxt <= self.edge + 1, "beyond the window"
        if app.state in ("SYN-SENT", "SYN-RECEIVED"):
            assert c.next_deadline() < inf or self.scene.host.blocked()
            return
        assert c.rcv_nxt <= c.rcv_adv
        assert c.memory() <= c.rcv_buffer + (1 << c.rcv_wscale) + self.written
        for s in heard:
            if "." in s.flags and "R" not in s.flags:
                acked = s.ack + unwrap(peer.isn, c.irs) - c.irs
                assert acked >= self.acked, "an acknowledgment was taken back"
                self.acked = acked
        if app.state == "TIME-WAIT":
            assert c.next_deadline() == inf
        elif self.scene.host.blocked():
            return  # the driver will call when the link is writable
        elif c.snd_una < c.snd_nxt or c.unsent:
            assert c.next_deadline() < inf, "something is outstanding and nothing will wake"

    closing = True  # the segment that closed may have left in the same step

    def rest(self) -> None:
        """Left alone, whatever is idle sets no timer, and the rest ends."""
        self.happens({"kind": "room", "frames": inf})
        self.check()
        app = self.app
        if app is None or app.state in ("CLOSED", "TIME-WAIT"):
            return
        c = app.connection
        if c.snd_una == c.snd_nxt and not c.unsent and c.state >= 4:
            self.scene.advance(1.0)
            keeps = app.state == "FIN-WAIT-2" or c._settings.keepalive
            if c.snd_una == c.snd_nxt and not keeps:
                assert c.next_deadline() == inf
        else:
            self.scene.advance(100_000.0)
            assert app.state in ("CLOSED", "TIME-WAIT") or c.snd_una == c.snd_nxt
        self.check()


@settings(max_examples=100)
@given(
    openings,
    choices,
    peers,
    scenes,
    st.integers(0, 1 << 32),
    st.integers(1, 120).map(lambda n: n + 40),
)
def test_anything_at_any_time(
    opening: str,
    chosen: TcpSettings,
    options: dict[str, Any],
    scene: Scene,
    seed: int,
    steps: int,
) -> None:
    """RFC 9293 §3.10: every event has an answer in every state; both paths give the same."""
    trial = Trial(opening, chosen, options, scene)
    trial.check()
    random = Random(seed)
    while (steps := steps - 1) > 0:
        trial.happens(event_of(random, trial.state))
        trial.check()
        if trial.state == "CLOSED":
            steps = min(steps, 5)
    trial.rest()


@given(st.data())
def test_any_octets_behind_a_good_ip_header(data: st.DataObject) -> None:
    """RFC 9293 §3.1: garbage is counted and dropped; the connection does not notice."""
    scene, peer, app = passive()
    whole = peer.frame("P.", seq=1, data=b"whole")
    cut = data.draw(st.integers(20, 60))
    noise = data.draw(st.binary(min_size=cut, max_size=cut))
    frame = bytearray(whole)
    at = data.draw(st.integers(38, len(whole) - 1))
    frame[at : at + cut] = noise[: len(frame[at : at + cut])]
    frame[0] = data.draw(st.sampled_from([0, 1, 2]))
    scene.receive(bytes(frame))
    scene.receive(bytes(frame[: data.draw(st.integers(0, len(frame)))]))
    assert app.state in ("ESTABLISHED", "CLOSE-WAIT", "CLOSED")


@given(st.randoms(use_true_random=False))
def test_a_flipped_bit_is_noticed(random: Any) -> None:
    """RFC 9293 §3.1 MUST-3, RFC 1122 §3.2.1.2: the sums catch every single bit."""
    scene, peer, app = passive()
    before = scene.host.counters.as_dict()
    damaged = corrupted(peer.frame("P.", seq=1, data=b"whole"), random)
    assert damaged is not None
    scene.receive(damaged)
    assert app.data == b""
    after = scene.host.counters.as_dict()
    changed = {name for name in after if after[name] != before[name]} - {"frames_in", "frames_out"}
    assert changed, "dropped without being counted"
