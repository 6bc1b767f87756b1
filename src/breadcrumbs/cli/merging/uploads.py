"""Where a merge is written, if it is to be pushed to a hub, and what is told of it then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from breadcrumbs.errors import printable


def where(output: str | None, options: dict[str, Any]) -> tuple[Any, str | None, bool]:
    """Return the repository to push to if one is asked for, the folder to write, and whether it
    stays."""
    if options["push_to_hub"] is None:
        if options["public"]:
            raise click.UsageError("--public is of --push-to-hub")
        return None, output, True
    from breadcrumbs.checkpoint import mirrors, places
    from breadcrumbs.merging import publishing

    if output is not None and (places.is_output(output) or output.endswith(".safetensors")):
        raise click.UsageError("--push-to-hub uploads a folder: give -o FOLDER, or no -o")
    repo = options["push_to_hub"]
    to = publishing.looked(repo, public=options["public"], force=options["force"])
    if output is not None:
        return to, output, True
    home = mirrors.scratch()[0] / f"breadcrumbs-push-{repo.replace('/', '--')}"
    return to, str(home / to.name.partition("/")[2]), False


def said(
    report: Any, output: str, to: Any, kept: bool, options: dict[str, Any], told: Sequence[str] = ()
) -> str | None:
    """Push what was written, if it is to be, and print the report; return where it stays, if it
    does. told: warnings that were printed before."""
    from breadcrumbs.cli import push as pushing
    from breadcrumbs.cli.views import merging as views_merging

    push = pushing.pushed(Path(output), to) if to else None
    if not kept:
        shutil.rmtree(Path(output).parent, ignore_errors=True)
        report.output = ""
    place = output if kept else None
    if options["as_json"]:
        more = {"output": place, **report.to_mapping(), **({"push": push} if push else {})}
        click.echo(json.dumps(more, indent=2))
    elif not options["quiet"]:
        views_merging.report(report, place, verbose=options["verbose"], told=told)
        if push:
            click.echo(f"pushed: {printable(push['commit'])}", err=True)
    return place
