"""What a node costs before it works: ``python -m tests.benchmarks.startup``.

Prints the time of ``--help``, the time from the start of a node's process until its API answers, its memory with the
embedder loaded, and the CPU of idle nodes in a mesh of three. Goals beside the figures; nothing fails here.
"""

from __future__ import annotations

import statistics
import subprocess
import time

import psutil

from tests.processes import COMMAND, Node, Nodes, command, environment, eventually, invite, nodes

HELP_RUNS = 7
SETTLE_S = 10.0
"""Joining, syncing and the first looks around are over by then."""
IDLE_S = 30.0
"""Two beacon periods, so that beacons are in the figure."""


def help_times() -> list[float]:
    times = []
    for _ in range(HELP_RUNS):
        began = time.perf_counter()
        subprocess.run([COMMAND, "--help"], stdout=subprocess.DEVNULL, check=True, env=environment())
        times.append(time.perf_counter() - began)
    return times


def memory_mb(node: Node) -> float:
    return float(psutil.Process(node.process.pid).memory_info().rss) / 1e6


def cpu_s(node: Node) -> float:
    times = psutil.Process(node.process.pid).cpu_times()
    return float(times.user + times.system)


def last_word_s(group: Nodes) -> float:
    """From the start of a process until it has said all that it says at its start."""
    home = group.folder / "D"
    command(home, "init")
    began = time.perf_counter()
    node = group.run(home)
    eventually("the last word of the start", 10, lambda: "\n  nodes" in node.log or None)
    elapsed = time.perf_counter() - began
    node.stop()
    return elapsed


def main() -> None:
    times = help_times()
    print(f"--help                      {statistics.median(times):6.2f} s   (worst of {HELP_RUNS}: {max(times):.2f} s; "
          "goal < 1 s)")
    with nodes() as group:
        a = group.start("A", options=("--no-probe",))
        invitation = invite(a, uses=2)
        three = [a, *(group.start(name, invite=invitation, options=("--no-probe",)) for name in "BC")]
        ready = [node.ready_s for node in three]
        print(f"process start to API answer {statistics.median(ready):6.2f} s   (worst of {len(ready)}: "
              f"{max(ready):.2f} s; goal <= 2 s)")
        print(f"process start to last word  {last_word_s(group):6.2f} s   (what `run` says at its start; goal <= 2 s)")

        def complete() -> bool | None:
            return True if all(len(node.get("/v1/mesh/nodes")["nodes"]) == 3 for node in three) else None

        eventually("all three know each other", 30, complete)
        before = memory_mb(a)
        a.post("/v1/embeddings", {"model": "auto", "input": "Route work to capability.",
                                  "atmosphere": {"constraints": {"local_only": True}}})
        print(f"memory, embedder loaded     {memory_mb(a):6.0f} MB  ({before:.0f} MB before its first text; "
              "goal <= 230 MB)")
        time.sleep(SETTLE_S)
        start, spent = time.perf_counter(), [cpu_s(node) for node in three]
        time.sleep(IDLE_S)
        elapsed = time.perf_counter() - start
        used = [100 * (cpu_s(node) - was) / elapsed for node, was in zip(three, spent, strict=True)]
        print(f"idle CPU, mesh of three     {statistics.mean(used):6.2f} %   (worst: {max(used):.2f} %; "
              "goal < 2 % of a core)")


if __name__ == "__main__":
    main()
