"""A file of mergekit's that holds several merges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.merging import recipes
from breadcrumbs.cli.paging import Paging


def merge(
    path: str,
    documents: list[Any],
    output: str | None,
    options: dict[str, Any],
    paging: Paging,
    one_by_one: Callable[[Any, str | None, dict[str, Any], Paging | None], None],
) -> None:
    """Carry out merges of which one takes the result of another, each into a folder.

    That without a name is the output, and the others lie beside it, in ``OUTPUT.parts``; where all
    have names, all lie in the output. A page is that of the last one. one_by_one: carries
    out one recipe.
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
    named = {one.name: str((folder / one.name).absolute()) for one in documents if one.name}
    for one in documents:
        place = str(folder / one.name) if one.name else output
        if one.name and options["resume"] and Path(place).exists():
            continue
        found = mergekit.convert(path, one.at(named))
        recipes.note(path, found.notes, options["quiet"])
        last = one is documents[-1]
        one_by_one(recipes.changed(found.recipe, options), place, options, paging if last else None)
