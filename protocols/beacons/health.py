"""The envelope around a suspicion: who says it is as much as what is said."""

from __future__ import annotations

from protocols.beacons.messages import MAX_HEALTH_BYTES, BeaconError, Suspicion
from protocols.records import EnvelopeError, domains, open_envelope
from transports.peer_id import PeerId


def open_suspicion(envelope: bytes, author: PeerId) -> Suspicion:
    """The suspicion in *envelope*, verified to be *author*'s, who published it; whether it is a member is not known.

    Raises BeaconError for what no sound node publishes: a wrong signature, another's suspicion, one of oneself.
    """
    try:
        payload, witness = open_envelope(envelope, domains.SUSPICION, MAX_HEALTH_BYTES)
    except EnvelopeError as error:
        raise BeaconError(str(error)) from error
    if witness != author:
        raise BeaconError(f"a suspicion published by {author} and signed by {witness}")
    suspicion = Suspicion.decode(payload)
    if suspicion.subject == witness:
        raise BeaconError(f"a suspicion of itself by {witness}")
    return suspicion
