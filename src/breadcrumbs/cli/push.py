"""`breadcrumbs push`, and `merge --push-to-hub`."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli import silence
from breadcrumbs.cli.shared import command, force_option, json_option
from breadcrumbs.errors import CheckpointError, OutputError, ResultsError, counted, printable


@command()
@click.argument("model")
@click.argument("repository", metavar="ORG/NAME")
@click.option("--public", is_flag=True, help="Let all read it. Default: private.")
@click.option(
    "--results",
    metavar="FILE",
    help="Add what it scores to its card, of this file. Default: results.sqlite, if it has rows.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be pushed; change nothing.")
@force_option
@json_option
def push(
    model: str,
    repository: str,
    public: bool,
    results: str | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Upload a merged model to a hub, in one commit.

    MODEL is a folder that `breadcrumbs merge` wrote. ORG/NAME is made if it is not there, and
    private. What was uploaded before an interruption is not uploaded again.

    \b
    breadcrumbs push merged me/merged --dry-run
    breadcrumbs push merged me/merged
    """
    from breadcrumbs.merging import publishing

    folder = Path(model)
    publishing.files(folder)
    to = publishing.looked(repository, public=public, force=force)
    facts = pushed(folder, to, results, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    elif dry_run:
        click.echo("\n".join(map(printable, said(facts))))
    else:
        click.echo(f"pushed: {printable(facts['commit'])}")


def pushed(
    folder: Path, to: Any, results: str | None = None, *, dry_run: bool = False
) -> dict[str, Any]:
    """Push the folder of a merged model to a repository as it was looked at; return what was done.

    results: a file with rows of the model, for its card; None: the usual one, if it has some.
    dry_run: change nothing, here and there.
    """
    from breadcrumbs.evaluate.results import model_index
    from breadcrumbs.merging import publishing

    paths = publishing.files(folder)
    rows = _rows(folder, results)
    if rows and not dry_run:
        model_index.update(folder, rows, {"model_name": to.name.partition("/")[2]})
    front = model_index.update(folder)
    facts = {
        "repository": to.name,
        "said": to.said,
        "public": to.public,
        "files": {path: (folder / path).stat().st_size for path in paths},
        "removed": [path for path in to.old if path not in paths],
        "license": front.get("license"),
        "rows": [f"{row.suite} {row.task}: {row.metric} {row.value:.4g}" for row in rows],
        "commit": None,
    }
    if not dry_run:
        facts["commit"] = _uploaded(folder, to)
    return facts


def _uploaded(folder: Path, to: Any) -> str:
    from breadcrumbs.merging import publishing

    if silence.is_on() or not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    try:
        return publishing.upload(folder, to)
    except OutputError as error:
        public = " --public" if to.public else ""
        raise OutputError(
            f"{error} The model is whole in {folder}: `breadcrumbs push {folder} {to.name}{public}`"
            " goes on."
        ) from None


def _rows(folder: Path, results: str | None) -> list[Any]:
    from breadcrumbs.checkpoint import hashing
    from breadcrumbs.evaluate.results import model_index
    from breadcrumbs.evaluate.results.results import DEFAULT

    if results is None and not Path(DEFAULT).is_file():
        return []
    if results is not None:
        return model_index.rows_of(str(folder), hashing.model_hash(folder), results)
    with suppress(ResultsError, CheckpointError):  # none of it, or an adapter
        return model_index.rows_of(str(folder), hashing.model_hash(folder), DEFAULT)
    return []


def said(facts: dict[str, Any]) -> list[str]:
    """Return in lines what would be pushed."""
    from breadcrumbs.machine import human

    sizes = facts["files"]
    lines = [f"to push: {facts['said']}"]
    lines += [
        f"  {path}  {'to be written' if size is None else human(size)}"
        for path, size in sizes.items()
    ]
    lines.append(f"  {counted(len(sizes), 'file')}, {human(sum(filter(None, sizes.values())))}")
    lines += [f"  removed there: {path}" for path in facts["removed"]]
    lines.append(f"  license: {facts['license'] or 'not stated'}")
    lines += [f"  model-index: {row}" for row in facts["rows"]]
    return lines


def planned(plan: Any, to: Any, shard_size: int) -> dict[str, Any]:
    """Return what a merge would push, as `pushed` does, without what is still to be written."""
    from breadcrumbs.checkpoint import beside, outfile
    from breadcrumbs.merging import files, licences
    from breadcrumbs.merging import said as cards
    from breadcrumbs.plan import variants

    sizes: dict[str, int | None] = {}
    groups = outfile.groups(files.entries(plan), variants.layout(plan), shard_size)
    places = [place for place, *_ in groups]
    for place, name, _, mine in groups:
        start = f"{place.folder}/" if place.folder else ""
        sizes[start + name] = sum(entry.nbytes for entry in mine)
        if places.count(place) > 1:
            sizes[start + place.index] = None
    folder = plan.target.folder
    for path in beside.files(folder) if folder else ():
        sizes[path] = (folder / path).stat().st_size
    sizes |= {"README.md": None, beside.RECIPE: None}
    found = licences.of(cards.of_all(plan.origins))
    return {
        "repository": to.name,
        "said": to.said,
        "public": to.public,
        "files": sizes,
        "removed": [path for path in to.old if path not in sizes],
        "license": found.name or found.id or None,
        "rows": [],
        "commit": None,
    }
