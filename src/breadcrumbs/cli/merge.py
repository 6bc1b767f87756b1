"""`breadcrumbs merge` and `breadcrumbs import`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.shared import (
    command,
    fit_options,
    json_option,
    nonfinite_option,
    pair,
    pairs,
    rename_option,
    sync_option,
)
from breadcrumbs.errors import printable, sentence


@command()
@click.argument("sources", nargs=-1, required=True, metavar="BASE FINETUNED... | RECIPE.yaml")
@click.option("-o", "--output", help="Folder, or FILE.safetensors, to write.")
@click.option("-m", "--method", help="How to merge; `breadcrumbs methods` lists them.")
@click.option("--transform", help="With --aggregate: a pair of one's own instead of a method.")
@click.option("--aggregate", help="How the transformed task vectors are combined.")
@click.option("--finish", help="What is done to the merged step in the end: svc or boost.")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="Methods of one's own.")
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the method, such as -p beta=0.9. Repeatable.",
)
@click.option(
    "-w",
    "--weight",
    "weights",
    multiple=True,
    type=float,
    help="Factor of a task vector; once for each model, in order.",
)
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="GLOB:KEY=VALUE",
    help="A parameter for the tensors whose names match. Repeatable.",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to copy from the base.")
@click.option("--only", multiple=True, metavar="GLOB", help="The only tensors to merge.")
@click.option(
    "--only-changed",
    is_flag=True,
    help="Rank only tensors that differ from the base (granularity model).",
)
@click.option("--dtype", help="Output dtype, such as bfloat16, or same (FP8 again).")
@fit_options(default=None)
@nonfinite_option
@rename_option
@click.option(
    "--untie", is_flag=True, help="Write a head apart from the embedding where models differ."
)
@click.option("--onto", metavar="MODEL", help="Add to this model instead of the base: improve it.")
@click.option(
    "--statistics",
    multiple=True,
    metavar="FILE",
    help="What fisher or regmean needs of a model; once for each model, in order.",
)
@click.option("--tokenizer", metavar="MODEL", help="Copy this model's tokenizer, not the base's.")
@click.option("--seed", type=click.IntRange(0), help="Seed of random methods (default 0).")
@click.option("--shard-size", default="5GB", show_default=True, help="Largest file of a folder.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads to use. Default: all cores.")
@click.option("--max-memory", metavar="SIZE", help="Resident memory not to exceed, such as 500MB.")
@click.option(
    "--kernel",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="numpy, native, or others that are installed: the same bits.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted merge.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@sync_option
@click.option("--verify", is_flag=True, help="Read the result again and compare digests.")
@click.option("--strict", is_flag=True, help="Make every warning an error; write nothing then.")
@click.option("--dry-run", is_flag=True, help="Print the plan and its warnings; write nothing.")
@click.option("--print-recipe", is_flag=True, help="Print the recipe of these flags, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each tensor.")
@json_option
def merge(sources: tuple[str, ...], output: str | None, **options: Any) -> None:
    """Merge fine-tuned models into one.

    BASE is the model that all others were fine-tuned from. Each is a folder, a .safetensors file, a
    .bin/.pt pickle (needs Torch) or a hub id org/name@revision. A RECIPE.yaml says the same as the
    flags; flags given with it win.

    \b
    breadcrumbs merge base ft1 ft2 -o merged
    breadcrumbs merge base ft1 ft2 -o merged -p beta=0.85 -p gamma=0.993 -p alpha=0.5
    breadcrumbs merge base ft1 ft2 -o merged -m task_arithmetic -p alpha=0.4 --exclude "lm_head*"
    breadcrumbs merge base ft1 ft2 --print-recipe > recipe.yaml
    """
    from breadcrumbs import kernels, machine
    from breadcrumbs.cli import console
    from breadcrumbs.cli.views import merging as views_merging
    from breadcrumbs.merging import estimate, files, opening
    from breadcrumbs.methods.registry import load_plugin
    from breadcrumbs.plan import recipe
    from breadcrumbs.plan.judgement import judged

    for plugin in options["plugins"]:
        load_plugin(plugin)
    made, kernel = _recipe(sources, options), options["kernel"]
    kernels.check(kernel)
    if options["print_recipe"]:
        click.echo(recipe.to_yaml(made), nl=False)
        return
    if output is None and not options["dry_run"]:
        raise click.UsageError("give -o OUTPUT, or --dry-run to see the plan")
    max_memory = None
    if options["max_memory"] is not None:
        max_memory = machine.parse(options["max_memory"])
    shard_size = machine.parse(options["shard_size"])
    with opening.opened(made) as plan:
        plan = judged(plan, options["strict"])
        if options["dry_run"]:
            plan, threads = estimate.fitted(plan, options["threads"], max_memory)
            views_merging.plan(plan, threads, as_json=options["as_json"])
            return
        assert output is not None
        quiet = options["quiet"] or options["as_json"]
        console.warnings(plan.warnings if not quiet else ())
        with console.progress(plan, quiet=quiet) as progress:
            report = files.to_files(
                plan,
                output,
                threads=options["threads"],
                max_memory=max_memory,
                shard_size=shard_size,
                kernel=kernel,
                resume=options["resume"],
                force=options["force"],
                verify=options["verify"],
                strict=options["strict"],
                progress=progress,
            )
    if options["as_json"]:
        click.echo(json.dumps({"output": output, **report.to_mapping()}, indent=2))
    elif not options["quiet"]:
        views_merging.report(report, output, verbose=options["verbose"])


def _recipe(sources: tuple[str, ...], options: dict[str, Any]) -> Any:
    """Return the recipe that the arguments of ``merge`` describe."""
    from breadcrumbs.merging import api
    from breadcrumbs.plan import recipe

    if len(sources) == 1 and Path(sources[0]).suffix in (".yaml", ".yml"):
        made = _load(sources[0], quiet=options["quiet"])
    else:
        made = recipe.Recipe(sources[0], tuple(recipe.Model(path) for path in sources[1:]))
    changes: dict[str, Any] = {
        key: options[key]
        for key in ("method", "dtype", "missing", "extra", "seed", "onto", "tokenizer")
    }
    if options["transform"] or options["aggregate"]:
        if options["method"]:
            raise click.UsageError("give --method, or --transform with --aggregate")
        changes["method"] = f"{options['transform'] or 'none'}+{options['aggregate'] or 'sum'}"
    if options["finish"]:
        changes["method"] = f"{changes['method'] or made.method}+{options['finish']}"
    for key in ("only_changed", "allow_nonfinite", "untie"):
        changes[key] = options[key] or None
    for key in ("exclude", "only", "rename"):
        changes[key] = options[key] or None
    if options["weights"]:
        if len(options["weights"]) != len(made.models):
            raise click.UsageError(
                f"{len(options['weights'])} weights are given for {len(made.models)} models"
            )
        both = zip(made.models, options["weights"], strict=True)
        changes["models"] = tuple(replace(m, weight=w) for m, w in both)
    if options["statistics"]:
        if len(options["statistics"]) != len(made.models):
            raise click.UsageError(
                f"{len(options['statistics'])} statistics are given for {len(made.models)} models"
            )
        both = zip(changes.get("models", made.models), options["statistics"], strict=True)
        changes["models"] = tuple(replace(m, statistics=s) for m, s in both)
    overrides = []
    for text in options["overrides"]:
        glob, colon, rest = text.rpartition(":")
        if not colon:
            raise click.UsageError(f"--override {text!r} is not GLOB:KEY=VALUE")
        overrides.append(recipe.override({"tensors": glob, **dict([pair(rest)])}, "--override"))
    changes["overrides"] = (*made.overrides, *overrides) if overrides else None
    changes["parameters"] = pairs(options["params"])
    return api.with_settings(made, **changes)


def _load(path: str, *, quiet: bool) -> Any:
    """Return the recipe in a file, ours or a mergekit configuration, of which notes are printed."""
    from breadcrumbs.plan import mergekit, recipe

    if not mergekit.is_config(Path(path)):
        return recipe.load(path)
    found = mergekit.convert(path)
    for note in found.notes if not quiet else ():
        click.echo(f"breadcrumbs: {path}: {sentence(printable(note))}", err=True)
    return found.recipe


@command("import")
@click.argument("config", metavar="CONFIG.yml")
@json_option
def import_(config: str, as_json: bool) -> None:
    """Print the recipe that a mergekit configuration means.

    `breadcrumbs merge CONFIG.yml -o OUT` runs it as it is. What there is no way to say here is
    refused with its line; what changes no weight is named on stderr.

    \b
    breadcrumbs import config.yml > recipe.yaml
    """
    from breadcrumbs.plan import recipe

    made = _load(config, quiet=False)
    if as_json:
        click.echo(json.dumps(recipe.to_mapping(made), indent=2))
    else:
        click.echo(recipe.to_yaml(made), nl=False)
