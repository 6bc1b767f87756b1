"""`breadcrumbs reproduce`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from breadcrumbs.cli.shared import (
    command,
    force_option,
    json_option,
    max_memory_option,
    plugin_option,
    quiet_option,
    scratch_option,
    sync_option,
    threads_option,
)
from breadcrumbs.errors import printable, sentence


@command()
@click.argument("model")
@click.option("-o", "--output", help="Keep what is made again in this folder or .safetensors file.")
@click.option(
    "-i",
    "--input",
    "places",
    multiple=True,
    metavar="NAME=PATH|FOLDER",
    help="Where an input is, by its name in the recipe, or the folder of several. Repeatable.",
)
@plugin_option
@scratch_option
@threads_option
@max_memory_option
@force_option
@quiet_option
@sync_option
@json_option
def reproduce(model: str, output: str | None, **options: Any) -> None:
    """Merge a merged model again and compare the bits.

    MODEL is a folder, a .safetensors file or a hub id of what `breadcrumbs merge` wrote. Its recipe
    names its inputs and their hashes. They are looked for where the recipe says, relative to the
    model; on a hub and in its cache; and where --input says. An input that is another one now is
    named. What differs is listed, and the exit code is 1 then.

    \b
    breadcrumbs reproduce merged
    breadcrumbs reproduce merged.safetensors --input base=models/base --input ft1=models/ft1
    breadcrumbs reproduce merged --input models -o again
    breadcrumbs reproduce org/merged
    """
    from breadcrumbs import machine
    from breadcrumbs.cli import console
    from breadcrumbs.merging import reproducing
    from breadcrumbs.methods.registry import load_plugin

    for plugin in options["plugins"]:
        load_plugin(plugin)
    quiet = options["quiet"] or options["as_json"]
    most = options["max_memory"]
    done = reproducing.reproduce(
        model,
        output,
        places=options["places"],
        threads=options["threads"] or machine.available_cores(),
        max_memory=None if most is None else machine.parse(most),
        force=options["force"],
        progress=lambda plan: console.progress(plan, quiet=quiet),
    )
    if options["as_json"]:
        click.echo(json.dumps(done.to_mapping(), indent=2))
    elif not done.same or not quiet:
        for note in done.notes:
            click.echo(f"note: {sentence(printable(note))}", err=True)
        click.echo(f"{printable(model)}: {printable(str(done))}", err=not done.same)
    if not done.same:
        sys.exit(1)
