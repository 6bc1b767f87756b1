"""What the shell completes: methods, their parameters, dtypes, transforms, tasks, files.

Looked up by the name of a parameter of a command, so that commands need not say it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

#: Returns what there is to choose from, each with a line about it.
Choices = Callable[[click.Context], Mapping[str, str]]


class Completed(click.types.StringParamType):
    """Text of which some values are known."""

    def __init__(self, choices: Choices | None):
        self.choices = choices

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the choices that begin so; files where there are none to choose from."""
        if self.choices is None:
            return [CompletionItem(incomplete, type="file")]
        found: Mapping[str, str] = {}
        with suppress(Exception):  # of a file that is not there yet, or is another
            found = self.choices(ctx)
        return [
            CompletionItem(value, help=about or None)
            for value, about in found.items()
            if value.startswith(incomplete)
        ]


def complete(command: click.Command) -> None:
    """Give the parameters of a command that take any text what can be completed of them."""
    for parameter in command.params:
        if type(parameter.type) is not click.types.StringParamType:
            continue
        if parameter.name in _CHOICES:
            parameter.type = Completed(_CHOICES[parameter.name])
        elif isinstance(parameter, click.Argument) or parameter.name in _FILES:
            parameter.type = Completed(None)


def _methods(ctx: click.Context) -> Mapping[str, str]:
    if ctx.command.name == "compress":
        from breadcrumbs.archives.archive import METHODS as ways

        return dict.fromkeys(ways, "")
    from breadcrumbs.methods.registry import METHODS

    return {name: method.summary for name, method in METHODS.items()}


def _transforms(ctx: click.Context) -> Mapping[str, str]:
    from breadcrumbs.methods.table import TRANSFORMS

    return dict.fromkeys(TRANSFORMS, "")


def _aggregates(ctx: click.Context) -> Mapping[str, str]:
    from breadcrumbs.methods.table import AGGREGATES

    return dict.fromkeys(AGGREGATES, "")


def _parameters(ctx: click.Context) -> Mapping[str, str]:
    """Return ``key=value`` of the methods that were chosen: the default, and all of a few."""
    found: dict[str, str] = {}
    for declared in _declared(ctx):
        for key, kind in declared.items():
            values: Iterable[Any] = getattr(kind, "choices", ())
            default = getattr(kind, "default", None)
            firsts = () if default is None else (default,)
            for value in dict.fromkeys(map(str, (*firsts, *values))):
                found[f"{key}={value}"] = kind.help
            if default is None and not values:
                found[f"{key}="] = kind.help
    return found


def _declared(ctx: click.Context) -> Iterable[Mapping[str, Any]]:
    """Return the parameters of each method, or of the transform, that the command line names."""
    from breadcrumbs.methods import registry
    from breadcrumbs.methods.table import AGGREGATES, TRANSFORMS

    given = ctx.params
    if ctx.command.name == "compress":
        declared = registry.METHODS["tall_mask"].parameters
        return [{key: declared[key] for key in ("scale", "on")}]
    transform, aggregate = given.get("transform"), given.get("aggregate")
    if aggregate or (transform and "method" in given):
        first, second = TRANSFORMS[transform or "none"], AGGREGATES[aggregate or "sum"]
        return [{**first.parameters, **second.parameters}]
    if transform:
        return [TRANSFORMS[transform].parameters]
    names = given.get("methods") or [given.get("method") or _of_store(ctx) or "breadcrumbs"]
    return [registry.get(name).parameters for name in names]


def _of_store(ctx: click.Context) -> str | None:
    """Return the method of the store that the command line names."""
    from breadcrumbs.store import Store

    with suppress(Exception), Store.open(_first(ctx, "folder")) as opened:
        return opened.settings.method
    return None


def _dtypes(ctx: click.Context) -> Mapping[str, str]:
    from breadcrumbs.plan.recipe import OUTPUT_DTYPES, SAME

    return {**dict.fromkeys(OUTPUT_DTYPES, ""), SAME: "FP8 again"}


