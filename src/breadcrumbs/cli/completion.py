"""`breadcrumbs completion`."""

from __future__ import annotations

import click

from breadcrumbs.cli.shared import command


@command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script with which SHELL completes commands, options and their values.

    Values are methods, their parameters, dtypes, transforms, tasks of stores and suites, and files.
    Open a new shell afterwards.

    \b
    breadcrumbs completion bash >> ~/.bashrc
    breadcrumbs completion zsh >> ~/.zshrc
    breadcrumbs completion fish > ~/.config/fish/completions/breadcrumbs.fish
    """
    from click.shell_completion import get_completion_class

    from breadcrumbs.cli.group import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "breadcrumbs", "_BREADCRUMBS_COMPLETE").source())
