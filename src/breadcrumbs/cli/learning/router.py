"""`breadcrumbs learn --what router`: which task a row is of, behind a merged model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.shared import pair
from breadcrumbs.errors import OutputError


def learn(suite: str, model: str, output: str, options: Mapping[str, Any]) -> None:
    """Learn, write and tell. options: of the command."""
    from breadcrumbs.checkpoint import cache
    from breadcrumbs.cli import console
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.data.drawn import Draw
    from breadcrumbs.tune.learn import routing

    place = Path(output)
    if place.suffix != ".safetensors":
        raise OutputError(f"{place}: a router is one file. Give NAME.safetensors.")
    if place.exists() and not options["force"]:
        raise OutputError(f"{place} exists. Give another name, or --force to replace it.")
    if options["answers"] != "expert":  # the option's default
        raise click.UsageError("--answers is of heads: a router learns which task a row is of")
    draw = Draw(options["split"], options["rows"], "none", options["seed"])
    made = suites.load(suite, base=options["base"])
    quiet = options["quiet"] or options["as_json"]
    with console.counted(quiet=quiet) as progress:
        found = routing.learn(
            made,
            model,
            draw,
            kind=options["kind"] or "logistic",
            tasks=options["tasks"],
            experts=dict(pair(text) for text in options["experts"]),
            heads=options["heads"],
            device=options["device"],
            precision=options["precision"],
            cache=cache.folder(),
            progress=progress,
        )
    found.save(place, force=options["force"])
    told = {task: found.facts(task, "", ()) for task in found.tasks}
    if options["as_json"]:
        click.echo(json.dumps({"output": output, "digest": found.digest, "tasks": told}, indent=2))
    elif not options["quiet"]:
        over = f"{found.heads.about['as']} corrections" if found.heads else "experts"
        own = sum(array.size for array in found.numbers.values())
        click.echo(
            f"{output}: {found.about['as']} router between {len(told)} tasks to their {over},"
            f" {own:,} numbers"
        )
