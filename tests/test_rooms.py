"""The rule of the rooms that a linter cannot see: the pure ones load neither Trio nor libp2p."""

from __future__ import annotations

import subprocess
import sys

import pytest

PURE = [
    "atmosphere.env",
    "atmosphere.config",
    "atmosphere.store",
    "atmosphere.embedding",
    "atmosphere.identity",
    "atmosphere.capabilities",
    "atmosphere.capabilities.card",
    "atmosphere.capabilities.decisions",
    "atmosphere.capabilities.offer",
    "atmosphere.capabilities.registry",
    "atmosphere.cost",
    "atmosphere.cost.machine",
    "atmosphere.mesh.table",
    "atmosphere.mesh.library",
    "atmosphere.mesh.wanted",
    "atmosphere.mesh.members",
    "atmosphere.mesh.announcer",
    "atmosphere.mesh.intake",
    "atmosphere.routing.arbiter",
    "atmosphere.routing.router",
    "atmosphere.routing.triage",
    "atmosphere.routing.affinity",
    "atmosphere.routing.filters",
    "atmosphere.routing.scoring",
    "atmosphere.work.effects",
    "atmosphere.work.plans.document",
    "atmosphere.work.plans.inputs",
    "atmosphere.work.plans.run",
    "protocols.call",
    "protocols.beacons",
    "protocols.records",
    "protocols.sync.messages",
    "atmosphere.mesh.detector",
    "atmosphere.mesh.detector_actions",
    "atmosphere.mesh.detector_beliefs",
    "atmosphere.mesh.detector_links",
    "atmosphere.mesh.detector_settings",
    "atmosphere.mesh.hearsay",
    "atmosphere.mesh.local_health",
    "atmosphere.mesh.suspicion",
    "atmosphere.mesh.inventory",
    "atmosphere.work.breaker",
    "atmosphere.work.hedging",
    "atmosphere.work.spread",
    "atmosphere.work.units",
    "atmosphere.work.continuation",
    "atmosphere.capabilities.idempotency",
    "atmosphere.capabilities.admission",
    "protocols.probe.messages",
    "protocols.sync.summary",
    "transports.peer_id",
    "transports.varint",
]


@pytest.mark.parametrize("module", PURE)
def test_a_pure_room_loads_neither_trio_nor_libp2p(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('trio', 'libp2p') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
