"""`breadcrumbs search`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import (
    command,
    force_option,
    json_option,
    on_option,
    pair,
    plugin_option,
    quiet_option,
    retries_option,
    scoring,
    sync_option,
    workers_option,
)
from breadcrumbs.errors import OutputError, SuiteError


@command()
@click.argument("suite", metavar="SUITE.yaml")
@click.option("-o", "--output", required=True, metavar="BEST.yaml", help="Recipe file to write.")
@click.option("-m", "--method", "methods", multiple=True, help="Repeatable. Default: breadcrumbs.")
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUES",
    help="LOW:HIGH, LOW:HIGH:STEP, LOW:HIGH:log, a list such as 0.2,0.4, or one. Repeatable.",
)
@click.option(
    "--sampler",
    default="tpe",
    show_default=True,
    help="grid, random, tpe, cmaes, qmc or nsga2.",
)
@click.option("--trials", type=click.IntRange(1), help="Default: 50, or the whole grid.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the sampler. Default: 0.")
@click.option(
    "--objective",
    default="mean",
    show_default=True,
    metavar="NAME",
    help="mean: mean normalised score; raw: mean score; min: worst normalised score;"
    " FILE.py:FUNCTION: your own, of a dict of scores.",
)
@click.option(
    "--race",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Score trials on this share of the rows first (0.1: a tenth), and the best third on all.",
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only these tasks.")
@click.option("--few", type=click.IntRange(1), help="Search on the first FEW tasks only.")
@click.option("--few-tasks", metavar="NAME,NAME", help="Search on these tasks only.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to copy from the base.")
@click.option("--only", multiple=True, metavar="GLOB", help="The only tensors to merge.")
@plugin_option
@click.option("--base", help="The base model, instead of the suite's.")
@click.option(
    "--storage", metavar="FILE", help="Keeps the trials; the same search resumes from them."
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    help="Trials proposed at once. Default: as many as are scored at once.",
)
@click.option(
    "--results",
    default="results.sqlite",
    show_default=True,
    help="Database of scores; known scores are not computed again.",
)
@click.option(
    "--pareto",
    is_flag=True,
    help="Print the Pareto front: trials that no other beats on all tasks.",
)
@click.option("--test", is_flag=True, help="Score the best trial on test rows, once, at the end.")
@click.option("--precision", default="auto", help="float32, bfloat16, or auto (the fastest here).")
@click.option("--device", default="auto", help="cpu, cuda, or auto.")
@workers_option
@on_option
@retries_option
@force_option
@quiet_option
@sync_option
@page_options
@json_option
def search(suite: str, paging: Paging, **options: Any) -> None:
    """Search for the best method and parameters on a suite.

    Trials are scored on validation rows; test rows stay closed until the end. The best trial
    becomes a recipe for `breadcrumbs merge`. -p alpha=... applies to all methods that have it,
    -p ties.alpha=... to one, -p weight.NAME=... to a model. With --few, the search uses the
    validation rows of those tasks only, and the recipe merges all models.

    \b
    breadcrumbs search suite.yaml -o best.yaml -p alpha=0.1:1.5 -p beta=0.8:0.95
    breadcrumbs search suite.yaml -o best.yaml -m ties -m breadcrumbs -p alpha=0.2:2:0.2
        --sampler grid --storage search.log --pareto --test --html search.html
    breadcrumbs search suite.yaml -o best.yaml -p alpha=0.1:2 --sampler random --race 0.1
    breadcrumbs merge best.yaml -o merged
    """
    from breadcrumbs.cli import console
    from breadcrumbs.cli.views import search as view
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.methods.registry import load_plugin
    from breadcrumbs.tune import search as searching
    from breadcrumbs.tune.search import objective, samplers
    from breadcrumbs.tune.search import suites as family

    for plugin in options["plugins"]:
        load_plugin(plugin)
    _check_output(options)
    made = suites.load(suite, base=options["base"])
    asked = [made.task(name).name for name in dict.fromkeys(options["tasks"])]
    names = asked or [task.name for task in made.tasks]
    few = _few(names, options)
    more = {"exclude": options["exclude"], "only": options["only"]}
    every, template = (replace(family.template(made, some), **more) for some in (names, few))
    flags = [pair(text) for text in options["params"]]
    if len(few) < len(names) and any(key.startswith("weight.") for key, _ in flags):
        raise click.UsageError("weights are of one model each, so --few cannot find them for all")
    space = searching.parse(options["methods"] or ("breadcrumbs",), flags, few)
    aim = objective.get(options["objective"])
    samplers.check(options["sampler"])
    settings = scoring(options)
    quiet = options["quiet"] or options["as_json"]
    with (
        family.Validation(made, few, settings, options["race"], options["seed"]) as evaluate,
        console.counted(quiet=quiet) as progress,
    ):
        done = 0

        def told(trial: searching.Trial, total: int) -> None:
            nonlocal done
            done += 1
            progress(done, total, view.line(trial))

        batch = options["batch"] or evaluate.pool.workers
        found = searching.run(
            template,
            space,
            evaluate,
            tasks=few,
            objective=aim,
            sampler=options["sampler"],
            trials=options["trials"],
            batch=batch,
            seed=options["seed"],
            storage=options["storage"],
            identity={**evaluate.pool.keys.of_search(few), **_plugins(options["plugins"])},
            race=evaluate.race,
            told=told,
        )
    least = family.at_least(made.tuning(), found, options["sampler"])
    best = searching.recipe(every, found.best.point)
    written = family.beside(best, options["output"])
    searching.write(options["output"], written, _story(made.name, names, few, found, options))
    tested = family.test(made, best, settings) if options["test"] else None
    if options["as_json"]:
        told_test = {"test": tested.to_mapping()} if tested else {}
        click.echo(
            json.dumps(
                {
                    "output": options["output"],
                    **found.to_mapping(),
                    "accuracy_at_least": least,
                    **told_test,
                },
                indent=2,
            )
        )
    elif not options["quiet"]:
        pareto = options["pareto"]
        view.show(found, options["output"], pareto=pareto, least=least, tested=tested)
    if paging.wanted:
        from breadcrumbs.tune.search import picture

        paging.write(picture.of(found, written, made.name, tested), quiet=quiet)


def _check_output(options: dict[str, Any]) -> None:
    """Refuse, before hours of scoring, what would be refused after them."""
    output = Path(options["output"])
    if output.suffix not in (".yaml", ".yml"):
        raise click.UsageError(f"-o {output}: is a recipe, so its name must end in .yaml")
    if output.exists() and not options["force"]:
        raise OutputError(f"{output}: exists. Give another output, or --force to replace it.")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"{output}: there is no folder {output.parent}. Make it first.")


def _plugins(paths: tuple[str, ...]) -> dict[str, list[str]]:
    """Return what trials depend on where methods come from files: what is in these."""
    from blake3 import blake3

    found = [blake3(Path(path).read_bytes()).hexdigest() for path in paths]
    return {"plugins": found} if found else {}


def _few(names: list[str], options: dict[str, Any]) -> list[str]:
    """Return the tasks to tune on."""
    from breadcrumbs.errors import suggestion

    few, given = options["few"], options["few_tasks"]
    if few is not None and given is not None:
        raise click.UsageError("give --few or --few-tasks")
    if given is not None:
        chosen = list(dict.fromkeys(name.strip() for name in given.split(",")))
        for name in chosen:
            if name not in names:
                raise SuiteError(
                    f"--few-tasks: there is no task {name!r}.{suggestion(name, names)} The tasks"
                    f" are {', '.join(names)}."
                )
        return chosen
    if few is not None and few > len(names):
        raise SuiteError(f"--few {few}: there are {len(names)} tasks.")
    return names[:few]


def _story(
    suite: str, names: list[str], few: list[str], found: Any, options: dict[str, Any]
) -> list[str]:
    """Return the comments that a recipe begins with: what it was chosen on."""
    alone = f" (of {len(names)}; the same setting is used for all)" if few != names else ""
    return [
        "Chosen by `breadcrumbs search` on validation rows; no test row was read.",
        f"suite {suite}, tasks {', '.join(few)}{alone}",
        f"{found.objective} {found.best.score:.4f}, the best of {len(found.trials)} trials by"
        f" {options['sampler']}, seed {options['seed']}"
        + (f"; {len(found.whole)} of them on all rows" if options["race"] else ""),
    ]
