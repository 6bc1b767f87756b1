"""`breadcrumbs merge` and `breadcrumbs from-mergekit`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import (
    command,
    fit_options,
    force_option,
    json_option,
    max_memory_option,
    nonfinite_option,
    pair,
    pairs,
    plugin_option,
    quiet_option,
    rename_option,
    scratch_option,
    sync_option,
    threads_option,
)
from breadcrumbs.errors import printable, sentence


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
    several = _several(sources)
    if options["to"] == "lora":
        _check_lora(options, several, paging)
        _merge_to_lora(sources, output, options)
    elif options["rank"] is not None:
        raise click.UsageError("--rank is of an adapter: give --to lora")
    elif len(several) > 1:
        _merge_several(sources[0], several, output, options, paging)
    else:
        _merge(_recipe(sources, options), output, options, paging)


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
    to, output, kept = _pushing(output, options)
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
        output = _said(report, output, to, kept, options, plan.warnings)
        _page(paging, plan, report, output, options["threads"], quiet=quiet)


def _said(
    report: Any, output: str, to: Any, kept: bool, options: dict[str, Any], told: Sequence[str] = ()
) -> str | None:
    """Push what was written, if it is to be, and print the report; return where it stays, if it
    does. told: warnings that were printed before."""
    from breadcrumbs.cli import push as pushing
    from breadcrumbs.cli.views import merging as views_merging

    push = pushing.pushed(Path(output), to) if to else None
    if not kept:
        shutil.rmtree(Path(output).parent, ignore_errors=True)
        report.output = ""
    place = output if kept else None
    if options["as_json"]:
        more = {"output": place, **report.to_mapping(), **({"push": push} if push else {})}
        click.echo(json.dumps(more, indent=2))
    elif not options["quiet"]:
        views_merging.report(report, place, verbose=options["verbose"], told=told)
        if push:
            click.echo(f"pushed: {printable(push['commit'])}", err=True)
    return place


def _pushing(output: str | None, options: dict[str, Any]) -> tuple[Any, str | None, bool]:
    """Return the repository to push to if one is asked for, the folder to write, and whether it
    stays."""
    if options["push_to_hub"] is None:
        if options["public"]:
            raise click.UsageError("--public is of --push-to-hub")
        return None, output, True
    from breadcrumbs.checkpoint import mirrors, places
    from breadcrumbs.merging import publishing

    if output is not None and (places.is_output(output) or output.endswith(".safetensors")):
        raise click.UsageError("--push-to-hub uploads a folder: give -o FOLDER, or no -o")
    repo = options["push_to_hub"]
    to = publishing.looked(repo, public=options["public"], force=options["force"])
    if output is not None:
        return to, output, True
    home = mirrors.scratch()[0] / f"breadcrumbs-push-{repo.replace('/', '--')}"
    return to, str(home / to.name.partition("/")[2]), False


def _check_lora(options: dict[str, Any], several: list[Any], paging: Paging) -> None:
    """Raise UsageError for what does not go with --to lora."""
    for key in ("resume", "verify", "dry_run", "part", "commit", "on"):
        if options[key]:
            raise click.UsageError(f"--to lora does not go with --{key.replace('_', '-')}")
    if len(several) > 1 or paging.wanted:
        raise click.UsageError("--to lora writes one adapter, without a page")


def _merge_to_lora(sources: tuple[str, ...], output: str | None, options: dict[str, Any]) -> None:
    """Merge adapters into one, of which the base may be missing."""
    from breadcrumbs import kernels
    from breadcrumbs.cli import console
    from breadcrumbs.merging import adapting
    from breadcrumbs.plan import recipe

    kernels.check(options["kernel"])
    if not _is_file(sources) and adapting.is_adapter(sources[0]):
        sources = ("", *sources)
    made = _recipe(sources, options)
    if options["print_recipe"]:
        click.echo(recipe.to_yaml(made), nl=False)
        return
    to, output, kept = _pushing(output, options)
    if output is None:
        raise click.UsageError("give -o OUTPUT")
    quiet = options["quiet"] or options["as_json"]
    with adapting.opened(made) as plan:
        console.warnings(plan.warnings if not quiet else ())
        settings = {key: options[key] for key in ("rank", "threads", "kernel", "strict")}
        settings["force"] = options["force"] or not kept
        report = adapting.to_folder(plan, output, **settings)
    _said(report, output, to, kept, options)


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


def _is_file(sources: tuple[str, ...]) -> bool:
    """Whether the arguments are one recipe, and not models."""
    return len(sources) == 1 and Path(sources[0]).suffix in (".yaml", ".yml")


def _several(sources: tuple[str, ...]) -> list[Any]:
    """Return the merges of a file of mergekit's that holds several."""
    if not _is_file(sources):
        return []
    from breadcrumbs.plan import mergekit

    path = Path(sources[0])
    return mergekit.documents(path) if mergekit.is_config(path) else []


