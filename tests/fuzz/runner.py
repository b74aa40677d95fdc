"""What the fuzz targets share: seeds in, coverage-guided bytes through the parser, and a bound on memory.

``python -m tests.fuzz.fuzz_chain [SECONDS]`` runs one target, 30 s unless told otherwise; ``make fuzz`` runs all for
five minutes each. A target fails (exit status not 0, the input is printed) when the code under it raises anything but
the errors that it documents, takes longer than a second for one input, or makes the process grow.
"""

from __future__ import annotations

import logging
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import atheris

WARM_UP_RUNS = 2_000
CHECK_EVERY_RUNS = 2_000
MAX_GROWTH_MB = 96
"""Between the warm-up and the end: libFuzzer's own corpus and coverage tables take 10 to 30 MB in five minutes."""
SLOW_INPUT_S = 1

Target = Callable[[bytes], None]


def instrumented() -> AbstractContextManager[None]:
    """Our own packages imported in this block report their coverage to the fuzzer."""
    return atheris.instrument_imports(include=["atmosphere", "protocols", "transports"])  # type: ignore[no-any-return]


class Growth:
    """Fails the run when the process has grown by more than MAX_GROWTH_MB since it was warm."""

    def __init__(self) -> None:
        self.runs = 0
        self.warm = 0

    def look(self) -> None:
        self.runs += 1
        if self.runs % CHECK_EVERY_RUNS:
            return
        size = resident_mb()
        if self.runs == WARM_UP_RUNS:
            self.warm = size
        elif size - self.warm > MAX_GROWTH_MB:
            raise MemoryError(f"grew from {self.warm} to {size} MB in {self.runs} runs")


def resident_mb() -> int:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def fuzz(target: Target, seeds: Iterable[bytes], errors: tuple[type[Exception], ...], max_len: int = 4096) -> None:
    """Run *target* until the time on the command line is over; *errors* are its documented refusals.

    *seeds* are honest inputs: the fuzzer mutates what gets it further. Does not return.
    """
    seconds = sys.argv[1] if len(sys.argv) > 1 else "30"
    logging.disable(logging.CRITICAL)
    growth = Growth()

    def one(data: bytes) -> None:
        growth.look()
        try:
            target(data)
        except errors:
            return

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            one(seed)
            (Path(corpus) / f"{number:04}").write_bytes(seed)
        atheris.Setup(
            [
                sys.argv[0], corpus, f"-max_total_time={seconds}", f"-max_len={max_len}", f"-timeout={SLOW_INPUT_S}",
                "-rss_limit_mb=1024", "-print_final_stats=1", f"-artifact_prefix={tempfile.gettempdir()}/",
                "-keep_seed=1",  # protobuf parses in C, unseen: without it most honest inputs would be dropped as alike
                "-len_control=0",
            ],
            one,
        )
        atheris.Fuzz()
