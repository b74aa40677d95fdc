"""The numbers of the failure detector: one preset per kind of network, each number with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """What the detector waits for. Times are seconds."""

    tick_s: float
    """How often :meth:`Detector.tick` is called."""
    ping_s: float
    """A neighbour of whom nothing was heard for so long is pinged."""
    ping_timeout_s: float
    ask_timeout_s: float
    """For an indirect ping: there, from there to the subject, and back."""
    indirect: int
    """Others asked per round, and the confirmations that shorten the wait to its minimum (Lifeguard's k)."""
    fresh_s: float
    """Own proof of life not older than this outweighs whatever others say."""
    tell_after_s: float
    """Silence, from the first unanswered ping on, that is told to the mesh; before, it is this node's own affair."""
    dead_min_s: float
    """Silence, from the first unanswered ping on, that ends in death when `indirect` others confirm it."""
    dead_max_s: float
    """From the last proof of life to death when nobody confirms it; nothing takes longer where the observer is
    healthy."""
    dial_s: float
    """Between two dials of a suspect without a connection."""
    dial_timeout_s: float
    settle_s: float
    """A beacon that comes within so long of a loss, of the same epoch, may have been under way: it proves nothing."""
    refute_s: float
    """Between two refutations of this node's own."""
    recover_s: float
    """Of punctual ticks that raise the local health by one step."""


def lan() -> DetectorSettings:
    """A local network or one machine: answers take a millisecond, pauses of processes are the usual trouble."""
    return DetectorSettings(
        tick_s=0.5,  # two looks per ping; a hiccup of the own loop below 1 s costs nothing
        ping_s=1.0,  # one ping per link and second: both ends hear it, so one end's ping serves both
        ping_timeout_s=0.5,  # 100 round trips and more; a loaded Python process may need 300 ms
        ask_timeout_s=0.75,  # a ping of somebody else, and two more ways
        indirect=3,  # SWIM's and memberlist's number: beyond three, hardly fewer mistakes
        fresh_s=2.0,  # a ping was answered or a link is in use: ping_s, a timeout and a tick
        tell_after_s=3.0,  # a stall of 3 s, or a few lost packets, are nobody else's affair
        dead_min_s=5.0,  # a process stopped for 3 s lives; garbage collectors and disks pause for less than 5 s
        dead_max_s=10.0,  # what an owner of two nodes will wait
        dial_s=2.0,  # a process that restarts is found within two seconds
        dial_timeout_s=1.5,  # a SYN, one lost and repeated after 1 s, and the handshake
        settle_s=2.0,  # several times what gossip needs through a mesh of thousands (5 hops)
        refute_s=1.0,  # as the smallest gap between beacons
        recover_s=5.0,  # two rounds of asks: a node that hears no answer to either gets worse, not better
    )


def wan() -> DetectorSettings:
    """Across the internet: 300 ms round trips; a lost packet costs one retransmission (RTT + 200 ms at least)."""
    return replace(
        lan(),
        ping_timeout_s=1.0,  # 300 ms, one retransmission after 500 ms, and its round trip
        ask_timeout_s=1.5,  # two such ways, of which one may lose a packet
        fresh_s=2.5,  # ping_s, a timeout and a tick
        tell_after_s=4.0,  # the suspicion itself comes after 2.5 s
        dial_timeout_s=3.0,  # TCP, Noise and yamux are four round trips; SYN repeated once
        settle_s=3.0,
    )


def simulation() -> DetectorSettings:
    """Worlds of thousands of nodes: the numbers of :func:`wan`, as messages there are lost for good, not repeated."""
    return wan()


PRESETS = {"lan": lan, "wan": wan, "simulation": simulation}
"""By the name that an owner writes."""
