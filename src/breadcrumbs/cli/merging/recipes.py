"""The recipe that the arguments and options of `breadcrumbs merge` describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.shared import pair, pairs
from breadcrumbs.errors import printable, sentence


def is_file(sources: tuple[str, ...]) -> bool:
    """Whether the arguments are one recipe, and not models."""
    return len(sources) == 1 and Path(sources[0]).suffix in (".yaml", ".yml")


def several(sources: tuple[str, ...]) -> list[Any]:
    """Return the merges of a file of mergekit's that holds several."""
    if not is_file(sources):
        return []
    from breadcrumbs.plan import mergekit

    path = Path(sources[0])
    return mergekit.documents(path) if mergekit.is_config(path) else []


def of(sources: tuple[str, ...], options: dict[str, Any]) -> Any:
    """Return the recipe that the arguments of ``merge`` describe."""
    from breadcrumbs.plan import recipe

    if is_file(sources):
        made = load(sources[0], quiet=options["quiet"])
    else:
        made = recipe.Recipe(sources[0], tuple(recipe.Model(path) for path in sources[1:]))
    return changed(made, options)


def changed(made: Any, options: dict[str, Any]) -> Any:
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


def load(path: str, *, quiet: bool) -> Any:
    """Return the recipe in a file, ours or a mergekit configuration, of which notes are printed."""
    from breadcrumbs.plan import mergekit, recipe

    if not mergekit.is_config(Path(path)):
        return recipe.load(path)
    found = mergekit.convert(path)
    note(path, found.notes, quiet)
    return found.recipe


def note(path: str, notes: Sequence[str], quiet: bool) -> None:
    """Tell what is to be known of a configuration that was translated."""
    for note in notes if not quiet else ():
        click.echo(f"breadcrumbs: {path}: {sentence(printable(note))}", err=True)
