"""``cost``: what work on this node costs now, and why."""

from __future__ import annotations

import click

from atmosphere.cli.home import Home, pass_home
from atmosphere.cli.options import json_option, print_json, print_table


@click.command()
@json_option
@pass_home
def cost(home: Home, as_json: bool) -> None:
    """Show what work on this node costs now, factor by factor.

    1 is neutral; others are preferred to a node whose work costs more. Set with `cost:` in config.yaml.
    """
    data = home.node().get("/v1/admin/cost")
    if as_json:
        print_json(data)
        return
    print_table(("factor", "times", "measured"), [
        (factor["name"], f"{factor['multiplier']:.2f}" if factor["known"] else "?", factor["why"])
        for factor in data["factors"]
    ])
    click.echo(f"cost {data['cost_milli'] / 1000:.2f}; the mesh was told {data['told_milli'] / 1000:.2f}")
    for gpu in data["gpus"]:
        click.echo(f"GPU: {gpu}")
    for price in data["prices"]:
        click.echo(f"{price['model'] or price['type']}: {price['micros'] / 1e6:g} a call")
