"""The one library version that the corrections in this folder were checked against."""

from __future__ import annotations

import importlib.metadata

CHECKED_VERSION = "0.8.1"


def require_checked_version(installed: str | None = None) -> None:
    """Raise RuntimeError unless the installed libp2p is the checked one.

    Our subclasses override methods whose bodies were read in exactly that release. With another release, run
    ``tests/transports``: each correction has a test that runs the bare library too; drop those it no longer fails,
    adapt the others, then change CHECKED_VERSION together with the pin in pyproject.toml.
    """
    installed = importlib.metadata.version("libp2p") if installed is None else installed
    if installed != CHECKED_VERSION:
        raise RuntimeError(
            f"libp2p {installed} is installed, but transports/libp2p corrects {CHECKED_VERSION}: "
            f"install it with `pip install libp2p=={CHECKED_VERSION}`, or check the corrections against {installed} "
            "as transports/libp2p/version.py describes"
        )
