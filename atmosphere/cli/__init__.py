"""The command line: ``atmosphere-p2p``.

Every command is found through the entry-point group ``atmosphere.commands`` (name -> click command), so another
distribution adds a command by declaring one. Command modules import click and nothing heavy at their top; what a
command needs to do its work it imports when it runs. That is why ``--help`` answers at once.
"""

from __future__ import annotations

from atmosphere.cli.main import main

__all__ = ["main"]
