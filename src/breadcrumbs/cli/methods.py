"""`breadcrumbs methods`."""

from __future__ import annotations

import json

import click

from breadcrumbs.cli.shared import (
    command,
    json_option,
    plugin_option,
)


@command()
@click.argument("name", required=False)
@plugin_option
@json_option
def methods(name: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """List the methods, or explain one.

    With NAME: its formula, parameters and paper.

    \b
    breadcrumbs methods
    breadcrumbs methods breadcrumbs
    breadcrumbs methods breadcrumbs+elect
    """
    from breadcrumbs.cli.views import methods as views_methods
    from breadcrumbs.methods import registry as table

    for plugin in plugins:
        table.load_plugin(plugin)
    chosen = [table.get(name)] if name else list(table.METHODS.values())
    if as_json:
        click.echo(
            json.dumps([views_methods.method_mapping(method) for method in chosen], indent=2)
        )
    elif name:
        views_methods.method(chosen[0])
    else:
        views_methods.methods(chosen)
