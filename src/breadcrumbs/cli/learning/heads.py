"""`breadcrumbs learn --what heads`: a correction for each task behind a merged model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.learning import given
from breadcrumbs.cli.shared import engine


def learn(suite: str, model: str, output: str, options: Mapping[str, Any]) -> None:
    """Learn, write and tell. options: of the command."""
    from breadcrumbs.checkpoint import cache
    from breadcrumbs.cli import console
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.tune.learn import heads

    place, where = Path(output), engine(options)
    given.check_file(place, "corrections are one file")
    given.check_free([place], options)
    made = suites.load(suite, base=options["base"])
    quiet = given.is_quiet(options)
    with console.counted(quiet=quiet) as progress:
        found = heads.learn(
            made,
            model,
            given.draw(options),
            kind=options["kind"] or "affine",
            **given.settings(options),
            cache=cache.folder(),
            progress=progress,
            **where,
        )
    found.save(place, force=options["force"])
    told = {task: found.facts(task, "", ()) for task in found.numbers}
    if options["as_json"]:
        click.echo(json.dumps({"output": output, "digest": found.digest, "tasks": told}, indent=2))
    elif not quiet:
        numbers = max(one["extra_numbers"] for one in told.values())
        passes = sum(one["encoder_passes"] for one in told.values())
        click.echo(
            f"{output}: {found.about['as']} for {len(told)} tasks, {numbers:,} numbers a task at"
            f" most, {passes:,} encoder passes"
        )
