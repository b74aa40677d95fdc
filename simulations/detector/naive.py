"""The detector that everybody writes first: a beat every 5 s, three missed are a death.

In the same world: the same mesh, stalls, deaths and share of lost messages. It is given every advantage: an observer
that was stopped reads what has come meanwhile before it judges, and a node that was stopped sends its beat at once.
"""

from __future__ import annotations

import numpy as np

from simulations.detector.conditions import Conditions, fates, long_stall, mesh
from simulations.detector.report import Result

BEAT_S = 5
MISSED = 3
GRACE_S = 0.5
"""For the latency of the beat that would have been in time."""


def naive_heartbeat(conditions: Conditions, limit_s: float) -> Result:
    """Run it. *limit_s*: subjects stopped for longer are counted apart, as for the other detector."""
    spells = fates(conditions)
    links = np.array([(one, other) for one, all_of in enumerate(mesh(conditions)) for other in all_of])
    senders, observers = links[:, 0], links[:, 1]
    rng = np.random.default_rng([conditions.seed, 3])
    count = conditions.nodes
    phase = rng.integers(0, BEAT_S, count)
    owed = np.zeros(count, dtype=bool)
    last, declared = np.zeros(len(links)), np.zeros(len(links), dtype=bool)
    down, stopped = np.zeros(count), np.zeros(count)  # until when
    died_at, excused_until = np.zeros(count), np.full(count, -1.0)
    noticed = np.zeros(count, dtype=bool)
    result = Result(conditions.nodes, conditions.node_hours)
    low, high = conditions.latency_s
    excused = long_stall(spells, limit_s, (MISSED + 1) * BEAT_S, count)
    excuses = sorted((begin, node, end) for node, times in enumerate(excused) for begin, end in times)
    position = excuse = 0
    for second in range(int(conditions.duration_s)):
        while position < len(spells) and spells[position].begin <= second:
            spell = spells[position]
            position += 1
            if spell.death:
                down[spell.node], died_at[spell.node] = spell.end, spell.begin
                noticed[spell.node] = False
                result.deaths += 1
            else:
                stopped[spell.node] = spell.end
        while excuse < len(excuses) and excuses[excuse][0] <= second:
            excused_until[excuses[excuse][1]] = excuses[excuse][2]
            excuse += 1
        up = down <= second
        awake = up & (stopped <= second)
        owed |= phase == second % BEAT_S
        beating = owed & awake
        owed &= ~beating & up
        sent = np.flatnonzero(beating[senders])
        result.probes += len(sent)
        arrived = sent[rng.random(len(sent)) >= conditions.loss]
        last[arrived] = second + rng.uniform(low, high, len(arrived))
        declared[arrived] = False
        reborn = (down > second - 1) & up & (died_at > 0)
        last[reborn[observers] | reborn[senders]] = second  # a new connection starts anew
        judged = awake[observers] & ~declared & (second - last > MISSED * BEAT_S + GRACE_S)
        declared |= judged
        for link in np.flatnonzero(judged):
            subject = senders[link]
            if not up[subject]:
                if not noticed[subject]:
                    noticed[subject] = True
                    result.first.append(second - float(died_at[subject]))
            elif second <= excused_until[subject]:
                result.stalled_deaths += 1
            else:
                result.false_deaths += 1
    return result
