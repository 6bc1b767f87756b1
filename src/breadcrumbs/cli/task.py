"""`breadcrumbs task`: tasks as small files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import click

from breadcrumbs.cli.grouped import Grouped
from breadcrumbs.cli.shared import (
    command,
    fit_options,
    force_option,
    json_option,
    pairs,
    quiet_option,
    rename_option,
    scratch_option,
    sync_option,
    threads_option,
)


class Tasks(Grouped):
    """The commands of `breadcrumbs task` in the order of their help."""

    heads: ClassVar = {"Pack": ("pack", "unpack"), "Exchange": ("import", "export")}


@click.group(cls=Tasks)
def task() -> None:
    """Pack fine-tunings into small task files, and unpack them.

    A task file holds the weights that a fine-tuning changed, or those of them that a transform
    keeps. You can give a task file wherever a fine-tuned model is expected.

    \b
    breadcrumbs task pack base ft1 -o t1.safetensors
    breadcrumbs merge base t1.safetensors t2.safetensors -o merged
    breadcrumbs inspect t1.safetensors
    breadcrumbs task import base lora-adapter -o t3.safetensors
    """


@command()
@click.argument("base")
@click.argument("finetuned")
@click.option("-o", "--output", required=True, metavar="FILE.safetensors", help="File to write.")
@click.option(
    "--transform",
    default="breadcrumbs",
    show_default=True,
    help="What is kept, such as magnitude; none keeps all that changed.",
)
@click.option("-p", "--param", "params", multiple=True, help="KEY=VALUE of the transform.")
@click.option(
    "--encoding",
    default="exact",
    show_default=True,
    help="How kept weights are stored: exact, int8, int4, ternary, tvq:bits=3, tsv:rank=16, or"
    " tsv:energy=0.8.",
)
@click.option("--name", default="", help="Name of the task. Default: the last part of the path.")
@click.option("--base-name", default="", help="Name of the base, such as its hub id.")
@click.option("--author", default="", help="Who made the fine-tuning.")
@click.option("--license", default="", help="Licence of the fine-tuning.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to leave as in the base.")
@click.option("--only", multiple=True, metavar="GLOB", help="The only tensors to pack.")
@fit_options("FINETUNED", "BASE")
@rename_option
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of random transforms.")
@scratch_option
@threads_option
@force_option
@click.option("--strict", is_flag=True, help="Treat warnings as errors, and then write nothing.")
@quiet_option
@sync_option
@json_option
def pack(base: str, finetuned: str, output: str, **options: Any) -> None:
    """Write what a transform keeps of a fine-tuning to a small file.

    The weights are kept as they are, so merging task files gives the same bits as merging the
    fine-tunings by the method of that transform. With `--transform none` that holds for any method.
    Other encodings than `exact` make smaller files that come near the weights; the error is printed
    and in the file (docs/task-file.md).

    \b
    breadcrumbs task pack base ft1 -o t1.safetensors
    breadcrumbs task pack base ft1 -o t1.safetensors --encoding int8
    breadcrumbs task pack base ft1 -o t1.safetensors -p beta=0.85 -p gamma=0.993
    breadcrumbs task pack org/base org/ft --transform none -o t1.safetensors --author "A. Author"
    """
    from breadcrumbs import machine
    from breadcrumbs.cli import console
    from breadcrumbs.cli.views import inspection
    from breadcrumbs.merging import opening
    from breadcrumbs.plan.judgement import judged
    from breadcrumbs.plan.recipe import Model
    from breadcrumbs.tasks import packing

    made = packing.recipe(
        base,
        (Model(finetuned, name=options["name"]),),
        options["transform"],
        pairs(options["params"]),
        **{key: options[key] for key in ("exclude", "only", "missing", "extra", "rename", "seed")},
    )
    quiet = options["quiet"] or options["as_json"]
    with opening.opened(made, on_base=True) as plan:
        plan = judged(plan, options["strict"], packing=True)
        console.warnings(plan.warnings if not quiet else ())
        with console.progress(plan, quiet=quiet, doing="packing") as progress:
            said = packing.of(
                plan,
                output,
                encoding=options["encoding"],
                base_name=options["base_name"],
                author=options["author"],
                license=options["license"],
                threads=options["threads"],
                force=options["force"],
                progress=progress,
            )
        whole = sum(tensor.nbytes for tensor in plan.models[0].tensors.values())
    nbytes = Path(output).stat().st_size
    if options["as_json"]:
        click.echo(
            json.dumps(
                {"output": output, "bytes": nbytes, **said.to_mapping(), "notes": list(plan.notes)},
                indent=2,
            )
        )
    elif not options["quiet"]:
        click.echo(
            f"{output}: {said.kept:,} of {said.weights:,} weights ({said.density:.2%}),"
            f" {machine.human(nbytes)}, {nbytes / whole:.3f} of the model's {machine.human(whole)}"
            f"; values {said.encoding}{inspection.lost(said.error)}"
        )
        console.note(plan.notes)


@command()
@click.argument("base")
@click.argument("files", nargs=-1, required=True, metavar="TASK.safetensors...")
@click.option(
    "-o", "--output", required=True, metavar="PATH", help="Folder, or FILE.safetensors, to write."
)
@click.option("--shard-size", default="5GB", show_default=True, help="Largest file of a folder.")
@scratch_option
@threads_option
@force_option
@quiet_option
@sync_option
@json_option
def unpack(base: str, files: tuple[str, ...], output: str, **options: Any) -> None:
    """Rebuild the fine-tunings that task files stand for.

    Weights that a task does not keep are the base's. One task makes OUTPUT, several a folder each
    in it.

    \b
    breadcrumbs task unpack base t1.safetensors -o ft1-again
    breadcrumbs task unpack base t1.safetensors t2.safetensors -o finetunings
    """
    from breadcrumbs import machine
    from breadcrumbs.tasks import unpacking

    outputs = unpacking.unpack(
        base,
        files,
        output,
        threads=options["threads"],
        shard_size=machine.parse(options["shard_size"]),
        force=options["force"],
    )
    if options["as_json"]:
        click.echo(json.dumps({"outputs": [str(path) for path in outputs]}, indent=2))
    elif not options["quiet"]:
        for path in outputs:
            click.echo(str(path))


@command("export")
@click.argument("base")
@click.argument("task", metavar="TASK")
@click.option(
    "-o", "--output", required=True, metavar="PATH", help="Folder, or FILE.safetensors, to write."
)
@click.option(
    "--to", required=True, type=click.Choice(("dense", "lora", "patch")), help="What to write."
)
@click.option(
    "--rank", type=click.IntRange(1), default=16, show_default=True, help="Of a LoRA adapter."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to leave as in the base.")
@force_option
@quiet_option
@sync_option
@json_option
def export(base: str, task: str, output: str, **options: Any) -> None:
    """Write what a task file stands for, for other programs.

    dense is the whole fine-tuning. lora is the folder of an adapter, which PEFT opens: the leading
    singular triplets of what changed of each matrix, other tensors as they are; what is lost is
    printed. patch is one file of flat indices and values, tensor by tensor. For lora and patch,
    TASK may also be a fine-tuned model.

    \b
    breadcrumbs task export base t1.safetensors --to lora --rank 16 -o adapter
    breadcrumbs task export base t1.safetensors --to patch -o patch.safetensors
    """
    from breadcrumbs.tasks import exporting

    error = exporting.export(
        base, task, output, **{key: options[key] for key in ("to", "rank", "exclude", "force")}
    )
    if options["as_json"]:
        click.echo(json.dumps({"output": output, "error": error}, indent=2))
    elif not options["quiet"]:
        lost = "" if error is None else f": {error['relative']:.2%} of the task vector is lost"
        click.echo(f"{output}{lost}")


@command("import")
@click.argument("base")
@click.argument("adapter")
@click.option("-o", "--output", required=True, metavar="FILE.safetensors", help="File to write.")
@click.option("--name", default="", help="Name of the task. Default: the last part of the path.")
@click.option("--author", default="", help="Who made the fine-tuning.")
@click.option("--license", default="", help="Licence of the fine-tuning.")
@click.option("--extra", default="error", help="Tensors that BASE lacks: error or ignore.")
@click.option(
    "--rename",
    multiple=True,
    metavar="OLD=NEW",
    help="Rename tensors of the adapter to the names in BASE, such as OLD.*=NEW.*.",
)
@force_option
@quiet_option
@sync_option
@json_option
def import_(base: str, adapter: str, output: str, **options: Any) -> None:
    """Make a task file of a LoRA adapter: a folder or hub id of PEFT's, or a LoRA file.

    It holds the two matrices of the adapter as they are, and merges with other task files and with
    whole fine-tunings: what is added up are the changes B A, not the matrices.

    \b
    breadcrumbs task import base my-adapter -o t1.safetensors
    breadcrumbs task import vlm adapter -o t1.safetensors --rename "model.*=language_model.model.*"
    breadcrumbs merge base t1.safetensors ft2 -m task_arithmetic -o merged
    """
    from breadcrumbs import machine
    from breadcrumbs.cli import console
    from breadcrumbs.tasks import importing

    quiet, as_json = options.pop("quiet"), options.pop("as_json")
    notes: list[str] = []
    warnings: list[str] = []
    tell = {"note": notes.append, "warn": warnings.extend}
    said = importing.from_adapter(base, adapter, output, **tell, **options)
    if not quiet:
        console.note(notes)
        console.warnings(warnings)
    nbytes = Path(output).stat().st_size
    if as_json:
        click.echo(json.dumps({"output": output, "bytes": nbytes, **said.to_mapping()}, indent=2))
    elif not quiet:
        products = sum(tensor.rank > 0 for tensor in said.tensors.values())
        whole = len(said.tensors) - products
        click.echo(
            f"{output}: {products} products and {whole} other tensors, {machine.human(nbytes)}"
        )


task.add_command(export)
task.add_command(import_)
task.add_command(pack)
task.add_command(unpack)
