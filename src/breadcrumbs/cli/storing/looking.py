"""`breadcrumbs store info`, `list`, `log`, `diff` and `verify`: what a store holds."""

from __future__ import annotations

import json
from typing import Any

import click

from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import command, json_option, quiet_option, threads_option
from breadcrumbs.cli.storing.options import at_option, base_option, folder_argument, using
from breadcrumbs.errors import counted


@command()
@folder_argument
@json_option
def info(folder: str, as_json: bool) -> None:
    """Show the base, the method, and what the store takes.

    \b
    breadcrumbs store info shared
    """
    from breadcrumbs.cli.views import store as view
    from breadcrumbs.store import Store, info

    with Store.open(folder) as opened:
        found = info(opened)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        view.info(found)


@command("list")
@folder_argument
@at_option
@json_option
def list_(folder: str, at: int | None, as_json: bool) -> None:
    """List the tasks of a revision: weight, density, size, licence.

    \b
    breadcrumbs store list shared
    breadcrumbs store list shared --at 3
    """
    from breadcrumbs import machine
    from breadcrumbs.cli import console
    from breadcrumbs.store import Store

    with Store.open(folder) as opened:
        entries, tasks = opened.entries(at), opened.ledger.tasks()
    rows = [
        {**tasks[entry.task].said, "name": entry.name, "weight": entry.weight}
        | {"bytes": tasks[entry.task].bytes, "blake3": entry.task}
        for entry in entries
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    header = ("task", "weight", "kept", "size", "licence", "BLAKE3")
    body = [
        (
            row["name"],
            f"{row['weight']:g}",
            f"{row['density']:.2%}",
            machine.human(row["bytes"]),
            row["license"],
            row["blake3"][:12],
        )
        for row in rows
    ]
    console.rows(header, body, right=(1, 2, 3))


@command()
@folder_argument
@page_options
@json_option
def log(folder: str, as_json: bool, paging: Paging) -> None:
    """List all revisions: when, who, what and why.

    \b
    breadcrumbs store log shared
    breadcrumbs store log shared --html history.html
    """
    from breadcrumbs.cli.views import store as view
    from breadcrumbs.store import Store

    with Store.open(folder) as opened:
        revisions = opened.log()
        if paging.wanted:
            from breadcrumbs.store import picture

            paging.write(picture.of(opened), quiet=as_json)
    if as_json:
        click.echo(json.dumps([revision.__dict__ for revision in revisions], indent=2))
    else:
        view.log(revisions)


@command()
@folder_argument
@click.argument("first", type=click.IntRange(0), metavar="A")
@click.argument("second", type=click.IntRange(0), metavar="B")
@json_option
def diff(folder: str, first: int, second: int, as_json: bool) -> None:
    """Show what differs between two revisions.

    Revision 0 is the empty store.

    \b
    breadcrumbs store diff shared 3 5
    """
    from breadcrumbs.store import Store

    with Store.open(folder) as opened:
        rows = opened.diff(first, second)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        before, after = row["before"], row["after"]
        if after is None:
            click.echo(f"- {row['name']}")
        elif before is None:
            click.echo(f"+ {row['name']} weight {after['weight']:g}")
        else:
            other = "" if before["task"] == after["task"] else ", another task file"
            click.echo(f"~ {row['name']} weight {before['weight']:g} -> {after['weight']:g}{other}")


@command()
@folder_argument
@at_option
@base_option
@threads_option
@quiet_option
@json_option
def verify(folder: str, at: int | None, **options: Any) -> None:
    """Check all files, and merge a revision from scratch.

    That merge must have the same bits as the one from the running sum. Damaged blocks of the sum
    are rebuilt; a damaged task file is an error.

    \b
    breadcrumbs store verify shared
    breadcrumbs store verify shared --at 3
    """
    with using(folder, options, "verifying") as opened:
        found = opened.verify(at, options["threads"])
    if options["as_json"]:
        click.echo(json.dumps(found.__dict__, indent=2))
    elif not options["quiet"]:
        repaired = f" ({found.repaired} of them rebuilt)" if found.repaired else ""
        click.echo(
            f"{folder}: {counted(found.tasks, 'task file')} and {counted(found.blocks, 'block')} of"
            f" the sum are intact"
            f"{repaired}; revision {found.revision} merged from scratch has the same bits, hash"
            f" {found.hash}"
        )
        if found.grams:
            click.echo(f"{folder}: {found.grams} Grams are the same bits when made from the tasks")
