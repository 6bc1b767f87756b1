"""`breadcrumbs store`: a model that is kept up to date, task by task."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import click

from breadcrumbs.cli.grouped import Grouped
from breadcrumbs.cli.shared import (
    command,
    fit_options,
    json_option,
    pair,
    pairs,
    quiet_option,
    rename_option,
    scratch_option,
    sync_option,
    threads_option,
)
from breadcrumbs.cli.storing import grams, looking, writing
from breadcrumbs.cli.storing.options import (
    author_option,
    base_option,
    changing,
    folder_argument,
    how,
    message_option,
    param_option,
    say,
    strict_option,
    using,
)


class Commands(Grouped):
    """The commands of `breadcrumbs store` in the order of their help."""

    heads: ClassVar = {
        "Change": ("init", "add", "set", "remove", "revert", "grams"),
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


@command()
@folder_argument
@click.option("--base", required=True, help="The model that all tasks were fine-tuned from.")
@click.option("-m", "--method", default="breadcrumbs", show_default=True, help="How to merge.")
@param_option
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
@folder_argument
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
@message_option
@author_option
@fit_options("FINETUNED")
@rename_option
@strict_option
@base_option
@scratch_option
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

    with using(folder, options, f"adding {name}") as opened:
        settings = {key: options[key] for key in options if key not in ("quiet", "as_json")}
        if not options["quiet"]:
            settings["note"] = lambda line: console.note([line])
        if not (options["quiet"] or options["as_json"]):
            settings["warn"] = console.warnings
        say(opened, opened.add(name, source, **settings), options)


@command()
@folder_argument
@click.argument("name")
@changing
def remove(folder: str, name: str, **options: Any) -> None:
    """Remove a task, as if it had never been there.

    The merged model then has the bits that it would have without that task. The task file stays in
    the store, so that earlier revisions can be rebuilt; `breadcrumbs store gc` drops both.

    \b
    breadcrumbs store remove shared math -m "replaced by math-2"
    """
    with using(folder, options, f"removing {name}") as opened:
        say(opened, opened.remove(name, **how(options)), options)


@command("set")
@folder_argument
@click.argument("name", required=False)
@click.argument("change", metavar="[weight=VALUE]", required=False)
@message_option
@author_option
@click.option("--base", help="Where the base is now. The store remembers it; its hash must match.")
@scratch_option
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
    with using(folder, options, f"setting {name or 'the base'}") as opened:
        if base is not None:
            opened.move_base(base)
        if name is None or weight is None:
            say(opened, None, options, f"the base is at {opened.settings.base}")
        else:
            say(opened, opened.set(name, weight, **how(options)), options)


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
@folder_argument
@click.argument("revision", type=click.IntRange(0))
@changing
def revert(folder: str, revision: int, **options: Any) -> None:
    """Go back to the tasks and weights of a revision.

    This makes a new revision; those in between stay in the history. Revision 0 is the empty store.

    \b
    breadcrumbs store revert shared 3 -m "math-2 was worse"
    """
    with using(folder, options, f"going back to revision {revision}") as opened:
        say(opened, opened.revert(revision, **how(options)), options)


for _one in (init, add, set_, remove, revert, grams.grams):
    store.add_command(_one)
for _one in (looking.info, looking.list_, looking.log, looking.diff, looking.verify):
    store.add_command(_one)
for _one in (writing.merge, writing.export, writing.import_, writing.gc):
    store.add_command(_one)
