"""`breadcrumbs compare` and `breadcrumbs inspect`."""

from __future__ import annotations

import json
from typing import Any

import click

from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import (
    command,
    fit_options,
    json_option,
    nonfinite_option,
    pairs,
    rename_option,
    scratch_option,
    threads_option,
)
from breadcrumbs.errors import counted


@command()
@click.argument("base")
@click.argument("models", nargs=-1, required=True, metavar="FINETUNED...")
@click.option(
    "--transform", default="none", help="Transform task vectors first, such as breadcrumbs."
)
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the transform. Repeatable.",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Tensors to leave out.")
@click.option("--only", multiple=True, metavar="GLOB", help="The only tensors to compare.")
@click.option("--only-changed", is_flag=True, help="Leave out tensors that no model changed.")
@fit_options()
@nonfinite_option
@rename_option
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of random transforms.")
@scratch_option
@threads_option
@click.option("--layers", is_flag=True, help="Print a table of the layers too.")
@page_options
@json_option
def compare(
    base: str, models: tuple[str, ...], as_json: bool, paging: Paging, **options: Any
) -> None:
    """Show how alike fine-tunings are.

    Cosines, distances and sign conflicts of their task vectors, pair by pair and on average.

    \b
    breadcrumbs compare base ft1 ft2 ft3 --layers
    breadcrumbs compare base ft1 ft2 --transform breadcrumbs --html page.html
    breadcrumbs compare base ft1 ft2 --transform breadcrumbs -p beta=0.85 -p gamma=0.99
    """
    from breadcrumbs.cli import console
    from breadcrumbs.cli.views import merging as views_merging
    from breadcrumbs.merging import comparison, opening
    from breadcrumbs.plan import recipe

    given = ("exclude", "only", "only_changed", "missing", "extra", "rename")
    made = comparison.recipe(
        base,
        [recipe.Model(path) for path in models],
        options["transform"],
        pairs(options["params"]),
        **{key: options[key] for key in (*given, "allow_nonfinite", "seed")},
    )
    with (
        opening.opened(made, by_token=True) as plan,
        console.progress(plan, quiet=as_json, doing="comparing") as progress,
    ):
        found = comparison.of(
            plan, threads=options["threads"], progress=progress, look=paging.wanted
        )
    if as_json:
        click.echo(json.dumps(found.to_mapping(), indent=2))
    else:
        views_merging.comparison(found, layers=options["layers"])
    if paging.wanted:
        from breadcrumbs.merging import picture

        paging.write(picture.of_comparison(found), quiet=as_json)


@command()
@click.argument("path")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--hash", "with_hash", is_flag=True, help="Print the BLAKE3 hash of every file.")
@click.option(
    "--verify", is_flag=True, help="Read all tensors and compare them with the digests in the file."
)
@page_options
@json_option
def inspect(
    path: str, tensors: bool, with_hash: bool, verify: bool, as_json: bool, paging: Paging
) -> None:
    """Show what a checkpoint, task file, archive or store holds.

    Only headers are read. With --hash every file is read. With --verify every tensor is read and
    compared with the digests that merged models, task files, archives and stores carry; the first
    difference is an error, and so is a model without digests.

    \b
    breadcrumbs inspect merged
    breadcrumbs inspect t1.safetensors --hash
    breadcrumbs inspect merged --verify
    breadcrumbs inspect org/name@revision --tensors
    breadcrumbs inspect merged --html page.html
    """
    from breadcrumbs.cli import inspection, verifying
    from breadcrumbs.cli.views import inspection as views_inspection

    if verify:
        number = verifying.verify(path)
        if as_json:
            click.echo(json.dumps({"path": path, "verified": True, "tensors": number}, indent=2))
        else:
            click.echo(f"{path}: {counted(number, 'tensor')}, all as their digests say")
        return
    found = inspection.inspect(path, with_hash=with_hash)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        views_inspection.inspection(found, tensors=tensors)
    if paging.wanted:
        from breadcrumbs.cli import picture

        paging.write(picture.of(found), quiet=as_json)
