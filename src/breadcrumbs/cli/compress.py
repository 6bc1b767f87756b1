"""`breadcrumbs compress`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from breadcrumbs.cli.shared import (
    command,
    force_option,
    json_option,
    pairs,
    quiet_option,
    rename_option,
    scoring,
    scratch_option,
    sync_option,
    threads_option,
)

if TYPE_CHECKING:
    from breadcrumbs.plan.recipe import Recipe


@command()
@click.argument("sources", nargs=-1, metavar="[BASE FINETUNED...]")
@click.option("-o", "--output", required=True, metavar="FILE.safetensors", help="File to write.")
@click.option("-m", "--method", default="tall", show_default=True, help="tall, emr or tsv.")
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="For tall: scale (lambda, default 0.4; one, or one per task: 0.2,0.4), on (sum or ties).",
)
@click.option(
    "--name", "names", multiple=True, help="Name of a task: give it once per model, in order."
)
@click.option(
    "--whole",
    multiple=True,
    metavar="GLOB",
    help="Tensors to store whole for each model, such as heads.",
)
@rename_option
@click.option(
    "--suite",
    metavar="SUITE.yaml",
    help="Choose the scale of each task on validation rows; without BASE, take its models.",
)
@click.option(
    "--results",
    default="results.sqlite",
    show_default=True,
    help="With --suite: database that keeps scores.",
)
@click.option("--precision", default="auto", help="float32, bfloat16, or auto (the fastest here).")
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes. Default: all cores.")
@scratch_option
@threads_option
@force_option
@click.option("--strict", is_flag=True, help="Treat warnings as errors, and then write nothing.")
@quiet_option
@sync_option
@json_option
def compress(sources: tuple[str, ...], output: str, **options: Any) -> None:
    """Compress fine-tunings into one file.

    With the base beside it, `breadcrumbs extract` rebuilds each of them. tall keeps one multi-task
    model and one bit per weight and task (TALL-masks); emr one unified model, one bit per weight
    and task, and a factor for each task; tsv the leading singular vectors of each task. Tensors
    that no model changed are not stored. The scale of a mask is the one given, the best on
    validation rows with --suite, or 0.4.

    \b
    breadcrumbs compress base cats dogs birds -o tasks.safetensors
    breadcrumbs compress --suite suite.yaml -o tasks.safetensors
    breadcrumbs extract tasks.safetensors dogs -o dogs-again
    """
    from breadcrumbs import archives
    from breadcrumbs.cli import console
    from breadcrumbs.cli.views import archives as view

    quiet = options["quiet"] or options["as_json"]
    recipe = _recipe(sources, options)
    parameters: dict[str, Any] = pairs(options["params"])
    if options["suite"] is not None and options["method"] == "tall" and "scale" not in parameters:
        parameters["scale"] = _scales(recipe, parameters, options)
    with console.status(quiet=quiet) as step:
        step("compressing")
        report = archives.compress(
            recipe.base,
            [model.path for model in recipe.models],
            output,
            method=options["method"],
            names=[model.name for model in recipe.models],
            whole=options["whole"],
            rename=options["rename"],
            threads=options["threads"],
            force=options["force"],
            strict=options["strict"],
            **parameters,
        )
    if options["as_json"]:
        click.echo(json.dumps(report.to_mapping(), indent=2))
    elif not quiet:
        view.show(report)


def _recipe(sources: tuple[str, ...], options: dict[str, Any]) -> Recipe:
    """Return the base and the models, with the names of their tasks."""
    from breadcrumbs.merging import opening
    from breadcrumbs.plan.recipe import Recipe

    if len(sources) > 1:
        base, *models = sources
        return Recipe(base, opening.named(models, options["names"] or None))
    if sources or options["suite"] is None:
        raise click.UsageError("give BASE and one fine-tuned model or more, or --suite")
    if options["names"]:
        raise click.UsageError("the models of a suite are named as its tasks, so give no --name")
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.tune.search import suites as family

    suite = suites.load(options["suite"])
    return family.template(suite, [task.name for task in suite.tasks])


def _scales(recipe: Recipe, parameters: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """Return the scale of each model, found on validation rows."""
    from dataclasses import replace

    from breadcrumbs.cli import console
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.tune import scales

    quiet = options["quiet"] or options["as_json"]
    suite = suites.load(options["suite"], base=recipe.base)
    recipe = replace(
        recipe,
        method="tall_mask",
        parameters=parameters,
        exclude=options["whole"],
        rename=options["rename"],
    )
    with console.counted(quiet=quiet) as progress:
        found = scales.of_suite(recipe, suite, scoring(options), progress)
    return [found[model.name] for model in recipe.models]
