"""The command line: the group of all commands."""

from __future__ import annotations

import atexit
import gc
import importlib
import os

import click

from breadcrumbs.cli.shared import command
from breadcrumbs.version import __version__

# NumPy is not loaded yet. The threads of its linear algebra would only cost their start, and what
# is imported is no garbage: not now, and not at the end, where looking for some took 0.1 s.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
gc.set_threshold(200_000)
atexit.register(gc.freeze)


#: By name of a command, the module that it is in, which is imported when it is asked for.
_HOMES = {"import": "merge", "compare": "models", "inspect": "models"}
_HOMES |= {name: name for name in ("compress", "demo", "evaluate", "extract", "finetune", "merge")}
_HOMES |= {
    name: name for name in ("methods", "report", "results", "search", "soup", "store", "task")
}


class Commands(click.Group):
    """The group of all commands, each of which is imported when it is asked for."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _HOMES and cmd_name not in self.commands:
            home = importlib.import_module(f"breadcrumbs.cli.{_HOMES[cmd_name]}")
            self.add_command(getattr(home, "import_" if cmd_name == "import" else cmd_name))
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*_HOMES, *self.commands})


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 a problem with the input, 2 wrong usage. ",
)
@click.version_option(__version__, prog_name="breadcrumbs")
def main() -> None:
    """Merge fine-tunings of one foundation model into one multi-task model.

    Subtract the base, cut both tails of each task vector, add them up, add them to the base: no
    training, no data, a few hundred MB of memory.

    \b
    breadcrumbs demo                                   see it work, in under a minute
    breadcrumbs merge BASE FT1 FT2 -o merged           merge with Model Breadcrumbs
    breadcrumbs merge recipe.yaml -o merged            the same from a recipe file
    """


@command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in SHELL.

    \b
    breadcrumbs completion bash >> ~/.bashrc
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "breadcrumbs", "_BREADCRUMBS_COMPLETE").source())


main.add_command(completion)
