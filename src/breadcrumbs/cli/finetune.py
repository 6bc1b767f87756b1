"""`breadcrumbs finetune`."""

from __future__ import annotations

import json
from typing import Any

import click

from breadcrumbs.cli.shared import (
    command,
    engine,
    json_option,
    on_option,
    quiet_option,
    retries_option,
    sync_option,
    workers_option,
)


@command()
@click.argument("suite", metavar="SUITE.yaml")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder to write to.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only these tasks.")
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=click.IntRange(0),
    help="One family of models per seed. Default: 0.",
)
@click.option("--base", help="The base model, instead of the suite's.")
@click.option("--epochs", type=int, default=3, show_default=True, help="Passes over the rows.")
@click.option("--rate", type=float, default=1e-4, show_default=True, help="Learning rate.")
@click.option("--batch", type=int, default=32, show_default=True, help="Rows per step.")
@click.option("--decay", type=float, default=0.01, show_default=True, help="Weight decay.")
@click.option(
    "--warmup",
    type=float,
    default=0.1,
    show_default=True,
    help="Share of the steps in which the rate rises.",
)
@click.option("--schedule", default="cosine", show_default=True, help="cosine or linear.")
@click.option("--freeze", multiple=True, metavar="GLOB", help="Tensors not to train.")
@click.option("--rows", type=int, help="Training rows at most. Default: all.")
@click.option("--lora", type=int, metavar="RANK", help="Train LoRA adapters of this rank instead.")
@click.option("--precision", default="auto", help="float32, bfloat16, or auto (the fastest here).")
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@workers_option
@on_option
@retries_option
@click.option(
    "--save-every", type=click.FloatRange(0), default=60.0, help="Seconds between checkpoints."
)
@click.option("--force", is_flag=True, help="Start over, replacing what is there.")
@quiet_option
@sync_option
@json_option
def finetune(suite: str, output: str, **options: Any) -> None:
    """Fine-tune the base of a suite on each of its tasks.

    Models go to DIR/seed-S/TASK. AdamW; heads are made from the base and frozen; several processes
    of one thread each. DIR/seed-S/suite.yaml is the suite with these models, for `breadcrumbs
    evaluate`. After an interruption, run the same command again: finished models are kept, the
    others resume from their last checkpoint and end with the same bits.

    \b
    breadcrumbs finetune suite.yaml -o family
    breadcrumbs finetune suite.yaml -o family --seed 0 --seed 1 --rate 2e-4 --freeze "embeddings.*"
    breadcrumbs finetune suite.yaml -o adapters --lora 16
    breadcrumbs evaluate family/seed-0/suite.yaml
    """
    from breadcrumbs.cli.views import finetuning as news
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.finetuning import finetuning
    from breadcrumbs.evaluate.finetuning.training import Settings

    names = ("epochs", "rate", "batch", "decay", "warmup", "schedule", "rows", "precision", "lora")
    settings = Settings(**{name: options[name] for name in names}, freeze=options["freeze"])
    where = engine(options)
    made = suites.load(suite, base=options["base"])
    with news.told(quiet=options["quiet"]) as tell:
        records = finetuning.run(
            made,
            output,
            settings,
            tasks=options["tasks"],
            seeds=options["seeds"] or (0,),
            workers=options["workers"],
            device=options["device"],
            force=options["force"],
            every=options["save_every"],
            tell=tell,
            **where,
        )
    if options["as_json"]:
        click.echo(json.dumps(records, indent=2))
