"""`breadcrumbs evaluate`."""

from __future__ import annotations

import json
from typing import Any

import click

from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import (
    command,
    json_option,
    on_option,
    quiet_option,
    retries_option,
    scoring,
    workers_option,
)


@command()
@click.argument("suite", metavar="SUITE.yaml")
@click.argument("models", nargs=-1, metavar="[MODEL | RECIPE.yaml]...")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only these tasks.")
@click.option(
    "--split",
    type=click.Choice(["validation", "test", "train"]),
    default="test",
    show_default=True,
    help="The rows to score on.",
)
@click.option("--base", help="The base model, instead of the suite's.")
@click.option(
    "--results",
    default="results.sqlite",
    show_default=True,
    help="Database of scores; known scores are not computed again.",
)
@click.option(
    "--alone", is_flag=True, help="Score only MODEL, not the base and the fine-tuned models."
)
@click.option(
    "--heads",
    metavar="FILE",
    help="Score each MODEL with these corrections too (`breadcrumbs learn --what heads`).",
)
@click.option(
    "--router",
    metavar="FILE",
    help="Score each MODEL with this router too (`breadcrumbs learn --what router`): the task of a"
    " row is not told.",
)
@click.option(
    "--head-given",
    is_flag=True,
    help="Score the router with the heads of the rows' own tasks too, as published results are.",
)
@click.option("--precision", default="auto", help="float32, bfloat16, or auto (the fastest here).")
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@workers_option
@on_option
@retries_option
@quiet_option
@page_options
@json_option
def evaluate(suite: str, models: tuple[str, ...], paging: Paging, **options: Any) -> None:
    """Score models on the tasks of a suite.

    A suite names a base, tasks, and the models fine-tuned on them (docs/suite.md). The base is
    scored too, and each fine-tuned model on its own task: normalised accuracy is a model's accuracy
    divided by that of the fine-tuned model, averaged over tasks. A RECIPE.yaml is merged in memory.
    Scores are stored by the hash of the weights and never computed twice.

    \b
    breadcrumbs evaluate suite.yaml merged --html scores.html
    breadcrumbs evaluate suite.yaml merged --heads heads.safetensors --router router.safetensors
    breadcrumbs evaluate suite.yaml best.yaml --task movies --split validation
    breadcrumbs results results.sqlite --format markdown
    """
    from breadcrumbs.cli import console
    from breadcrumbs.cli.views import results
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.scoring import scores

    if options["head_given"] and options["router"] is None:
        raise click.UsageError("--head-given is of --router FILE")
    made = suites.load(suite, base=options["base"])
    settings = scoring(options)
    quiet = options["quiet"] or options["as_json"]
    with console.counted(quiet=quiet) as progress:
        rows = scores.of(
            made,
            models,
            settings,
            split=options["split"],
            tasks=options["tasks"],
            alone=options["alone"],
            heads=options["heads"],
            router=options["router"],
            head_given=options["head_given"],
            progress=progress,
        )
    if options["as_json"]:
        click.echo(json.dumps([row.to_mapping() for row in rows], indent=2))
    elif not options["quiet"]:
        results.show(rows)
    if paging.wanted:
        from breadcrumbs.evaluate.results import picture, tables

        paging.write(picture.of(tables.of(rows), "evaluate"), quiet=quiet)
