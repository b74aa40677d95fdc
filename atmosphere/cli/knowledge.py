"""``knowledge``: the folders that this node answers questions from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from atmosphere.cli.home import Failure, Home, pass_home
from atmosphere.cli.options import json_option, print_json, print_table


@click.group()
def knowledge() -> None:
    """Folders that this node answers questions from."""


@knowledge.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@json_option
@pass_home
def add(home: Home, path: Path, as_json: bool) -> None:
    """Index the text, Markdown and PDF files at PATH; again, to take in what changed."""
    path = path.resolve()
    with home.node_or_lock() as control:
        report = control.post("/v1/admin/knowledge", {"path": str(path)}) if control else _index(home, path)
    if as_json:
        print_json(report)
        return
    click.echo(f"{report['path']}: {report['passages']} passages; documents: {report['added']} added, "
               f"{report['updated']} updated, {report['unchanged']} unchanged, {report['removed']} removed")
    for skipped in report["skipped"]:
        click.echo(f"  left out {skipped['path']}: {skipped['reason']}", err=True)
    if report["skipped_count"] > len(report["skipped"]):
        click.echo(f"  left out {report['skipped_count'] - len(report['skipped'])} more", err=True)


@knowledge.command("list")
@json_option
@pass_home
def list_indexed(home: Home, as_json: bool) -> None:
    """List what is indexed."""
    control = home.running()
    folders = control.get("/v1/admin/knowledge")["folders"] if control else _list(home)
    if as_json:
        print_json({"folders": folders})
    elif not folders:
        click.echo("Nothing is indexed yet: `atmosphere-p2p knowledge add PATH`.")
    else:
        print_table(("path", "documents", "passages", ""),
                    [(folder["path"], str(folder["files"]), str(folder["passages"]),
                      "not there now" if folder["missing"] else "") for folder in folders])


def _index(home: Home, path: Path) -> dict[str, Any]:
    from atmosphere.embedding import EmbedderError, load_embedder
    from atmosphere.env import SystemEnv
    from atmosphere.knowledge import Knowledge, KnowledgeError

    with home.store() as store:
        try:
            return dataclasses.asdict(Knowledge(store, load_embedder(home.config().embedder), SystemEnv()).add(path))
        except (KnowledgeError, EmbedderError) as error:
            raise Failure(str(error)) from error


def _list(home: Home) -> list[dict[str, Any]]:
    if not home.has_store:
        return []
    from atmosphere.knowledge import list_folders

    with home.store() as store:
        return [dataclasses.asdict(folder) for folder in list_folders(store)]
