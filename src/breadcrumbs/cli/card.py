"""`breadcrumbs card`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.shared import command, json_option
from breadcrumbs.errors import printable


@command()
@click.argument("model")
@click.option("--results", metavar="FILE", help="Add what it scores, of this file of results.")
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="The rows that were scored.",
)
@click.option("--license", help="Its licence, by the hub's id, such as apache-2.0.")
@click.option(
    "--base-model",
    "base_models",
    multiple=True,
    metavar="ORG/NAME",
    help="Hub id of a model that it was merged from, in place of those named. Repeatable.",
)
@click.option("--language", "languages", multiple=True, metavar="CODE", help="Such as en.")
@click.option("--pipeline-tag", metavar="TASK", help="What it is for, such as text-generation.")
@json_option
def card(model: str, as_json: bool, **options: Any) -> None:
    """Complete a model card with what only you know.

    MODEL is a folder that `breadcrumbs merge` wrote. What is given replaces what its README.md says
    in its front matter. --results adds what `breadcrumbs evaluate` found for these weights, as
    model-index. Without options nothing is changed.

    \b
    breadcrumbs card merged --license apache-2.0 --base-model org/base --base-model me/ft1
    breadcrumbs card merged --results results.sqlite
    """
    from breadcrumbs.checkpoint import hashing
    from breadcrumbs.evaluate.results import model_index

    folder, rows = Path(model), []
    if options["results"]:
        found = hashing.model_hash(model)
        rows = model_index.rows_of(model, found, options["results"], options["split"])
    said = {
        "license": options["license"],
        "base_model": list(options["base_models"]) or None,
        "language": list(options["languages"]) or None,
        "pipeline_tag": options["pipeline_tag"],
    }
    front = model_index.update(folder, rows, said)
    if as_json:
        click.echo(json.dumps(front, indent=2))
    else:
        click.echo(printable(model_index.summary(folder, rows, front)))
