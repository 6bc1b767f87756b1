"""Options and output that commands of `breadcrumbs store` share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from breadcrumbs.cli.shared import json_option, quiet_option, sync_option, threads_option

folder_argument = click.argument("folder", metavar="DIR")
base_option = click.option(
    "--base", help="Where the base is, if it has moved; for this command only."
)
strict_option = click.option(
    "--strict", is_flag=True, help="Treat warnings as errors, and then change nothing."
)
message_option = click.option(
    "-m", "--message", default="", help="What the change is about, one line."
)
author_option = click.option(
    "--author", help="Who makes the change. Default: git's user.name, or else your login name."
)
param_option = click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the method. Repeatable.",
)


def changing(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that makes a revision of the tasks that are there."""
    for add in (
        json_option,
        sync_option,
        quiet_option,
        threads_option,
        base_option,
        author_option,
        message_option,
    ):
        function = add(function)
    return function


at_option = click.option(
    "--at", type=click.IntRange(0), metavar="REVISION", help="Default: the latest."
)


@contextmanager
def using(folder: str, options: dict[str, Any], doing: str) -> Iterator[Any]:
    """Open a store, with the --base of the options, and say on a terminal what is being done."""
    from breadcrumbs.cli import console
    from breadcrumbs.errors import printable
    from breadcrumbs.store import Store

    with (
        Store.open(folder, options.pop("base")) as opened,
        console.status(quiet=options["as_json"]) as step,
    ):
        step(printable(doing))
        yield opened


def how(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a change that all changes have."""
    return {key: options[key] for key in ("threads", "author", "message")}


def say(opened: Any, revision: Any, options: dict[str, Any], what: str = "") -> None:
    """Print what a change came to. revision: the new one, None if nothing changed, or if that is
    said by ``what``."""
    entries = opened.entries()
    number = revision.number if revision else opened.ledger.latest() if what else None
    if options["as_json"]:
        found = [entry.__dict__ for entry in entries]
        click.echo(json.dumps({"revision": number, "tasks": found}, indent=2))
    elif not options["quiet"]:
        what = what or (f"revision {number}" if revision else "nothing changed")
        click.echo(f"{opened.folder}: {what}, {len(entries)} task{'s'[: len(entries) != 1]}")
