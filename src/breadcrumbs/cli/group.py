"""The command line: the group of all commands."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
from collections.abc import Mapping

import click

from breadcrumbs.cli.grouped import Grouped
from breadcrumbs.cli.shared import COMPLETE
from breadcrumbs.version import __version__

# NumPy is not loaded yet. The threads of its linear algebra would only cost their start, and what
# is imported is no garbage: not now, and not at the end, where looking for some took 0.1 s.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
gc.set_threshold(200_000)
atexit.register(gc.freeze)
if COMPLETE in os.environ:
    importlib.import_module("breadcrumbs.cli.completing")  # which knows bash better than click does

#: In the order of the help: the heads, and below each the commands, each with the module that it
#: is in, which is imported when the command is asked for.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "Merge": {
        "merge": "merge",
        "from-mergekit": "merge",
        "soup": "soup",
        "reproduce": "reproduce",
        "demo": "demo",
    },
    "Look": {
        "inspect": "models",
        "compare": "models",
        "methods": "methods",
        "card": "card",
        "push": "push",
    },
    "Measure": {
        "evaluate": "evaluate",
        "results": "results",
        "search": "search",
        "learn": "learn",
        "report": "report",
        "finetune": "finetune",
    },
    "Keep": {
        "store": "store",
        "task": "task",
        "compress": "compress",
        "extract": "extract",
    },
    "Set up": {
        "completion": "completion",
    },
}
_HOMES = {name: home for commands in GROUPS.values() for name, home in commands.items()}


class Commands(Grouped):
    """The group of all commands, each of which is imported when it is asked for."""

    heads = GROUPS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _HOMES and cmd_name not in self.commands:
            home = importlib.import_module(f"breadcrumbs.cli.{_HOMES[cmd_name]}")
            self.add_command(getattr(home, cmd_name.replace("-", "_")))
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 a problem with the input, 2 wrong usage, 130 interrupted.",
)
@click.version_option(__version__, prog_name="breadcrumbs")
def main() -> None:
    """Merge fine-tunings of one foundation model into one multi-task model.

    Subtract the base, cut both tails of each task vector, add them up, add them to the base: no
    training, no data, a few hundred MB of memory.

    \b
    breadcrumbs demo                             see it work, in seconds
    breadcrumbs merge BASE FT1 FT2 -o merged     merge with Model Breadcrumbs
    breadcrumbs merge recipe.yaml -o merged      the same from a recipe file
    breadcrumbs merge --help                     what else a merge can do
    """
