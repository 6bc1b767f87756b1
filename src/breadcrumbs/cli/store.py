"""`breadcrumbs store`: a model that is kept up to date, task by task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import (
    command,
    fit_options,
    json_option,
    pair,
    pairs,
    rename_option,
    sync_option,
)


@click.group()
def store() -> None:
    """Keep a merged model up to date: put tasks in, take them out, go back.

    A store is a folder with task files, a history, and the running sum of all tasks. Adding or
    removing one costs that one, not all; a task that is taken out leaves no bit behind.

    \b
    breadcrumbs store init shared --base base
    breadcrumbs store add shared math ft-math
    breadcrumbs store merge shared -o merged
    """


_folder = click.argument("folder", metavar="DIR")
_base = click.option("--base", help="Where the base is, if it has moved.")
_threads = click.option(
    "--threads", type=click.IntRange(1, 1024), help="Threads to use. Default: all cores."
)
_quiet = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
_strict = click.option(
    "--strict", is_flag=True, help="Make every warning an error; change nothing then."
)
_param = click.option(
    "-p", "--param", "params", multiple=True, metavar="KEY=VALUE", help="Of the method. Repeatable."
)
_at = click.option("--at", type=click.IntRange(0), metavar="REVISION", help="Default: the latest.")


@command()
@_folder
@click.option("--base", required=True, help="The model that all tasks were fine-tuned from.")
@click.option("-m", "--method", default="breadcrumbs", show_default=True, help="How to merge.")
@_param
@_quiet
@sync_option
@json_option
def init(folder: str, base: str, method: str, params: tuple[str, ...], **options: Any) -> None:
    """Make an empty store for fine-tunings of one base.

    The method decides how tasks are merged, and what fine-tunings keep when they are added.

    \b
    breadcrumbs store init shared --base base
    breadcrumbs store init shared --base org/base@v1 -p beta=0.85 -p gamma=0.993 -p alpha=0.5
    breadcrumbs store init shared --base base -m task_arithmetic -p alpha=0.4
    """
    from breadcrumbs.store import Store

    with Store.create(folder, base, method=method, **pairs(params)) as made:
        settings = made.settings
    if options["as_json"]:
        click.echo(json.dumps({"store": folder, **settings.__dict__}, indent=2))
    elif not options["quiet"]:
        click.echo(f"{folder}: an empty store on {settings.base_name}, method {settings.method}")


@command()
@_folder
@click.argument("name")
@click.argument("source", metavar="FINETUNED | TASK.safetensors")
@click.option("-w", "--weight", type=float, default=1.0, show_default=True, help="Its factor.")
@click.option("--author", default="", help="Who made the fine-tuning.")
@click.option("--license", default="", help="Its licence. Default: what its model card says.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to leave as in the base.")
@click.option("--only", multiple=True, metavar="GLOB", help="The only tensors to pack.")
@fit_options("FINETUNED")
@rename_option
@_strict
@_base
@_threads
@_quiet
@sync_option
@json_option
def add(folder: str, name: str, source: str, **options: Any) -> None:
    """Add a task under a name: a task file, or a fine-tuning, which is packed first.

    \b
    breadcrumbs store add shared math ft-math
    breadcrumbs store add shared law law.safetensors --weight 0.5
    breadcrumbs store add shared code org/ft-code --license apache-2.0 --exclude "lm_head*"
    """
    from breadcrumbs.cli import console

    with _opened(folder, options, f"adding {name}") as opened:
        settings = {key: options[key] for key in options if key not in ("quiet", "as_json")}
        if not options["quiet"]:
            settings["note"] = lambda line: console.note([line])
        if not (options["quiet"] or options["as_json"]):
            settings["warn"] = console.warnings
        _say(opened, opened.add(name, source, **settings).number, options)


@command()
@_folder
@click.argument("name")
@_base
@_threads
@_quiet
@sync_option
@json_option
def remove(folder: str, name: str, **options: Any) -> None:
    """Take a task out: the merged model is, bit for bit, as if it had never been in.

    Its file stays in the store, so that earlier revisions can be rebuilt.

    \b
    breadcrumbs store remove shared math
    """
    with _opened(folder, options, f"removing {name}") as opened:
        _say(opened, opened.remove(name, options["threads"]).number, options)


@command("set")
@_folder
@click.argument("name")
@click.argument("change", metavar="weight=VALUE")
@_base
@_threads
@_quiet
@sync_option
@json_option
def set_(folder: str, name: str, change: str, **options: Any) -> None:
    """Give a task another weight, the factor of its task vector.

    \b
    breadcrumbs store set shared law weight=0.5
    """
    key, value = pair(change)
    if key != "weight":
        raise click.UsageError(f"{key!r} cannot be set; weight can, such as weight=0.5")
    try:
        weight = float(value)
    except ValueError:
        raise click.UsageError(f"weight: {value!r} is not a number") from None
    with _opened(folder, options, f"setting {name}") as opened:
        revision = opened.set(name, weight, options["threads"])
        _say(opened, revision.number if revision else None, options)


@command("list")
@_folder
@_at
@json_option
def list_(folder: str, at: int | None, as_json: bool) -> None:
    """List the tasks of a revision: weight, density, size, licence.

    \b
    breadcrumbs store list shared
    breadcrumbs store list shared --at 3
    """
    from breadcrumbs import machine
    from breadcrumbs.cli import console
    from breadcrumbs.store import Store

    with Store.open(folder) as opened:
        entries, tasks = opened.entries(at), opened.ledger.tasks()
    rows = [
        {**tasks[entry.task].said, "name": entry.name, "weight": entry.weight}
        | {"bytes": tasks[entry.task].bytes, "blake3": entry.task}
        for entry in entries
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    header = ("task", "weight", "kept", "size", "licence", "BLAKE3")
    body = [
        (
            row["name"],
            f"{row['weight']:g}",
            f"{row['density']:.2%}",
            machine.human(row["bytes"]),
            row["license"],
            row["blake3"][:12],
        )
        for row in rows
    ]
    console.rows(header, body, right=(1, 2, 3))


@command()
@_folder
@page_options
@json_option
def log(folder: str, as_json: bool, paging: Paging) -> None:
    """List all revisions, the first one first.

    \b
    breadcrumbs store log shared
    breadcrumbs store log shared --html history.html
    """
    from breadcrumbs.cli import console
    from breadcrumbs.store import Store

    with Store.open(folder) as opened:
        rows = [revision.__dict__ for revision in opened.log()]
        if paging.wanted:
            from breadcrumbs.store import picture

            paging.write(picture.of(opened), quiet=as_json)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    header = ("revision", "time", "change", "task", "weight", "BLAKE3")
    body = [
        (
            str(row["number"]),
            row["time"],
            row["action"],
            row["name"],
            f"{row['weight']:g}",
            row["task"][:12],
        )
        for row in rows
    ]
    console.rows(header, body, right=(0, 4))


@command()
@_folder
@click.argument("first", type=click.IntRange(0), metavar="A")
@click.argument("second", type=click.IntRange(0), metavar="B")
@json_option
def diff(folder: str, first: int, second: int, as_json: bool) -> None:
    """Say what differs between revisions A and B. Revision 0 is empty.

    \b
    breadcrumbs store diff shared 3 5
    """
    from breadcrumbs.store import Store

    with Store.open(folder) as opened:
        rows = opened.diff(first, second)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        before, after = row["before"], row["after"]
        if after is None:
            click.echo(f"- {row['name']}")
        elif before is None:
            click.echo(f"+ {row['name']} weight {after['weight']:g}")
        else:
            other = "" if before["task"] == after["task"] else ", another task file"
            click.echo(f"~ {row['name']} weight {before['weight']:g} -> {after['weight']:g}{other}")


@command()
@_folder
@click.option("-o", "--output", required=True, help="Folder, or FILE.safetensors, to write.")
@click.option("-m", "--method", help="Another method than the store's.")
@_param
@_at
@click.option("--dtype", help="Output dtype, such as bfloat16. Default: the base's.")
@click.option("--shard-size", default="5GB", show_default=True, help="Largest file of a folder.")
@click.option("--scratch", is_flag=True, help="From all task files, not from the running sum.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@_strict
@_base
@_threads
@_quiet
@sync_option
@json_option
def merge(folder: str, output: str, params: tuple[str, ...], **options: Any) -> None:
    """Write the merged model of a revision, with the parts and their licences in its card.

    The bits are those of `breadcrumbs merge BASE TASK...` with the task files of that revision.
    What is a sum of task vectors comes from the running sum.

    \b
    breadcrumbs store merge shared -o merged
    breadcrumbs store merge shared -o merged -p alpha=0.5 --dtype bfloat16
    breadcrumbs store merge shared -o before --at 3
    """
    from breadcrumbs import machine
    from breadcrumbs.cli.views import merging

    quiet, as_json = options["quiet"], options["as_json"]
    with _opened(folder, options, "merging") as opened:
        report = opened.merge(
            output,
            shard_size=machine.parse(options["shard_size"]),
            **{key: options[key] for key in ("method", "at", "dtype", "threads")},
            **{key: options[key] for key in ("scratch", "force", "strict")},
            **pairs(params),
        )
    if as_json:
        click.echo(json.dumps({"output": output, **report.to_mapping()}, indent=2))
    elif not quiet:
        merging.report(report, output, verbose=False)


@command()
@_folder
@_at
@_base
@_threads
@_quiet
@json_option
def verify(folder: str, at: int | None, **options: Any) -> None:
    """Prove a store: hash all task files, and merge a revision from scratch.

    That merge must have the same bits as the one from the running sum. Damaged blocks of the sum
    are made again; a damaged task file is an error.

    \b
    breadcrumbs store verify shared
    breadcrumbs store verify shared --at 3
    """
    with _opened(folder, options, "verifying") as opened:
        found = opened.verify(at, options["threads"])
    if options["as_json"]:
        click.echo(json.dumps(found.__dict__, indent=2))
    elif not options["quiet"]:
        repaired = f", {found.repaired} of them made again" if found.repaired else ""
        click.echo(
            f"{folder}: {found.tasks} task files and {found.blocks} blocks of the sum{repaired};"
            f" revision {found.revision} merged from scratch has the same bits, hash {found.hash}"
        )


@command()
@_folder
@click.option("-o", "--output", required=True, metavar="FILE.tar", help="Archive to write.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@_quiet
@sync_option
@json_option
def export(folder: str, output: str, force: bool, **options: Any) -> None:
    """Write a store and its whole history to one archive, without the base.

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
@_folder
@_base
@_quiet
@sync_option
@json_option
def import_(archive: str, folder: str, base: str | None, **options: Any) -> None:
    """Make a store of an archive, all of it compared with its hashes.

    \b
    breadcrumbs store import shared.tar shared --base base
    """
    from breadcrumbs.store import import_ as read

    with read(archive, folder, base) as made:
        _say(made, made.ledger.latest(), options)


@contextmanager
def _opened(folder: str, options: dict[str, Any], doing: str) -> Iterator[Any]:
    """Open a store, with the --base of the options, and say on a terminal what is being done."""
    from breadcrumbs.cli import console
    from breadcrumbs.errors import printable
    from breadcrumbs.store import Store

    with (
        Store.open(folder, options.pop("base")) as opened,
        console.status(quiet=options["quiet"] or options["as_json"]) as step,
    ):
        step(printable(doing))
        yield opened


def _say(opened: Any, number: int | None, options: dict[str, Any]) -> None:
    """Print what a change came to. number: of the revision, None if nothing changed."""
    entries = opened.entries()
    if options["as_json"]:
        found = [entry.__dict__ for entry in entries]
        click.echo(json.dumps({"revision": number, "tasks": found}, indent=2))
    elif not options["quiet"]:
        what = "nothing changed" if number is None else f"revision {number}"
        click.echo(f"{opened.folder}: {what}, {len(entries)} task{'s'[: len(entries) != 1]}")


for _one in (init, add, remove, set_, list_, log, diff, merge, verify, export, import_):
    store.add_command(_one)
