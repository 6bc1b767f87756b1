"""`breadcrumbs demo`."""

from __future__ import annotations

import json

import click

from breadcrumbs.cli.shared import command, json_option


@command()
@click.option(
    "--models", metavar="FOLDER", help="Write the base and the fine-tunings there, and stop."
)
@json_option
def demo(models: str | None, as_json: bool) -> None:
    """Merge six small vision models and measure what comes out.

    A base and its fine-tunings lie inside the package, so it is offline and takes seconds. They are
    merged by the mean, Task Arithmetic, Model Breadcrumbs and TSV-M, as these come, and packed into
    one file; accuracy is measured on test images. Nothing is searched.

    \b
    breadcrumbs demo
    breadcrumbs demo --models family
    """
    from breadcrumbs import demo as family
    from breadcrumbs.cli import console
    from breadcrumbs.cli.views import demo as view

    if models is not None:
        written = [str(path) for path in family.write(models)]
        click.echo(json.dumps(written, indent=2) if as_json else "\n".join(written))
        return
    with console.status(quiet=as_json) as step:
        result = family.run(step)
    if as_json:
        click.echo(json.dumps(result.to_mapping(), indent=2))
    else:
        view.show(result)
