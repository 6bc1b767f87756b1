"""`breadcrumbs merge` with --part, --commit or --on: a merge in parts."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

#: The exit code of a part that must be run again, when others have been: EX_TEMPFAIL of sysexits.
AGAIN = 75


def merge(
    made: Any, output: str, options: dict[str, Any], shard_size: int, max_memory: int | None
) -> None:
    """Do a part of a recipe, or commit all, or both on an engine, as the options say."""
    from breadcrumbs.merging import parts

    if sum(map(bool, (options["part"], options["commit"], options["on"]))) > 1:
        raise click.UsageError("give one of --part, --commit and --on")
    it = parts.Merge(
        made,
        output,
        shard_size,
        force=options["force"],
        strict=options["strict"],
        plugins=options["plugins"],
    )
    settings = {key: options[key] for key in ("threads", "kernel", "verify")}
    if options["part"]:
        _part(it, options, {**settings, "max_memory": max_memory})
    elif options["commit"]:
        _said(parts.commit(it, **settings), output, options)
    else:
        _on(it, options, {**settings, "max_memory": max_memory})


def _part(it: Any, options: dict[str, Any], settings: dict[str, Any]) -> None:
    from breadcrumbs.cli import console
    from breadcrumbs.merging.parts import doing

    part, parts = doing.parsed(options["part"])
    report = doing.merge_part(it, part, parts, **settings)
    quiet = options["quiet"] or options["as_json"]
    console.warnings(report.warnings if not quiet and part == 1 else ())
    if options["as_json"]:
        click.echo(json.dumps({"output": it.output, **report.to_mapping()}, indent=2))
    done, skipped = len(report.written), len(report.shards) - len(report.written)
    if report.again:
        left = f"{len(report.left)} of {report.of} files left"
        click.echo(
            f"breadcrumbs: {it.output}: part {part}/{parts} waits for {report.waits} ({left}): run"
            " the parts again",
            err=True,
        )
        sys.exit(AGAIN)
    if not quiet:
        before = f", {skipped} were there" if skipped else ""
        click.echo(f"part {part}/{parts}: {done} of {report.of} files written{before}")


def _on(it: Any, options: dict[str, Any], settings: dict[str, Any]) -> None:
    from breadcrumbs.cli import console
    from breadcrumbs.merging.parts import doing, driving, engines

    run = engines.engine(options["on"])
    driving.fresh(it, resume=options["resume"], force=options["force"])
    quiet = options["quiet"] or options["as_json"]
    with doing.begun(it) as (plan, _):
        console.warnings(plan.warnings if not quiet else ())
        with console.progress(plan, quiet=quiet) as progress:
            report = run(it, progress=progress, retries=options["retries"], **settings)
    _said(report, it.output, options)


def _said(report: Any, output: str, options: dict[str, Any]) -> None:
    """Print the report of a merge; of one that was committed before there is none."""
    from breadcrumbs.cli.views import merging as views_merging

    if options["as_json"]:
        said = {"committed": True} if report is None else report.to_mapping()
        click.echo(json.dumps({"output": output, **said}, indent=2))
    elif report is None:
        click.echo(f"{output} is whole already.")
    elif not options["quiet"]:
        views_merging.report(report, output, verbose=options["verbose"])
