"""`breadcrumbs store merge`, `export`, `import` and `gc`: what is made of a store, and room."""

from __future__ import annotations

import json
from typing import Any

import click

from breadcrumbs.cli.shared import (
    command,
    force_option,
    json_option,
    pairs,
    quiet_option,
    sync_option,
    threads_option,
)
from breadcrumbs.cli.storing.options import (
    at_option,
    base_option,
    folder_argument,
    param_option,
    say,
    strict_option,
    using,
)


@command()
@folder_argument
@click.option(
    "-o", "--output", required=True, metavar="PATH", help="Folder, or FILE.safetensors, to write."
)
@click.option(
    "-m", "--method", help="Another method than the store's, on what the store keeps of each task."
)
@param_option
@at_option
@click.option("--dtype", help="Output dtype, such as bfloat16. Default: the base's.")
@click.option("--shard-size", default="5GB", show_default=True, help="Largest file of a folder.")
@click.option(
    "--scratch", is_flag=True, help="Merge all task files, without the running sum: the same bits."
)
@click.option(
    "--weights",
    multiple=True,
    metavar="ema:B|NAME=W",
    help="Weights of this merge alone: by age, B times that of the next newer task; or W of one."
    " Repeatable.",
)
@force_option
@strict_option
@base_option
@threads_option
@quiet_option
@sync_option
@json_option
def merge(folder: str, output: str, params: tuple[str, ...], **options: Any) -> None:
    """Write the merged model of a revision.

    The bits are those of `breadcrumbs merge BASE TASK...` with the task files of that revision; the
    running sum saves the work. The model card names all parts with their licences.

    \b
    breadcrumbs store merge shared -o merged
    breadcrumbs store merge shared -o merged -p alpha=0.5 --dtype bfloat16
    breadcrumbs store merge shared -o before --at 3
    breadcrumbs store merge shared -o recent -m task_arithmetic -p alpha=1 --weights ema:0.5
    """
    from breadcrumbs import machine
    from breadcrumbs.cli.views import merging

    quiet, as_json = options["quiet"], options["as_json"]
    with using(folder, options, "merging") as opened:
        report = opened.merge(
            output,
            shard_size=machine.parse(options["shard_size"]),
            **{key: options[key] for key in ("method", "at", "dtype", "threads")},
            **{key: options[key] for key in ("scratch", "force", "strict", "weights")},
            **pairs(params),
        )
    if as_json:
        click.echo(json.dumps({"output": output, **report.to_mapping()}, indent=2))
    elif not quiet:
        merging.report(report, output, verbose=False)


@command()
@folder_argument
@click.option("-o", "--output", required=True, metavar="FILE.tar", help="Archive to write.")
@force_option
@quiet_option
@sync_option
@json_option
def export(folder: str, output: str, force: bool, **options: Any) -> None:
    """Write a store to one archive, without the base.

    The archive holds the history, the task files and the settings.

    \b
    breadcrumbs store export shared -o shared.tar
    """
    from breadcrumbs import machine
    from breadcrumbs.store import Store
    from breadcrumbs.store import export as write

    with Store.open(folder) as opened:
        nbytes = write(opened, output, force=force)
    if options["as_json"]:
        click.echo(json.dumps({"output": output, "bytes": nbytes}, indent=2))
    elif not options["quiet"]:
        click.echo(f"{output}: {machine.human(nbytes)}")


@command("import")
@click.argument("archive", metavar="FILE.tar")
@folder_argument
@base_option
@quiet_option
@sync_option
@json_option
def import_(archive: str, folder: str, base: str | None, **options: Any) -> None:
    """Make a store from an archive.

    All files are compared with their hashes, and the base with its own.

    \b
    breadcrumbs store import shared.tar shared --base base
    """
    from breadcrumbs.store import import_ as read

    with read(archive, folder, base) as made:
        say(made, None, options, f"revision {made.ledger.latest()}")


@command()
@folder_argument
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many revisions to keep, counted from the latest.",
)
@click.option("--delete", is_flag=True, help="Do it. Without this, only show what would go.")
@base_option
@threads_option
@sync_option
@json_option
def gc(folder: str, keep: int, delete: bool, **options: Any) -> None:
    """Drop old revisions and the task files that only they use.

    Without --delete nothing is changed: the command shows what would go and how much room that
    makes. Dropped revisions cannot be written again; the kept ones keep their numbers and bits.

    \b
    breadcrumbs store gc shared
    breadcrumbs store gc shared --keep 10 --delete
    """
    from breadcrumbs.cli.views import store as view
    from breadcrumbs.store import collect

    with using(folder, options, "dropping old revisions") as opened:
        found = collect(opened, keep, delete=delete, threads=options["threads"])
    if options["as_json"]:
        click.echo(json.dumps(found.__dict__, indent=2))
    else:
        view.collected(found, folder)
