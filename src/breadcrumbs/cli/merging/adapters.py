"""`breadcrumbs merge --to lora`: adapters in, one adapter out."""

from __future__ import annotations

from typing import Any

import click

from breadcrumbs.cli.merging import recipes, uploads
from breadcrumbs.cli.paging import Paging


def check(options: dict[str, Any], several: list[Any], paging: Paging) -> None:
    """Raise UsageError for what does not go with --to lora."""
    for key in ("resume", "verify", "dry_run", "part", "commit", "on"):
        if options[key]:
            raise click.UsageError(f"--to lora does not go with --{key.replace('_', '-')}")
    if len(several) > 1 or paging.wanted:
        raise click.UsageError("--to lora writes one adapter, without a page")


def merge(sources: tuple[str, ...], output: str | None, options: dict[str, Any]) -> None:
    """Merge adapters into one, of which the base may be missing."""
    from breadcrumbs import kernels
    from breadcrumbs.cli import console
    from breadcrumbs.merging import adapting
    from breadcrumbs.plan import recipe

    kernels.check(options["kernel"])
    if not recipes.is_file(sources) and adapting.is_adapter(sources[0]):
        sources = ("", *sources)
    made = recipes.of(sources, options)
    if options["print_recipe"]:
        click.echo(recipe.to_yaml(made), nl=False)
        return
    to, output, kept = uploads.where(output, options)
    if output is None:
        raise click.UsageError("give -o OUTPUT")
    quiet = options["quiet"] or options["as_json"]
    with adapting.opened(made) as plan:
        console.warnings(plan.warnings if not quiet else ())
        settings = {key: options[key] for key in ("rank", "threads", "kernel", "strict")}
        settings["force"] = options["force"] or not kept
        report = adapting.to_folder(plan, output, **settings)
    uploads.said(report, output, to, kept, options)
