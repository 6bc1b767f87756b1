"""`breadcrumbs demo`."""

from __future__ import annotations

import json

import click

from breadcrumbs.cli.shared import command, json_option


@command()
@click.option("--keep", metavar="FOLDER", help="Keep the merged models in this folder.")
@json_option
def demo(keep: str | None, as_json: bool) -> None:
    """Merge a small family of real models and measure the result.

    Offline, in under a minute. A foundation model and its fine-tunings lie inside the package. They
    are merged by Task Arithmetic and by Model Breadcrumbs, the factor alpha is chosen on validation
    data, and accuracy is measured once on test data.

    \b
    breadcrumbs demo
    breadcrumbs demo --keep merged --json
    """
    from breadcrumbs.cli import console
    from breadcrumbs.cli.views import merging
    from breadcrumbs.demo import run

    with console.status(quiet=as_json) as step:
        result = run(keep, step)
    if as_json:
        click.echo(json.dumps(result.to_mapping(), indent=2))
    else:
        merging.demo(result)
