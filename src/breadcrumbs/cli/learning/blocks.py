"""`breadcrumbs learn --what blocks`: a model in, the model with other blocks out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from breadcrumbs.cli.learning import given
from breadcrumbs.cli.shared import pairs

if TYPE_CHECKING:
    from breadcrumbs.tune.learn.blocks.learning import Learned


def learn(suite: str, model: str, output: str, options: Mapping[str, Any]) -> None:
    """Learn, write and tell. options: of the command."""
    from breadcrumbs.cli import console
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.tune.learn.blocks import kinds, learning

    place = Path(output)
    given.check_free([place], options)
    draw = given.draw(options)
    kind = kinds.make(options["kind"] or kinds.NAMES[0], pairs(options["params"]))
    made = suites.load(suite, base=options["base"])
    with console.counted(quiet=given.is_quiet(options)) as progress:
        found = learning.learn(
            made,
            model,
            place,
            draw,
            kind,
            **given.settings(options),
            force=options["force"],
            progress=progress,
        )
    _tell(found, options)


def _tell(found: Learned, options: Mapping[str, Any]) -> None:
    if options["as_json"]:
        told = {"output": found.output, "learned": found.about, "errors": found.errors}
        click.echo(json.dumps(told, indent=2))
    elif not options["quiet"]:
        about = found.about
        passes = sum(one["encoder_passes"] for one in about["tasks"].values())
        near = ""
        if found.errors:
            first, last = found.errors[0], found.errors[-1]
            near = (
                f"; away from the experts: {first[0]:.3g} -> {first[1]:.3g} after the first block,"
                f" {last[0]:.3g} -> {last[1]:.3g} after the last"
            )
        click.echo(
            f"{found.output}: {about['as']} from {len(about['tasks'])} tasks, {passes:,} encoder"
            f" passes{near}"
        )
