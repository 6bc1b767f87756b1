"""`breadcrumbs store`: a model that is kept up to date, task by task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import click

from breadcrumbs.cli.grouped import Grouped
from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import (
    command,
    fit_options,
    force_option,
    json_option,
    pair,
    pairs,
    quiet_option,
    rename_option,
    sync_option,
    threads_option,
)


class Commands(Grouped):
    """The commands of `breadcrumbs store` in the order of their help."""

    heads: ClassVar = {
        "Change": ("init", "add", "set", "remove", "revert"),
        "Look": ("info", "list", "log", "diff", "verify"),
        "Write": ("merge", "export", "import", "gc"),
    }


@click.group(cls=Commands)
def store() -> None:
    """Keep a merged model up to date, task by task.

    A store is a folder with task files, their history, and the running sum of all tasks. Adding or
    removing a task costs as much as that task, not as all of them. A removed task leaves no bit
    behind in the merged model, and every earlier revision can be written again.

    \b
    breadcrumbs store init shared --base base
    breadcrumbs store add shared math ft-math -m "first try"
    breadcrumbs store merge shared -o merged
    """


_folder = click.argument("folder", metavar="DIR")
_base = click.option("--base", help="Where the base is, if it has moved; for this command only.")
_strict = click.option(
    "--strict", is_flag=True, help="Treat warnings as errors, and then change nothing."
)
_message = click.option("-m", "--message", default="", help="What the change is about, one line.")
_author = click.option(
    "--author", help="Who makes the change. Default: git's user.name, or else your login name."
)
_param = click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the method. Repeatable.",
)


def _changing(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that makes a revision of the tasks that are there."""
    for add in (json_option, sync_option, quiet_option, threads_option, _base, _author, _message):
        function = add(function)
    return function


_at = click.option("--at", type=click.IntRange(0), metavar="REVISION", help="Default: the latest.")


@command()
@_folder
@click.option("--base", required=True, help="The model that all tasks were fine-tuned from.")
@click.option("-m", "--method", default="breadcrumbs", show_default=True, help="How to merge.")
@_param
@quiet_option
@sync_option
@json_option
def init(folder: str, base: str, method: str, params: tuple[str, ...], **options: Any) -> None:
    """Make an empty store for fine-tunings of one base.

    The method decides how tasks are merged. It also decides what is kept of a fine-tuning that you
    add: breadcrumbs, for example, keeps the weights that its mask keeps. So choose now; with
    another method or another mask later you would need the whole fine-tunings again. With
    -m task_arithmetic all changed weights are kept.

    \b
    breadcrumbs store init shared --base base
    breadcrumbs store init shared --base org/base@v1 -p beta=0.85 -p gamma=0.993 -p alpha=0.5
    breadcrumbs store init shared --base base -m task_arithmetic -p alpha=0.4
    """
    from breadcrumbs.cli import console
    from breadcrumbs.store import Store

    with Store.create(folder, base, method=method, **pairs(params)) as made:
        settings, (transform, given) = made.settings, made.packed_as()
    if transform != "none":
        values = ", ".join(f"{key} {value}" for key, value in given.items())
        console.note(
            [
                f"fine-tunings that you add are cut by {transform}"
                f"{f' ({values})' if values else ''} and only what it keeps is stored. Another"
                " method or other parameters of the cut need a new store and the whole fine-tunings"
            ]
        )
    if options["as_json"]:
        click.echo(json.dumps({"store": folder, **settings.__dict__}, indent=2))
    elif not options["quiet"]:
        click.echo(f"{folder}: empty store, base {settings.base_name}, method {settings.method}")


