"""The topic of health: messages as gossip brings them, and payloads that a member has signed."""

from __future__ import annotations

from tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from atmosphere.mesh.intake import Taken
    from atmosphere.mesh.table import State
    from protocols.beacons import (
        MAX_HEALTH_BYTES,
        BeaconError,
        Health,
        HealthKind,
        Leave,
        Suspicion,
        open_suspicion,
    )
    from protocols.records import domains, open_envelope, sign
    from protocols.records.envelope import EnvelopeError
    from tests.hostile.cases_failure import SUSPICION, watch
    from tests.hostile.house import House
    from tests.identity.keys import NOW, key, peer

HOUSE = House()
DOOR = watch(HOUSE)
LEAVE = Leave(3, 11, NOW * 1000)


def taken(data: bytes, author: str) -> bool:
    """Whether a node takes it for *author*'s word; every refusal is a documented one."""
    health = Health.decode(data)
    if health is None:
        return False
    assert len(health.envelope) < len(data) <= MAX_HEALTH_BYTES
    assert Health.decode(health.encode()) == health
    if health.kind is HealthKind.LEAVE:
        payload, signer = open_envelope(health.envelope, domains.LEAVE, MAX_HEALTH_BYTES)
        leave = Leave.decode(payload)
        assert Leave.decode(leave.encode()) == leave
        return signer == peer(author)
    if DOOR.hear(health.envelope, peer(author)) is Taken.BAD:
        return False
    suspicion = open_suspicion(health.envelope, peer(author))
    assert suspicion.subject != peer(author)
    assert Suspicion.decode(suspicion.encode()) == suspicion
    assert HOUSE.table.nodes[peer("member")].state is State.ONLINE, "one alone decides nothing"
    return True


def target(data: bytes) -> None:
    """First byte: 0 a message of a member, 1 one of a peer who signed none; 2 a suspicion, 3 a goodbye, well signed."""
    first, body = data[0] % 4 if data else 0, data[1:]
    if first == 0:
        taken(body, "alice")
    elif first == 1:
        assert not taken(body, "mallory"), "forged"
    else:
        kind, domain = ((HealthKind.SUSPICION, domains.SUSPICION), (HealthKind.LEAVE, domains.LEAVE))[first - 2]
        taken(Health(kind, sign(domain, body, key("alice"))).encode(), "alice")


def seeds() -> list[bytes]:
    suspicion = sign(domains.SUSPICION, SUSPICION.encode(), key("alice"))
    leave = sign(domains.LEAVE, LEAVE.encode(), key("alice"))
    return [
        *(who + Health(HealthKind.SUSPICION, suspicion).encode() for who in (b"\0", b"\1")),
        *(who + Health(HealthKind.LEAVE, leave).encode() for who in (b"\0", b"\1")),
        b"\2" + SUSPICION.encode(), b"\3" + LEAVE.encode(), b"\0\x1a\x01x",
    ]


if __name__ == "__main__":
    fuzz(target, seeds(), (BeaconError, EnvelopeError), max_len=300)
