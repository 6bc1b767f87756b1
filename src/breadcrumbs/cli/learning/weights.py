"""`breadcrumbs learn --what weights`: a recipe or a method in, a recipe out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from breadcrumbs.cli.learning import given
from breadcrumbs.cli.shared import pairs

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite
    from breadcrumbs.plan.recipe import Recipe
    from breadcrumbs.tune.learn.weights.learned import Learned


def learn(suite: str, model: str, output: str, options: Mapping[str, Any]) -> None:
    """Learn, write and tell. options: of the command."""
    from breadcrumbs.checkpoint import cache
    from breadcrumbs.cli import console
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.tune import search
    from breadcrumbs.tune.learn.weights import kinds, learned
    from breadcrumbs.tune.search import suites as family

    place = Path(output)
    given.check_file(place, "weights become a recipe", (".yaml", ".yml"))
    draw = given.draw(options)
    kind = options["kind"] or "adamerging"
    settings = kinds.make(kind, draw.answers, options["per"], pairs(options["params"]))
    also = [place.with_suffix(".heads.safetensors")] if settings.heads else []
    given.check_free([place, *also], options)
    made = suites.load(suite, base=options["base"])
    recipe = _recipe(model, made, options["tasks"])
    with console.counted(quiet=given.is_quiet(options)) as progress:
        found = learned.learn(
            made,
            recipe,
            draw,
            settings,
            **given.settings(options),
            cache=cache.folder(),
            progress=progress,
        )
    said = [
        f"Learned by `breadcrumbs learn --what weights --as {settings.kind}`: {settings.loss} of"
        f" {draw}, seed {draw.seed}.",
        *(["It serves with the heads in " + path.name + "." for path in also]),
    ]
    search.write(place, family.beside(found.recipe, place), said)
    for path in also:
        assert found.heads is not None
        found.heads.save(path, force=options["force"])
    _tell(found, [str(path) for path in (place, *also)], options)


def _recipe(model: str, suite: Suite, tasks: tuple[str, ...]) -> Recipe:
    """Return the recipe of a file, or that of a method and the suite's fine-tuned models."""
    from breadcrumbs.methods import registry
    from breadcrumbs.plan import recipe as recipes
    from breadcrumbs.tune.search import suites as family

    if Path(model).suffix in (".yaml", ".yml"):
        return recipes.load(model)
    registry.get(model)
    names = list(dict.fromkeys(tasks)) or [task.name for task in suite.tasks]
    return replace(family.template(suite, names), method=model)


def _tell(found: Learned, files: list[str], options: Mapping[str, Any]) -> None:
    means = dict(zip(found.models, found.weights.mean(1).tolist(), strict=True))
    if options["as_json"]:
        told = {
            "output": files[0],
            "heads": files[1] if len(files) > 1 else None,
            "learned": found.recipe.learned,
            "losses": found.losses,
            "mean_weights": means,
        }
        click.echo(json.dumps(told, indent=2))
    elif not options["quiet"]:
        shown = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
        click.echo(
            f"{' and '.join(files)}: {found.numbers:,} weights, on average {shown};"
            f" {found.encoder_passes:,} encoder passes"
        )