@command()
@_folder
@click.argument("name")
@click.argument("source", metavar="FINETUNED | TASK.safetensors")
@click.option("--replace", is_flag=True, help="Replace the task of that name, in one revision.")
@click.option(
    "-w",
    "--weight",
    type=float,
    help="Factor of its task vector. Default: 1, or that of the task it replaces.",
)
@click.option("--task-author", default="", help="Who made the fine-tuning.")
@click.option("--license", default="", help="Its licence. Default: the one in its model card.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to leave as in the base.")
@click.option("--only", multiple=True, metavar="GLOB", help="The only tensors to pack.")
@_message
@_author
@fit_options("FINETUNED")
@rename_option
@_strict
@_base
@threads_option
@quiet_option
@sync_option
@json_option
def add(folder: str, name: str, source: str, **options: Any) -> None:
    """Add a task under a name: a task file, or a fine-tuning or adapter, which is packed first.

    With --replace it takes the place of the task of that name; the result has the same bits as
    removing that one and adding this one.

    \b
    breadcrumbs store add shared math ft-math -m "trained on the new data"
    breadcrumbs store add shared math ft-math-2 --replace
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
        _say(opened, opened.add(name, source, **settings), options)


@command()
@_folder
@click.argument("name")
@_changing
def remove(folder: str, name: str, **options: Any) -> None:
    """Remove a task, as if it had never been there.

    The merged model then has the bits that it would have without that task. The task file stays in
    the store, so that earlier revisions can be rebuilt; `breadcrumbs store gc` drops both.

    \b
    breadcrumbs store remove shared math -m "replaced by math-2"
    """
    with _opened(folder, options, f"removing {name}") as opened:
        _say(opened, opened.remove(name, **_how(options)), options)


@command("set")
@_folder
@click.argument("name", required=False)
@click.argument("change", metavar="[weight=VALUE]", required=False)
@_message
@_author
@click.option("--base", help="Where the base is now. The store remembers it; its hash must match.")
@threads_option
@quiet_option
@sync_option
@json_option
def set_(folder: str, name: str | None, change: str | None, **options: Any) -> None:
    """Set the weight of a task, or where the base is.

    The weight is the factor of the task vector. A base that has moved must be the same: its hash is
    compared. Moving the base makes no revision.

    \b
    breadcrumbs store set shared law weight=0.5
    breadcrumbs store set shared --base /new/place/base
    """
    base = options["base"]
    if (name is None) != (change is None) or (name is None and base is None):
        raise click.UsageError("give a task and weight=VALUE, or --base")
    weight = _weight(change)
    with _opened(folder, options, f"setting {name or 'the base'}") as opened:
        if base is not None:
            opened.move_base(base)
        if name is None or weight is None:
            _say(opened, None, options, f"the base is at {opened.settings.base}")
        else:
            _say(opened, opened.set(name, weight, **_how(options)), options)


def _weight(change: str | None) -> float | None:
    """Return the weight of ``weight=VALUE``."""
    if change is None:
        return None
    key, value = pair(change)
    if key != "weight":
        raise click.UsageError(f"{key!r} cannot be set; only the weight can: weight=0.5")
    try:
        return float(value)
    except ValueError:
        raise click.UsageError(f"weight: {value!r} is not a number") from None


@command()
@_folder
@click.argument("revision", type=click.IntRange(0))
@_changing
def revert(folder: str, revision: int, **options: Any) -> None:
    """Go back to the tasks and weights of a revision.

    This makes a new revision; those in between stay in the history. Revision 0 is the empty store.

    \b
    breadcrumbs store revert shared 3 -m "math-2 was worse"
    """
    with _opened(folder, options, f"going back to revision {revision}") as opened:
        _say(opened, opened.revert(revision, **_how(options)), options)


@command()
@_folder
@json_option
def info(folder: str, as_json: bool) -> None:
    """Show the base, the method, and what the store takes.

    \b
    breadcrumbs store info shared
    """
    from breadcrumbs.cli.views import store as view
    from breadcrumbs.store import Store, info

    with Store.open(folder) as opened:
        found = info(opened)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        view.info(found)


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
    """List all revisions: when, who, what and why.

    \b
    breadcrumbs store log shared
    breadcrumbs store log shared --html history.html
    """
    from breadcrumbs.cli.views import store as view
    from breadcrumbs.store import Store

    with Store.open(folder) as opened:
        revisions = opened.log()
        if paging.wanted:
            from breadcrumbs.store import picture

            paging.write(picture.of(opened), quiet=as_json)
    if as_json:
        click.echo(json.dumps([revision.__dict__ for revision in revisions], indent=2))
    else:
        view.log(revisions)


@command()
@_folder
@click.argument("first", type=click.IntRange(0), metavar="A")
@click.argument("second", type=click.IntRange(0), metavar="B")
@json_option
def diff(folder: str, first: int, second: int, as_json: bool) -> None:
    """Show what differs between two revisions.

    Revision 0 is the empty store.

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
@click.option(
    "-o", "--output", required=True, metavar="PATH", help="Folder, or FILE.safetensors, to write."
)
@click.option(
    "-m", "--method", help="Another method than the store's, on what the store keeps of each task."
)
@_param
@_at
@click.option("--dtype", help="Output dtype, such as bfloat16. Default: the base's.")
@click.option("--shard-size", default="5GB", show_default=True, help="Largest file of a folder.")
@click.option(
    "--scratch", is_flag=True, help="Merge all task files, without the running sum: the same bits."
)
@force_option
@_strict
@_base
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
@threads_option
@quiet_option
@json_option
def verify(folder: str, at: int | None, **options: Any) -> None:
    """Check all files, and merge a revision from scratch.

    That merge must have the same bits as the one from the running sum. Damaged blocks of the sum
    are rebuilt; a damaged task file is an error.

    \b
    breadcrumbs store verify shared
    breadcrumbs store verify shared --at 3
    """
    with _opened(folder, options, "verifying") as opened:
        found = opened.verify(at, options["threads"])
    if options["as_json"]:
        click.echo(json.dumps(found.__dict__, indent=2))
    elif not options["quiet"]:
        repaired = f" ({found.repaired} of them rebuilt)" if found.repaired else ""
        click.echo(
            f"{folder}: {found.tasks} task files and {found.blocks} blocks of the sum are intact"
            f"{repaired}; revision {found.revision} merged from scratch has the same bits, hash"
            f" {found.hash}"
        )


