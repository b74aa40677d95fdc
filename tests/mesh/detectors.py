"""A detector on a bench, in exact times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from atmosphere.mesh.detector import Action, Ask, Detector, Dial, Evidence, Ping, Tell
from atmosphere.mesh.detector_settings import lan
from protocols.probe.messages import ProbeOutcome
from transports.peer_id import PeerId

LAN = lan()
PEERS = [PeerId.from_public_key(bytes([number]) * 32) for number in range(1, 60)]
ME, SUBJECT, *OTHERS = PEERS
ALIVE, SILENT, REFUSED, UNKNOWN = ProbeOutcome


@dataclass
class Bench:
    """Drives a detector: the subject answers while *lives* says so, the others always; vias say what *say* says."""

    others: int = 0
    lives: Callable[[float], bool] = lambda now: True
    say: Callable[[float], ProbeOutcome | None] = lambda now: None
    refuses: bool = False
    log: list[tuple[float, Action]] = field(default_factory=list)
    reports: list[tuple[float, Callable[[float], list[Action]]]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.detector = Detector(ME, LAN, lambda: 0.0)
        for peer in (SUBJECT, *OTHERS[: self.others]):
            self.detector.watch(peer, 0.0)

    def do(self, actions: list[Action], now: float) -> None:
        for action in actions:
            self.log.append((now, action))
            match action:
                case Ping(peer, timeout_s):
                    if peer != SUBJECT or self.lives(now):
                        self.do(self.detector.pong(peer, now), now)
                    else:
                        self.later(now + timeout_s, lambda at, peer=peer: self.detector.missed(peer, at))
                case Ask(via, subject, timeout_s):
                    outcome = self.say(now)
                    self.later(now + timeout_s,
                               lambda at, v=via, s=subject, o=outcome: self.detector.answered(v, s, o, at))
                case Dial(peer, timeout_s):
                    wait = 0.001 if self.refuses else timeout_s
                    self.later(now + wait, lambda at, peer=peer: self.detector.dialled(peer, self.refuses, at))

    def later(self, when: float, report: Callable[[float], list[Action]]) -> None:
        self.reports.append((when, report))

    def run(self, until: float, heard: Callable[[PeerId], float] = lambda peer: -inf) -> None:
        while self.now < until:
            self.do(self.detector.tick(self.now, heard), self.now)
            self.now += LAN.tick_s
            while due := [entry for entry in self.reports if entry[0] <= self.now]:
                entry = min(due, key=lambda entry: entry[0])
                self.reports.remove(entry)
                self.do(entry[1](entry[0]), entry[0])

    def times(self, kind: type, peer: PeerId = SUBJECT) -> list[float]:
        return [now for now, action in self.log if type(action) is kind and getattr(action, "peer", peer) == peer]

    def told(self) -> list[tuple[float, Evidence]]:
        return [(now, action.statement.evidence) for now, action in self.log if isinstance(action, Tell)]


def silent_after(death: float) -> Callable[[float], bool]:
    return lambda now: now < death


def stalled(begin: float, seconds: float) -> Callable[[float], bool]:
    return lambda now: not begin <= now < begin + seconds


def tick(detector: Detector, begin: float, end: float) -> list[tuple[float, Action]]:
    """Ticks alone, nothing is heard."""
    count = int((end - begin) / LAN.tick_s)
    ticks = [begin + number * LAN.tick_s for number in range(count + 1)]
    return [(now, action) for now in ticks for action in detector.tick(now, lambda peer: -inf)]
