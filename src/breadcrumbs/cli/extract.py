"""`breadcrumbs extract`."""

from __future__ import annotations

import json
from typing import Any

import click

from breadcrumbs.cli.shared import (
    command,
    force_option,
    json_option,
    quiet_option,
    sync_option,
)


@command()
@click.argument("archive", metavar="FILE.safetensors")
@click.argument("task")
@click.option(
    "-o", "--output", required=True, metavar="PATH", help="Folder, or FILE.safetensors, to write."
)
@click.option(
    "--base", help="The base that the file was made with. Default: its path at that time."
)
@click.option("--shard-size", default="5GB", show_default=True, help="Largest file of a folder.")
@force_option
@quiet_option
@sync_option
@json_option
def extract(archive: str, task: str, output: str, **options: Any) -> None:
    """Rebuild one model from a compressed file.

    `breadcrumbs compress` wrote the file. The base must be the one that the file was made with,
    which its hash tells. What is read of the file is checked, too.

    \b
    breadcrumbs extract tasks.safetensors dogs -o dogs-again
    breadcrumbs extract tasks.safetensors dogs -o dogs.safetensors --base org/base@main
    """
    from breadcrumbs import archives, machine
    from breadcrumbs.cli import console

    quiet = options["quiet"] or options["as_json"]
    with console.status(quiet=quiet) as step:
        step(f"rebuilding {task}")
        nbytes = archives.extract(
            archive,
            task,
            output,
            base=options["base"],
            shard_size=machine.parse(options["shard_size"]),
            force=options["force"],
        )
    if options["as_json"]:
        click.echo(json.dumps({"output": output, "task": task, "bytes": nbytes}, indent=2))
    elif not quiet:
        click.echo(f"wrote {output}: {machine.human(nbytes)}", err=True)
