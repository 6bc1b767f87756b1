"""`breadcrumbs learn --what router`: which task a row is of, behind a merged model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.learning import given


def learn(suite: str, model: str, output: str, options: Mapping[str, Any]) -> None:
    """Learn, write and tell. options: of the command."""
    from breadcrumbs.checkpoint import cache
    from breadcrumbs.cli import console
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.tune.learn import routing

    place = Path(output)
    given.check_file(place, "a router is one file")
    given.check_free([place], options)
    if options["answers"] != "expert":  # the option's default
        raise click.UsageError("--answers is of heads: a router learns which task a row is of")
    draw = given.draw(options, "none")
    made = suites.load(suite, base=options["base"])
    with console.counted(quiet=given.is_quiet(options)) as progress:
        found = routing.learn(
            made,
            model,
            draw,
            kind=options["kind"] or "logistic",
            heads=options["heads"],
            **given.settings(options),
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
