"""`breadcrumbs completion`."""

from __future__ import annotations

import click

from breadcrumbs.cli.shared import COMPLETE, command


@command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script for completion in your shell.

    With it, the Tab key completes commands, options and their values: methods, parameters of the
    chosen method, dtypes, transforms, tasks of a store or suite, and files. Open a new shell
    afterwards.

    \b
    breadcrumbs completion bash >> ~/.bashrc
    breadcrumbs completion zsh >> ~/.zshrc
    breadcrumbs completion fish > ~/.config/fish/completions/breadcrumbs.fish
    """
    from click.shell_completion import get_completion_class

    from breadcrumbs.cli import completing  # noqa: F401  whose shells know more than click's
    from breadcrumbs.cli.group import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "breadcrumbs", COMPLETE).source())
