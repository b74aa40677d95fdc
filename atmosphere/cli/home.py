"""The home folder as the commands see it: its settings, its lock, and the node that runs on it, if one does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from atmosphere.cli.lock import HomeLock, Locked, holder
from atmosphere.cli.plain import plain
from atmosphere.config import Config, ConfigError, home_folder, load

if TYPE_CHECKING:
    import httpx2

    from atmosphere.cli.control import Control
    from atmosphere.store import Store

SOCKET = "control.sock"
DATABASE = "node.db"


class Failure(click.ClickException):
    """An expected failure: what is wrong, and what to do next. Exit code 1, no traceback."""

    def __init__(self, cause: str, next_step: str = "") -> None:
        super().__init__(plain(f"{cause}\n{next_step[:1].upper()}{next_step[1:]}" if next_step else cause))


class NotRunning(Failure):
    """The command needs the running node of this home, and there is none."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"no node is running on {home}", "start it with `atmosphere-p2p run`, then try again")


@dataclass(frozen=True)
class Home:
    """One home folder.

    *transport* replaces the connection to the running node in tests; then a node counts as running.
    """

    path: Path
    transport: httpx2.BaseTransport | None = None

    @classmethod
    def choose(cls, option: Path | None) -> Home:
        """The folder that the option, the environment or the default names."""
        return cls(home_folder(option))

    def config(self) -> Config:
        """The settings in the home folder. Raises :class:`Failure` for a broken file."""
        try:
            return load(self.path)
        except ConfigError as error:
            raise Failure(str(error), "correct the file, or remove it for the defaults") from error

    @contextmanager
    def locked(self) -> Iterator[HomeLock]:
        """Hold the home: nobody else runs a node on it or changes its files meanwhile. Raises :class:`Failure`."""
        try:
            lock = HomeLock.take(self.path)
        except Locked as error:
            raise Failure(f"{self.path} is in use by process {error.pid}",
                          "use another --home, or end that node with `atmosphere-p2p stop`") from error
        except OSError as error:
            raise Failure(f"cannot use {self.path} as home folder: {error.strerror or error}",
                          "choose another with --home") from error
        with lock:
            yield lock

    def running(self) -> Control | None:
        """The running node, or None. Raises :class:`Failure` if one holds the home and does not answer."""
        from atmosphere.cli.control import Control, Unreachable

        if self.transport is not None:
            return Control(self.transport)
        pid = holder(self.path)
        if pid is None:
            return None
        try:
            control = Control.connect(self.path / SOCKET)
        except Unreachable as error:
            raise Failure(f"process {pid} uses {self.path} but does not answer ({error})",
                          "it may be starting or ending: try again in a moment") from error
        click.get_current_context().call_on_close(control.close)
        return control

    @contextmanager
    def node_or_lock(self) -> Iterator[Control | None]:
        """The running node; or None, and the home is held for the block so that none starts on half-written files."""
        control = self.running()
        if control is not None:
            yield control
        else:
            with self.locked():
                yield None

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The node's database, opened by this command. Raises :class:`Failure`."""
        from atmosphere.env import SystemEnv
        from atmosphere.store import Store, StoreError

        try:
            store = Store(self.path / DATABASE, SystemEnv())
        except StoreError as error:
            raise Failure(str(error)) from error
        try:
            yield store
        finally:
            store.close()

    @property
    def has_store(self) -> bool:
        """Whether there is a database: reading an absent one would create it."""
        return (self.path / DATABASE).exists()

    def node(self) -> Control:
        """The running node. Raises :class:`NotRunning`."""
        control = self.running()
        if control is None:
            raise NotRunning(self.path)
        return control


pass_home = click.make_pass_decorator(Home)
