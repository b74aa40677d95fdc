"""The failure detector under any events in any order."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from atmosphere.mesh.detector import Action, Alive, Ask, Dead, Detector, Evidence, Ping, Statement, Suspect
from atmosphere.mesh.detector_links import PINGED
from protocols.probe.messages import ProbeOutcome
from tests.mesh.detectors import LAN, ME, PEERS
from transports.peer_id import PeerId

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["tick", "tick", "tick", "hear", "lost", "watch", "unwatch", "failed", "pong", "missed",
                         "dialled", "answered", "stated", "proof", "forget", "stall"]),
        st.integers(1, 5), st.integers(1, 5), st.integers(0, 4),
    ),
    max_size=150,
)


@settings(deadline=None, max_examples=150)
@given(EVENTS)
def test_invariants(events: list[tuple[str, int, int, int]]) -> None:
    """Whatever happens in whatever order: no death within 2 s of bytes, one action of a kind per peer, sound states."""
    detector = Detector(ME, LAN, lambda: 0.5)
    now, heard = 0.0, dict.fromkeys(PEERS[:8], -inf)
    connected: set[PeerId] = set()
    believed: dict[PeerId, type] = {}
    for kind, one, other, number in events:
        peer, via = PEERS[one], PEERS[other]
        actions: list[Action] | None = []
        match kind:
            case "tick":
                now += LAN.tick_s
                actions = detector.tick(now, heard.__getitem__)
            case "stall":
                now += 7.0
            case "hear":
                heard[peer] = now if peer in connected else -inf
            case "watch":
                connected.add(peer)
                heard[peer] = now
                actions = detector.watch(peer, now)
            case "lost":
                connected.discard(peer)
                actions = detector.lost(peer, now)
            case "unwatch":
                connected.discard(peer)
                believed.pop(peer, None)
                detector.unwatch(peer, now)
            case "forget":
                connected.discard(peer)
                believed.pop(peer, None)
                detector.forget(peer)
            case "failed":
                actions = detector.failed(peer, "broke", now)
            case "pong":
                actions = detector.pong(peer, now)
                heard[peer] = now if peer in connected else -inf
            case "missed":
                actions = detector.missed(peer, now)
            case "dialled":
                actions = detector.dialled(peer, number % 2 == 0, now)
            case "answered":
                actions = detector.answered(via, peer, ProbeOutcome(number) if number else None, now)
            case "stated":
                evidence = Evidence.REFUSED if number % 2 else Evidence.SILENT
                actions = detector.stated(Statement(peer, (1, number), evidence), via, now)
            case "proof":
                actions = detector.proof(peer, (1, number) if number else None, now)
        told = [(type(action), getattr(action, "peer", None), getattr(action, "via", None)) for action in actions]
        assert len(told) == len(set(told))
        assert sum(isinstance(action, Ping) for action in actions) <= PINGED
        for action in actions:
            match action:
                case Dead(dead, _):
                    assert not (dead in connected and now - heard[dead] < 2.0)
                    assert believed.get(dead) is not Dead
                    believed[dead] = Dead
                case Suspect(suspect, _):
                    assert suspect not in believed
                    believed[suspect] = Suspect
                case Alive(alive):
                    assert believed.pop(alive) in (Suspect, Dead)
                case Ping(pinged, _):
                    assert pinged in connected
                case Ask(asked, subject, _):
                    assert asked in connected
                    assert asked != subject
    assert len(detector._links) == len(connected)
