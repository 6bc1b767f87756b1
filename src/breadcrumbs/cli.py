"""The command line: one short function a command, each a call into the library."""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from breadcrumbs.errors import BreadcrumbsError, printable
from breadcrumbs.version import __version__

# NumPy is not loaded yet. The threads of its linear algebra would only cost their start, and what
# is imported is no garbage.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
gc.set_threshold(200_000)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 a problem with the input, 2 wrong usage. ",
)
@click.version_option(__version__, prog_name="breadcrumbs")
def main() -> None:
    """Merge fine-tunings of one foundation model into one multi-task model.

    Subtract the base, cut both tails of each task vector, add them up, add them to the base: no
    training, no data, a few hundred MB of memory.

    \b
    breadcrumbs demo                                   see it work, in under a minute
    breadcrumbs merge BASE FT1 FT2 -o merged           merge with Model Breadcrumbs
    breadcrumbs merge recipe.yaml -o merged            the same from a recipe file
    """


def _command(name: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command whose errors are one line on stderr and exit code 1."""

    def wrap(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except BreadcrumbsError as error:
                click.echo(f"breadcrumbs: {printable(str(error))}", err=True)
                sys.exit(1)
            except KeyboardInterrupt:
                advice = " Give --resume to go on." if function.__name__ == "merge" else ""
                click.echo(f"breadcrumbs: interrupted.{advice}", err=True)
                sys.exit(130)
            except OSError as error:  # stdout is full or closed; files raise errors of ours
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115
                if not isinstance(error, BrokenPipeError):
                    click.echo(f"breadcrumbs: cannot print: {error.strerror}.", err=True)
                sys.exit(1)

        return main.command(name)(run)

    return wrap


def _json_option(function: Callable[..., None]) -> Callable[..., None]:
    return click.option("--json", "as_json", is_flag=True, help="Print machine output to stdout.")(
        function
    )


@_command()
@click.argument("sources", nargs=-1, required=True, metavar="BASE FINETUNED... | RECIPE.yaml")
@click.option("-o", "--output", help="Folder, or FILE.safetensors, to write.")
@click.option("-m", "--method", help="How to merge; `breadcrumbs methods` lists them.")
@click.option("--transform", help="With --aggregate: a pair of one's own instead of a method.")
@click.option("--aggregate", help="How the transformed task vectors are combined.")
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
@click.option("--dtype", help="Output dtype, such as bfloat16. Default: the base's.")
@click.option("--missing", help="Tensors a model lacks: error (default), or base: unchanged.")
@click.option("--extra", help="Tensors the base lacks: error (default), or ignore.")
@click.option("--allow-nonfinite", is_flag=True, help="Count NaN and infinity as unchanged.")
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
@click.option("--resume", is_flag=True, help="Go on with an interrupted merge.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("--verify", is_flag=True, help="Read the result again and compare digests.")
@click.option("--dry-run", is_flag=True, help="Print the plan; read no weights, write nothing.")
@click.option("--print-recipe", is_flag=True, help="Print the recipe of these flags, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each tensor.")
@_json_option
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
    from breadcrumbs import merging, recipe, show, sizes
    from breadcrumbs.methods import load_plugin

    for plugin in options["plugins"]:
        load_plugin(plugin)
    made = _recipe(sources, options)
    if options["print_recipe"]:
        click.echo(recipe.to_yaml(made), nl=False)
        return
    if output is None and not options["dry_run"]:
        raise click.UsageError("give -o OUTPUT, or --dry-run to see the plan")
    max_memory = None
    if options["max_memory"] is not None:
        max_memory = sizes.parse(options["max_memory"])
    shard_size = sizes.parse(options["shard_size"])
    with merging.opened(made) as plan:
        if options["dry_run"]:
            threads = sizes.threads(plan, options["threads"], max_memory)
            show.plan(plan, threads, as_json=options["as_json"])
            return
        assert output is not None
        with show.progress(plan, quiet=options["quiet"] or options["as_json"]) as progress:
            report = merging.to_files(
                plan,
                output,
                threads=options["threads"],
                max_memory=max_memory,
                shard_size=shard_size,
                resume=options["resume"],
                force=options["force"],
                verify=options["verify"],
                progress=progress,
            )
    if options["as_json"]:
        click.echo(json.dumps({"output": output, **report.to_mapping()}, indent=2))
    elif not options["quiet"]:
        show.report(report, output, verbose=options["verbose"])


def _recipe(sources: tuple[str, ...], options: dict[str, Any]) -> Any:
    """Return the recipe that the arguments of ``merge`` describe."""
    from breadcrumbs import merging, recipe

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
    for key in ("only_changed", "allow_nonfinite"):
        changes[key] = options[key] or None
    for key in ("exclude", "only"):
        changes[key] = options[key] or None
    if options["weights"]:
        if len(options["weights"]) != len(made.models):
            raise click.UsageError(
                f"{len(options['weights'])} weights are given for {len(made.models)} models"
            )
        pairs = zip(made.models, options["weights"], strict=True)
        changes["models"] = tuple(replace(m, weight=w) for m, w in pairs)
    if options["statistics"]:
        if len(options["statistics"]) != len(made.models):
            raise click.UsageError(
                f"{len(options['statistics'])} statistics are given for {len(made.models)} models"
            )
        pairs = zip(changes.get("models", made.models), options["statistics"], strict=True)
        changes["models"] = tuple(replace(m, statistics=s) for m, s in pairs)
    overrides = []
    for text in options["overrides"]:
        glob, colon, rest = text.rpartition(":")
        if not colon:
            raise click.UsageError(f"--override {text!r} is not GLOB:KEY=VALUE")
        overrides.append(recipe.override({"tensors": glob, **dict([_pair(rest)])}, "--override"))
    changes["overrides"] = (*made.overrides, *overrides) if overrides else None
    changes["parameters"] = _pairs(options["params"])
    return merging.with_settings(made, **changes)


def _load(path: str, *, quiet: bool) -> Any:
    """Return the recipe in a file, ours or a mergekit configuration, of which notes are printed."""
    from breadcrumbs import mergekit, recipe

    if not mergekit.is_config(Path(path)):
        return recipe.load(path)
    found = mergekit.convert(path)
    for note in found.notes if not quiet else ():
        click.echo(f"breadcrumbs: {path}: {printable(note)}.", err=True)
    return found.recipe


@_command("import")
@click.argument("config", metavar="CONFIG.yml")
@_json_option
def import_(config: str, as_json: bool) -> None:
    """Print the recipe that a mergekit configuration means.

    `breadcrumbs merge CONFIG.yml -o OUT` runs it as it is. What there is no way to say here is
    refused with its line; what changes no weight is named on stderr.

    \b
    breadcrumbs import config.yml > recipe.yaml
    """
    from breadcrumbs import recipe

    made = _load(config, quiet=False)
    if as_json:
        click.echo(json.dumps(recipe.to_mapping(made), indent=2))
    else:
        click.echo(recipe.to_yaml(made), nl=False)


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in texts:
        key, value = _pair(text)
        if key in found:
            raise click.UsageError(f"--param {key} is given twice")
        found[key] = value
    return found


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"{text!r} is not KEY=VALUE, such as beta=0.9")
    return key.strip(), value.strip()


@_command()
@click.argument("name", required=False)
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="Methods of one's own.")
@_json_option
def methods(name: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List the methods, or explain the method NAME: formula, parameters, paper.

    \b
    breadcrumbs methods
    breadcrumbs methods breadcrumbs
    breadcrumbs methods breadcrumbs+elect
    """
    from breadcrumbs import methods as table
    from breadcrumbs import show

    for plugin in plugins:
        table.load_plugin(plugin)
    chosen = [table.get(name)] if name else list(table.METHODS.values())
    if as_json:
        click.echo(json.dumps([show.method_mapping(method) for method in chosen], indent=2))
    elif name:
        show.method(chosen[0])
    else:
        show.methods(chosen)


@_command()
@click.argument("base")
@click.argument("models", nargs=-1, required=True, metavar="FINETUNED...")
@click.option("-o", "--output", required=True, help="Folder, or FILE.safetensors, to write.")
@click.option(
    "--score",
    required=True,
    metavar="COMMAND",
    help="Prints the score of the model at {}, higher is better, as its last line.",
)
@click.option(
    "--known-score",
    "scores",
    multiple=True,
    type=float,
    help="Score of a model alone, if known; once for each model, in order.",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to copy from the base.")
@click.option("--only", multiple=True, metavar="GLOB", help="The only tensors to merge.")
@click.option("--dtype", help="Output dtype, such as bfloat16. Default: the base's.")
@click.option("--missing", default="error", help="Tensors a model lacks: error or base.")
@click.option("--extra", default="error", help="Tensors the base lacks: error or ignore.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads to use. Default: all cores.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@_json_option
def soup(base: str, models: tuple[str, ...], **options: Any) -> None:
    """Average the fine-tunings of one task that help: a greedy soup.

    By falling score, a model joins the mean if the score of the mean does not fall. The command is
    run with the path of one candidate after the other, merged into a temporary folder beside the
    output. Score on validation data, never on test data; of a loss, print the negative.

    \b
    breadcrumbs soup base ft1 ft2 ft3 -o merged --score "python evaluate.py {}"
    """
    from breadcrumbs import show
    from breadcrumbs import soup as soups

    quiet, as_json = options.pop("quiet"), options.pop("as_json")
    score, scores = soups.command(options.pop("score")), options.pop("scores") or None
    with show.status(quiet=quiet or as_json) as step:
        found = soups.greedy_soup(base, models, score, scores, step=step, **options)
    assert found.report is not None
    if as_json:
        told = {"output": options["output"], **found.to_mapping()}
        click.echo(json.dumps({**told, "merge": found.report.to_mapping()}, indent=2))
    elif not quiet:
        show.soup(found, options["output"])


@_command()
@click.argument("base")
@click.argument("models", nargs=-1, required=True, metavar="FINETUNED...")
@click.option("--transform", default="none", help="Cut task vectors first, such as breadcrumbs.")
@click.option("-p", "--param", "params", multiple=True, help="KEY=VALUE of the transform.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to leave out.")
@click.option("--only", multiple=True, metavar="GLOB", help="The only tensors to compare.")
@click.option("--only-changed", is_flag=True, help="Leave out tensors that no model changed.")
@click.option("--missing", default="error", help="Tensors a model lacks: error or base.")
@click.option("--extra", default="error", help="Tensors the base lacks: error, or ignore.")
@click.option("--allow-nonfinite", is_flag=True, help="Count NaN and infinity as unchanged.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of random transforms.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads to use. Default: all cores.")
@_json_option
def compare(base: str, models: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Show how alike fine-tunings are: cosines, distances and sign conflicts of their task vectors.

    The means over all pairs are the kinship of the models. Nothing is written.

    \b
    breadcrumbs compare base ft1 ft2 ft3
    breadcrumbs compare base ft1 ft2 --transform breadcrumbs -p beta=0.85 -p gamma=0.99
    """
    from breadcrumbs import analysis, merging, recipe, show

    given = ("exclude", "only", "only_changed", "missing", "extra")
    made = analysis.recipe(
        base,
        [recipe.Model(path) for path in models],
        options["transform"],
        _pairs(options["params"]),
        **{key: options[key] for key in (*given, "allow_nonfinite", "seed")},
    )
    with (
        merging.opened(made) as plan,
        show.progress(plan, quiet=as_json, doing="comparing") as progress,
    ):
        found = analysis.of(plan, threads=options["threads"], progress=progress)
    if as_json:
        click.echo(json.dumps(found.to_mapping(), indent=2))
    else:
        show.comparison(found)


@_command()
@click.argument("path")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--hash", "with_hash", is_flag=True, help="Compute the BLAKE3 of every file.")
@_json_option
def inspect(path: str, tensors: bool, with_hash: bool, as_json: bool) -> None:
    """Show what a checkpoint, or a merged model, holds; read headers only.

    \b
    breadcrumbs inspect merged
    breadcrumbs inspect org/name@revision --tensors
    """
    from breadcrumbs import inspection, show

    found = inspection.inspect(path, with_hash=with_hash)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        show.inspection(found, tensors=tensors)


@_command()
@click.option("--keep", metavar="FOLDER", help="Keep the merged models in this folder.")
@_json_option
def demo(keep: str | None, as_json: bool) -> None:
    """Merge a small real model family and measure what comes out. Offline, under a minute.

    A foundation model and its fine-tunings lie inside the package. They are merged by Task
    Arithmetic and by Model Breadcrumbs, the factor alpha is chosen on validation data, and accuracy
    is measured once on test data.
    """
    from breadcrumbs import show
    from breadcrumbs.demo import run

    with show.status(quiet=as_json) as step:
        result = run(keep, step)
    if as_json:
        click.echo(json.dumps(result.to_mapping(), indent=2))
    else:
        show.demo(result)


@_command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in SHELL.

    \b
    breadcrumbs completion bash >> ~/.bashrc
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "breadcrumbs", "_BREADCRUMBS_COMPLETE").source())
