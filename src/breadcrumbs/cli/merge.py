"""`breadcrumbs merge` and `breadcrumbs from-mergekit`."""

from __future__ import annotations

import json
from typing import Any

import click

from breadcrumbs.cli.merging import adapters, recipes, several, uploads
from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import (
    command,
    fit_options,
    force_option,
    json_option,
    max_memory_option,
    nonfinite_option,
    plugin_option,
    quiet_option,
    rename_option,
    scratch_option,
    sync_option,
    threads_option,
)
from breadcrumbs.errors import printable


@command()
@click.argument("sources", nargs=-1, required=True, metavar="BASE FINETUNED... | RECIPE.yaml")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="Folder, or FILE.safetensors, to write; also s3://BUCKET/PATH, gs:// or az://.",
)
@click.option(
    "--to",
    type=click.Choice(("model", "lora")),
    default="model",
    show_default=True,
    help="What to write: lora is the folder of an adapter, which PEFT loads on the base.",
)
@click.option(
    "--rank", type=click.IntRange(1), help="Of that adapter, at most. Default: all that is there."
)
@click.option("-m", "--method", help="Merging method; `breadcrumbs methods` lists them.")
@click.option("--transform", help="With --aggregate: your own pair instead of a method.")
@click.option("--aggregate", help="How the transformed task vectors are combined.")
@click.option("--finish", help="What is done to the merged step at the end: svc or boost.")
@plugin_option
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
    help="Factor of each task vector: give it once per model, in order.",
)
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="GLOB:KEY=VALUE",
    help="A parameter for tensors whose names match. Repeatable.",
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
    "--untie",
    is_flag=True,
    help="Write the output head and the embedding separately where models differ.",
)
@click.option(
    "--onto", metavar="MODEL", help="Add the task vectors to this model instead of the base."
)
@click.option(
    "--statistics",
    multiple=True,
    metavar="FILE",
    help="Statistics for fisher or regmean: give it once per model, in order.",
)
@click.option(
    "--tokenizer", metavar="MODEL", help="Copy the tokenizer of this model, not the base's."
)
@click.option(
    "--vocabulary",
    metavar="MODEL",
    help="Tokens of the result: base, union, or a model's. Default: the smallest that loses none.",
)
@click.option(
    "--pad-to",
    type=click.IntRange(1),
    metavar="N",
    help="Rows of the embedding are a multiple of N, such as 64.",
)
@click.option(
    "--chat-template",
    metavar="auto|MODEL|FILE",
    help="Write this chat template: that of most models, of one, of a file, or chatml, llama3...",
)
@click.option(
    "--space",
    type=click.Choice(("full", "core", "knots")),
    help="Merge adapters in coordinates of their own: core or knots. Default: full, the weights.",
)
@click.option("--seed", type=click.IntRange(0), help="Seed of random methods. Default: 0.")
@click.option("--shard-size", default="5GB", show_default=True, help="Largest file of a folder.")
@scratch_option
@threads_option
@max_memory_option
@click.option(
    "--device",
    metavar="cpu|cuda|cuda:N",
    help="Where matrices are multiplied and decomposed, by methods that do. Default: cpu.",
)
@click.option(
    "--kernel",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, native, numpy or an installed one; all give the same bits.",
)
@click.option("--resume", is_flag=True, help="Resume an interrupted merge.")
@click.option(
    "--part",
    metavar="K/N",
    help="Do every Nth file of the output from the Kth: a merge in parts (docs/scale.md).",
)
@click.option("--commit", is_flag=True, help="Make the output of its parts, when all are there.")
@click.option(
    "--on",
    metavar="ENGINE",
    help="Do the parts, and commit: processes:N, ray, or ray://HOST:10001.",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    help="With --on: how often lost workers are replaced.",
)
@click.option(
    "--push-to-hub",
    metavar="ORG/NAME",
    help="Upload the result to a hub, too; without -o nothing stays here (docs/publishing.md).",
)
@click.option("--public", is_flag=True, help="With --push-to-hub: let all read it.")
@force_option
@sync_option
@click.option("--verify", is_flag=True, help="Read the result again and compare digests.")
@click.option("--strict", is_flag=True, help="Treat warnings as errors, and then write nothing.")
@click.option("--dry-run", is_flag=True, help="Print the plan and its warnings; write nothing.")
@click.option("--print-recipe", is_flag=True, help="Print the recipe of these flags, and stop.")
@quiet_option
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each tensor.")
@page_options
@json_option
def merge(sources: tuple[str, ...], output: str | None, paging: Paging, **options: Any) -> None:
    """Merge fine-tuned models into one.

    BASE is the model that all others were fine-tuned from. Each is a folder, a .safetensors file, a
    .bin/.pt pickle (needs Torch) or a hub id org/name@revision; or an adapter of BASE (LoRA, DoRA,
    ...), as PEFT saves it. A RECIPE.yaml says the same as the flags; flags given with it win.

    \b
    breadcrumbs merge base ft1 ft2 -o merged
    breadcrumbs merge base ft1 ft2 -o merged -p beta=0.85 -p gamma=0.993 -p alpha=0.5
    breadcrumbs merge base ft1 ft2 -o merged -m task_arithmetic -p alpha=0.4 --exclude "lm_head*"
    breadcrumbs merge base lora1 lora2 -o merged -m ties
    breadcrumbs merge lora1 lora2 -o merged-lora --to lora -m ties --space core
    breadcrumbs merge base ft1 ft2 --print-recipe > recipe.yaml
    breadcrumbs merge base ft1 ft2 --dry-run --html plan.html
    """
    from breadcrumbs.methods.registry import load_plugin

    for plugin in options["plugins"]:
        load_plugin(plugin)
    many = recipes.several(sources)
    if options["to"] == "lora":
        adapters.check(options, many, paging)
        adapters.merge(sources, output, options)
    elif options["rank"] is not None:
        raise click.UsageError("--rank is of an adapter: give --to lora")
    elif len(many) > 1:
        several.merge(sources[0], many, output, options, paging, _merge)
    else:
        _merge(recipes.of(sources, options), output, options, paging)


