"""How far a run is: one line on the terminal, drawn from outside the virtual world."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click
import trio

from simulations import virtual  # not its clock by name: that would be replaced by the virtual one

DRAWN_EVERY_S = 0.2
"""Of real time."""
CELLS = 24


class Progress(Protocol):
    """Is told which step a run has come to."""

    def __call__(self, step: str, share: float | None = None, *, ends: float | None = None) -> None:
        """*share* of the step that is done, from 0 to 1, or the virtual time at which it *ends*, where known."""


def silent(step: str, share: float | None = None, *, ends: float | None = None) -> None:
    """Nobody looks."""


class ProgressLine(trio.abc.Instrument):
    """The step, a bar for what is known of its length, virtual and real time; on standard error.

    As an instrument of Trio it sees time pass without a task of its own: a run is the same with and without it.
    """

    def __init__(self, scenario: str) -> None:
        self._scenario = scenario
        self._began = self._drawn = virtual.wall_s()
        self._step = "begins"
        self._share: float | None = None
        self._ends: float | None = None
        self._since = self._now = 0.0

    def __repr__(self) -> str:
        return f"<ProgressLine {self.line()!r}>"

    def __call__(self, step: str, share: float | None = None, *, ends: float | None = None) -> None:
        if step != self._step:
            self._since = self._now
        self._step, self._share, self._ends = step, share, ends
        self._draw()

    def before_io_wait(self, timeout: float) -> None:
        self._now = trio.current_time()
        self._draw()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within a run: the line follows it, and is gone afterwards."""
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)
            click.echo("\r\033[K", nl=False, err=True)

    def line(self) -> str:
        """What is shown now."""
        share = self._share
        if self._ends is not None and self._ends > self._since:
            share = (self._now - self._since) / (self._ends - self._since)
        bar = ""
        if share is not None:
            filled = round(CELLS * min(1.0, max(0.0, share)))
            bar = f"[{'#' * filled}{'-' * (CELLS - filled)}] "
        return f"{self._scenario}: {bar}{self._step}, {self._now:.1f} virtual s, {virtual.wall_s() - self._began:.0f} s"

    def _draw(self) -> None:
        now = virtual.wall_s()
        if now - self._drawn >= DRAWN_EVERY_S:
            self._drawn = now
            click.echo(f"\r\033[K{self.line()}", nl=False, err=True)
