"""A virtual world: a Trio program whose clocks, randomness, threads and scheduling belong to a seed.

The same seed gives the same run, event by event, in any process. How to use it::

    from simulations.hashing import fix_hashing

    fix_hashing()                       # first thing a command does: starts Python again with PYTHONHASHSEED=0

    from simulations.virtual import Virtual, run

    async def main(world: Virtual) -> int:
        async with open_node(..., env=world.env("node 7")):         # a SimEnv: seeded, in virtual time
            await trio.sleep(3600)                                  # costs nothing but what the nodes do meanwhile
            world.trace.note("delivered", 7, message_id)            # what the run is about, in the order it happened
        return 42

    outcome = run(main, seed=1)
    outcome.value, outcome.trace_hash, outcome.virtual_s, outcome.cpu_s, outcome.wall_s, outcome.errors

- ``world.env(name)``: what a node takes from the world; each name has randomness of its own.
- ``world.random(name)``: a generator for the world's own decisions (topology, who fails), one per name.
- ``world.key(name)``: the 32-byte seed of a node's key.
- ``world.trace``: hash of what was noted and when. At the end the state of every shared generator, the scheduler's
  included, goes in too, so two runs that differ in one step of one task hardly have the same hash.
- ``with simulations.fast.accelerated(): run(...)``: the same, several times faster; see there what is dropped.
- ``wall_s()``, ``cpu_s()``: the real clocks, for figures and progress bars. A progress bar must not wait in the run.

Time starts at 0 on Trio's clock, at ``EPOCH`` on the wall. What would leave the world (a thread, a socket, a process,
``time.sleep``) raises :class:`Escape` where it is tried, and again at the end of the run should somebody have caught
it. Reading files is allowed; keep it out of the measured part. One run at a time in a process; several may follow.
"""

from simulations.virtual.env import SimEnv
from simulations.virtual.run import Outcome, Virtual, run
from simulations.virtual.stand_ins import EPOCH, Escape, cpu_s, wall_s
from simulations.virtual.trace import Trace

__all__ = [
    "EPOCH",
    "Escape",
    "Outcome",
    "SimEnv",
    "Trace",
    "Virtual",
    "cpu_s",
    "run",
    "wall_s",
]