def _merge(made: Any, output: str | None, options: dict[str, Any], paging: Paging | None) -> None:
    """Carry out a recipe, or print it or its plan, as the options say; None: without a page."""
    from breadcrumbs import kernels, machine
    from breadcrumbs.checkpoint import places
    from breadcrumbs.cli import console
    from breadcrumbs.cli import push as pushing
    from breadcrumbs.cli.views import merging as views_merging
    from breadcrumbs.merging import estimate, files, opening
    from breadcrumbs.plan import recipe
    from breadcrumbs.plan.judgement import judged

    kernel = options["kernel"]
    kernels.check(kernel)
    if options["print_recipe"]:
        click.echo(recipe.to_yaml(made), nl=False)
        return
    if output is None and not (options["dry_run"] or options["push_to_hub"]):
        raise click.UsageError("give -o OUTPUT, or --dry-run to see the plan")
    if output is not None and places.is_output(output):
        places.output(output)
    max_memory = None
    if options["max_memory"] is not None:
        max_memory = machine.parse(options["max_memory"])
    shard_size = machine.parse(options["shard_size"])
    if options["part"] or options["commit"] or options["on"]:
        from breadcrumbs.cli import in_parts

        if options["push_to_hub"]:
            raise click.UsageError("merge in parts first, then `breadcrumbs push OUTPUT ORG/NAME`")
        if options["dry_run"] or (paging is not None and paging.wanted):
            raise click.UsageError("give no --dry-run and no page with --part, --commit or --on")
        assert output is not None
        places.refuse_output(output)
        in_parts.merge(made, output, options, shard_size, max_memory)
        return
    to, output, kept = uploads.where(output, options)
    with opening.opened(made, by_token=True) as plan:
        plan = judged(files.advised(plan), options["strict"])
        if options["dry_run"]:
            plan, threads = estimate.fitted(plan, options["threads"], max_memory)
            more = pushing.planned(plan, to, shard_size) if to else None
            views_merging.plan(plan, threads, as_json=options["as_json"], push=more)
            if more and not options["as_json"]:
                click.echo("\n".join(map(printable, pushing.said(more))))
            _page(paging, plan, None, None, threads, quiet=options["as_json"])
            return
        assert output is not None
        quiet = options["quiet"] or options["as_json"]
        console.warnings(plan.warnings if not quiet else ())
        more = plan.bytes_written if places.is_output(output) else 0
        with console.progress(plan, quiet=quiet, more=more) as progress:
            report = files.to_files(
                plan,
                output,
                threads=options["threads"],
                max_memory=max_memory,
                shard_size=shard_size,
                kernel=kernel,
                resume=options["resume"],
                force=options["force"] or not kept,
                verify=options["verify"],
                strict=options["strict"],
                moved=not kept,
                progress=progress,
            )
        output = uploads.said(report, output, to, kept, options, plan.warnings)
        _page(paging, plan, report, output, options["threads"], quiet=quiet)


def _page(
    paging: Paging | None,
    plan: Any,
    report: Any,
    output: str | None,
    threads: int | None,
    *,
    quiet: bool,
) -> None:
    """Write the page of a merge or a plan if it was asked for, which reads the models once more."""
    if paging is None or not paging.wanted:
        return
    from breadcrumbs.merging import looking, picture

    look = looking.look(plan, threads=threads) if plan.models else None
    paging.write(picture.of_merge(plan, look, report, output), quiet=quiet)


@command("from-mergekit")
@click.argument("config", metavar="CONFIG.yml")
@click.option("-o", "--output", metavar="RECIPE.yaml", help="File to write. Default: stdout.")
@force_option
@json_option
def from_mergekit(config: str, output: str | None, force: bool, as_json: bool) -> None:
    """Translate a mergekit configuration into a recipe.

    `breadcrumbs merge CONFIG.yml -o OUT` runs a configuration as it is; no translation is needed.
    What Breadcrumbs cannot do is an error that names the line. Settings that change no weight are
    named on stderr.

    \b
    breadcrumbs from-mergekit config.yml
    breadcrumbs from-mergekit config.yml -o recipe.yaml
    """
    from breadcrumbs.cli import files, silence
    from breadcrumbs.plan import recipe

    made = recipes.load(config, quiet=silence.is_on())
    text = json.dumps(recipe.to_mapping(made), indent=2) + "\n" if as_json else recipe.to_yaml(made)
    if output is None:
        click.echo(text, nl=False)
    else:
        files.write(output, text, force=force)
