"""``/atmosphere/1/<mesh>/beacons`` and ``/health``: the small gossip messages, their limits and their order."""

from protocols.beacons.announcement import MAX_ANNOUNCEMENT_BYTES, Announcement
from protocols.beacons.health import open_suspicion
from protocols.beacons.messages import (
    MAX_BEACON_BYTES,
    MAX_HEALTH_BYTES,
    Beacon,
    BeaconError,
    Health,
    HealthKind,
    Leave,
    Suspicion,
    beacons_topic,
    health_topic,
    revocations_topic,
)

__all__ = [
    "MAX_ANNOUNCEMENT_BYTES",
    "MAX_BEACON_BYTES",
    "MAX_HEALTH_BYTES",
    "Announcement",
    "Beacon",
    "BeaconError",
    "Health",
    "HealthKind",
    "Leave",
    "Suspicion",
    "beacons_topic",
    "health_topic",
    "open_suspicion",
    "revocations_topic",
]