def _kernels(ctx: click.Context) -> Mapping[str, str]:
    return dict.fromkeys(("auto", "native", "numpy"), "")


def _tasks(ctx: click.Context) -> Mapping[str, str]:
    """Return the tasks of a suite."""
    from breadcrumbs.evaluate import suite

    return dict.fromkeys((task.name for task in suite.load(_first(ctx, "suite")).tasks), "")


def _held(ctx: click.Context) -> Mapping[str, str]:
    """Return the tasks of a store, or of an archive; of `breadcrumbs methods`, the methods."""
    if "folder" in ctx.params:
        from breadcrumbs.store import Store

        with Store.open(_first(ctx, "folder")) as opened:
            return {entry.name: f"weight {entry.weight:g}" for entry in opened.entries()}
    return _methods(ctx)


def _archived(ctx: click.Context) -> Mapping[str, str]:
    """Return the tasks of a file that `breadcrumbs compress` wrote."""
    from breadcrumbs.archives.archive import KEY
    from breadcrumbs.checkpoint.safetensors import read_header

    said = read_header(Path(_first(ctx, "archive"))).metadata[KEY]
    return dict.fromkeys(json.loads(said)["tasks"], "")


def _first(ctx: click.Context, name: str) -> str:
    """Return the first argument, which click has not told apart where an option is open."""
    return ctx.params.get(name) or ctx.args[0]


def _among(*values: str) -> Choices:
    return lambda ctx: dict.fromkeys(values, "")


_CHOICES: dict[str | None, Choices] = {
    "method": _methods,
    "methods": _methods,
    "transform": _transforms,
    "aggregate": _aggregates,
    "params": _parameters,
    "dtype": _dtypes,
    "kernel": _kernels,
    "tasks": _tasks,
    "name": _held,
    "task": _archived,
    "precision": _among("auto", "float32", "bfloat16"),
    "device": _among("auto", "cpu", "cuda"),
    "sampler": _among("grid", "random", "tpe", "cmaes", "qmc", "nsga2"),
    "objective": _among("mean", "raw", "min"),
    "schedule": _among("cosine", "linear"),
    "encoding": _among("exact", "int8", "int4", "ternary", "tvq:bits=3", "tsv:rank=16"),
}
#: Options that name a file or a folder; arguments that are in neither do, too.
_FILES = {"output", "base", "results", "storage", "plugins", "statistics", "tokenizer", "onto"}
_FILES |= {"suite", "vocabulary", "html", "png", "svg"}


#: A blank that the script of click reads as an escaped one.
_BLANK = "\\\\ "


@add_completion_class
class Bash(BashComplete):
    """bash takes ``key=value`` for three words, and looks for what comes after the last ``=``."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in (*args, incomplete):
            if words and (word == "=" or words[-1].endswith("=")):
                words[-1] += word
            else:
                words.append(word)
        whole = len(words) > len(args)
        self._before = "" if whole else words[-1].rpartition("=")[0] + "="
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        value = str(item.value).removeprefix(self._before)
        return f"{item.type},{value.replace(' ', _BLANK)}"


class _Joined(ShellComplete):
    """A shell that takes ``--option=value`` for one word, which what is chosen replaces."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        option, equals, _ = incomplete.partition("=")
        self._before = f"{option}=" if equals and option.startswith("--") else ""
        return args, incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        value = item.value if item.type == "file" else f"{self._before}{item.value}"
        return super().format_completion(CompletionItem(value, item.type, item.help))


@add_completion_class
class Zsh(_Joined, ZshComplete):
    """zsh, which looks for files after the ``=`` too."""

    source_template = ZshComplete.source_template.replace(
        "_path_files", "compset -P '--*='; _path_files"
    )


@add_completion_class
class Fish(_Joined, FishComplete):
    """fish, where values and what is said of them may have commas."""

    source_template = FishComplete.source_template.replace("string split ", "string split -m 1 ")