def _merge_several(
    path: str,
    documents: list[Any],
    output: str | None,
    options: dict[str, Any],
    paging: Paging,
) -> None:
    """Carry out merges of which one takes the result of another, each into a folder.

    That without a name is the output, and the others lie beside it, in ``OUTPUT.parts``; where all
    have names, all lie in the output. A page is that of the last one.
    """
    from breadcrumbs.checkpoint import places
    from breadcrumbs.plan import mergekit

    if options["part"] or options["commit"] or options["on"]:
        raise click.UsageError(f"{path} holds {len(documents)} merges: do one at a time in parts")
    if options["push_to_hub"]:
        raise click.UsageError(f"{path} holds {len(documents)} merges: push what they make later")
    places.refuse_output(output or "")
    if output is None or options["dry_run"] or options["print_recipe"]:
        raise click.UsageError(
            f"{path} holds {len(documents)} merges, of which some begin with what others make: give"
            " -o OUTPUT, and neither --dry-run nor --print-recipe"
        )
    folder = Path(output) if documents[-1].name else Path(output).with_suffix(".parts")
    places = {one.name: str((folder / one.name).absolute()) for one in documents if one.name}
    for one in documents:
        place = str(folder / one.name) if one.name else output
        if one.name and options["resume"] and Path(place).exists():
            continue
        found = mergekit.convert(path, one.at(places))
        _note(path, found.notes, options["quiet"])
        last = one is documents[-1]
        _merge(_changed(found.recipe, options), place, options, paging if last else None)


def _recipe(sources: tuple[str, ...], options: dict[str, Any]) -> Any:
    """Return the recipe that the arguments of ``merge`` describe."""
    from breadcrumbs.plan import recipe

    if _is_file(sources):
        made = _load(sources[0], quiet=options["quiet"])
    else:
        made = recipe.Recipe(sources[0], tuple(recipe.Model(path) for path in sources[1:]))
    return _changed(made, options)


def _changed(made: Any, options: dict[str, Any]) -> Any:
    """Return a recipe with what the options say in its place."""
    from breadcrumbs.merging import api
    from breadcrumbs.plan import recipe

    changes: dict[str, Any] = {
        key: options[key]
        for key in (
            *("method", "dtype", "missing", "extra", "seed", "onto", "tokenizer", "space"),
            "device",
            "chat_template",
            *("vocabulary", "pad_to"),
        )
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
    _note(path, found.notes, quiet)
    return found.recipe


def _note(path: str, notes: Sequence[str], quiet: bool) -> None:
    for note in notes if not quiet else ():
        click.echo(f"breadcrumbs: {path}: {sentence(printable(note))}", err=True)


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

    made = _load(config, quiet=silence.is_on())
    text = json.dumps(recipe.to_mapping(made), indent=2) + "\n" if as_json else recipe.to_yaml(made)
    if output is None:
        click.echo(text, nl=False)
    else:
        files.write(output, text, force=force)