@command()
@_folder
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
@_folder
@_base
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
        _say(made, None, options, f"revision {made.ledger.latest()}")


@command()
@_folder
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many revisions to keep, counted from the latest.",
)
@click.option("--delete", is_flag=True, help="Do it. Without this, only show what would go.")
@_base
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

    with _opened(folder, options, "dropping old revisions") as opened:
        found = collect(opened, keep, delete=delete, threads=options["threads"])
    if options["as_json"]:
        click.echo(json.dumps(found.__dict__, indent=2))
    else:
        view.collected(found, folder)


@contextmanager
def _opened(folder: str, options: dict[str, Any], doing: str) -> Iterator[Any]:
    """Open a store, with the --base of the options, and say on a terminal what is being done."""
    from breadcrumbs.cli import console
    from breadcrumbs.errors import printable
    from breadcrumbs.store import Store

    with (
        Store.open(folder, options.pop("base")) as opened,
        console.status(quiet=options["as_json"]) as step,
    ):
        step(printable(doing))
        yield opened


def _how(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a change that all changes have."""
    return {key: options[key] for key in ("threads", "author", "message")}


def _say(opened: Any, revision: Any, options: dict[str, Any], what: str = "") -> None:
    """Print what a change came to. revision: the new one, None if nothing changed, or if that is
    said by ``what``."""
    entries = opened.entries()
    number = revision.number if revision else opened.ledger.latest() if what else None
    if options["as_json"]:
        found = [entry.__dict__ for entry in entries]
        click.echo(json.dumps({"revision": number, "tasks": found}, indent=2))
    elif not options["quiet"]:
        what = what or (f"revision {number}" if revision else "nothing changed")
        click.echo(f"{opened.folder}: {what}, {len(entries)} task{'s'[: len(entries) != 1]}")


for _one in (init, add, remove, set_, revert, info, list_, log, diff, merge, verify, export):
    store.add_command(_one)
store.add_command(import_)
store.add_command(gc)
