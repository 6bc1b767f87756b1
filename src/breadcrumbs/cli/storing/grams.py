"""`breadcrumbs store grams`: whether a store keeps what `wudi` takes of all tasks."""

from __future__ import annotations

import json
from typing import Any

import click

from breadcrumbs.cli.shared import (
    command,
    json_option,
    quiet_option,
    sync_option,
    threads_option,
)
from breadcrumbs.cli.storing.options import base_option, folder_argument, using


@command()
@folder_argument
@click.argument("switch", type=click.Choice(["on", "off"]), metavar="[on|off]", required=False)
@base_option
@threads_option
@quiet_option
@sync_option
@json_option
def grams(folder: str, switch: str | None, **options: Any) -> None:
    """Keep what wudi takes of all tasks, or give it up.

    These are sums over the tasks, for each matrix of the base, among them one of k x k for k
    inputs. With them `store merge -m wudi` takes the same time however many tasks there are, and
    adding or removing a task takes that of one. Without `on` or `off`, only show what they take.

    \b
    breadcrumbs store grams shared
    breadcrumbs store grams shared on
    """
    from breadcrumbs import machine
    from breadcrumbs.store import opted

    with using(folder, options, "summing up") as opened:
        if switch is not None:
            opened.keep_grams(switch == "on", options["threads"])
        most, number = opted.expected(opened)
        found = {"grams": opted.keeps(opened), "bytes": opted.size(opened)}
    if options["as_json"]:
        click.echo(json.dumps({**found, "matrices": number, "most": most}, indent=2))
    elif not options["quiet"]:
        each = f"of {number} matrices"
        text = f"no Grams are kept; they would be {each} and take up to {machine.human(most)}"
        if found["grams"]:
            text = f"Grams {each} are kept for wudi and take {machine.human(found['bytes'])}"
        click.echo(f"{opened.folder}: {text}")
