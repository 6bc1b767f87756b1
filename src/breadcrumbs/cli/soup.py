"""`breadcrumbs soup`."""

from __future__ import annotations

import json
from typing import Any

import click

from breadcrumbs.cli.shared import (
    command,
    fit_options,
    force_option,
    json_option,
    quiet_option,
    rename_option,
    scratch_option,
    sync_option,
    threads_option,
)


@command()
@click.argument("base")
@click.argument("models", nargs=-1, required=True, metavar="FINETUNED...")
@click.option(
    "-o", "--output", required=True, metavar="PATH", help="Folder, or FILE.safetensors, to write."
)
@click.option(
    "--score",
    required=True,
    metavar="COMMAND",
    help="Prints the score of the model at {} as its last line; higher is better.",
)
@click.option(
    "--known-score",
    "scores",
    multiple=True,
    type=float,
    help="Score of each model alone, if known: give it once per model, in order.",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to copy from the base.")
@click.option("--only", multiple=True, metavar="GLOB", help="The only tensors to merge.")
@click.option("--dtype", help="Output dtype, such as bfloat16. Default: the base's.")
@fit_options()
@rename_option
@scratch_option
@threads_option
@force_option
@quiet_option
@sync_option
@json_option
def soup(base: str, models: tuple[str, ...], **options: Any) -> None:
    """Average the fine-tunings that help: a greedy soup.

    All are fine-tunings for one task. They are tried from the best score down; each joins the mean
    if the score of the mean does not fall. COMMAND is run with the path of each candidate, which is
    merged into a temporary folder beside the output. Score on validation data, never on test data.
    For a loss, print its negative.

    \b
    breadcrumbs soup base ft1 ft2 ft3 -o merged --score "python evaluate.py {}"
    """
    from breadcrumbs.cli import console
    from breadcrumbs.cli.views import merging
    from breadcrumbs.tune import soup as soups

    quiet, as_json = options.pop("quiet"), options.pop("as_json")
    score, scores = soups.command(options.pop("score")), options.pop("scores") or None
    with console.status(quiet=quiet or as_json) as step:
        found = soups.greedy_soup(base, models, score, scores, step=step, **options)
    assert found.report is not None
    if as_json:
        told = {"output": options["output"], **found.to_mapping()}
        click.echo(json.dumps({**told, "merge": found.report.to_mapping()}, indent=2))
    elif not quiet:
        merging.soup(found, options["output"])
