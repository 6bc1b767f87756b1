"""The command line: the group of all commands."""

from __future__ import annotations

import atexit
import gc
import os

import click

from breadcrumbs.cli import (
    compress,
    demo,
    evaluate,
    extract,
    finetune,
    merge,
    methods,
    models,
    results,
    search,
    soup,
    store,
    task,
)
from breadcrumbs.cli.shared import command
from breadcrumbs.version import __version__

# NumPy is not loaded yet. The threads of its linear algebra would only cost their start, and what
# is imported is no garbage: not now, and not at the end, where looking for some took 0.1 s.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
gc.set_threshold(200_000)
atexit.register(gc.freeze)


@click.group(
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


for one in (
    merge.merge,
    merge.import_,
    methods.methods,
    models.compare,
    models.inspect,
    search.search,
    soup.soup,
    compress.compress,
    extract.extract,
    store.store,
    task.task,
    finetune.finetune,
    evaluate.evaluate,
    results.results,
    demo.demo,
    completion,
):
    main.add_command(one)
