"""Every error that Breadcrumbs raises on purpose.

    BreadcrumbsError          one line: where, what was found, what to do; exit code 1
    |-- CheckpointError       a file or folder is not the checkpoint that it claims to be
    |-- MismatchError         models that do not fit each other, or weights that are not finite
    |-- RecipeError           an unknown or impossible key, method, parameter, value or pattern
    |-- ScoreError            a score was asked for, and what came is none
    |-- TrainingError         a fine-tuning cannot go on as it was asked for
    |-- SuiteError            a suite, task or foundation that cannot be what it says
    |   `-- SplitError        rows were asked for that may not be seen, or there are none
    |-- ResultsError          a file is not a file of results, or has no such rows
    |-- StoreError            a folder is not a store of tasks, or does not hold what was asked for
    |-- OutputError           the output exists, cannot be written, or does not fit
    `-- MissingExtraError     an optional package is needed and is not installed

A message states where the trouble is, what was found there, and what to do about it.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
#: An option that `merge` has too, with what follows it: a text in quotes, or one of few words.
_OPTION = re.compile(
    r"--(extra|missing|rename|exclude|only|dtype|force|resume|strict|untie|only-changed"
    r'|allow-nonfinite)\b(?: ("[^"]+"|ignore|base|same|float32))?'
)


class BreadcrumbsError(Exception):
    """Base of all errors with a message meant for the user."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows: the user's own, and what is wrong with it.

        The frames below it are ours, and `%debug` still has them.
        """
        import traceback

        own, at = os.path.dirname(__file__), ""
        for frame in traceback.extract_tb(self.__traceback__):
            if frame.filename.startswith(own):
                break
            at = f"line {frame.lineno}: {frame.line}"
        said = [f"{type(self).__name__}: {self}", *getattr(self, "__notes__", ())]
        return [at, *said] if at else said


class CheckpointError(BreadcrumbsError):
    """A file or folder is not the checkpoint that it claims to be."""


class MismatchError(BreadcrumbsError):
    """Models do not fit each other, or hold weights that cannot be merged."""


class RecipeError(BreadcrumbsError):
    """What was asked for is unknown or impossible."""


class ScoreError(BreadcrumbsError):
    """A score was asked for, and what came is none."""


class TrainingError(BreadcrumbsError):
    """A fine-tuning cannot go on as it was asked for."""


class SuiteError(BreadcrumbsError):
    """A suite, a task or a foundation cannot be what it says."""


class SplitError(SuiteError):
    """Rows were asked for that may not be seen, or of which there are none."""


class ResultsError(BreadcrumbsError):
    """A file is not a file of results, or does not have the rows that were asked for."""


class StoreError(BreadcrumbsError):
    """A folder is not a store of tasks, is damaged, or does not hold what was asked for."""


class OutputError(BreadcrumbsError):
    """The output cannot be written where it was asked for."""


class MissingExtraError(BreadcrumbsError):
    """An optional package is needed and is not installed."""


def install(extra: str, *more: str) -> str:
    """Return what to do where packages of an extra are missing, and others besides."""
    others = "".join(f' "{package}"' for package in more)
    return f'In a checkout of Breadcrumbs, run `pip install ".[{extra}]"{others}`.'


def printable(text: str) -> str:
    """Return ``text`` on one line, with what a terminal would act on written as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def sentence(text: str) -> str:
    """Return a line with a full stop, unless it ends with a mark already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest of ``known``, or an empty string."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 tensor``, ``12 tensors``. many: the plural, unless it is
    made with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def listing(names: Iterable[str], limit: int = 5) -> str:
    """Return up to ``limit`` names in quotes, then how many more there are."""
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function whose errors note what the options that they name are called in Python.

    RecipeError for a call without an argument that it needs, or with too many.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except BreadcrumbsError as error:
            found = keywords(str(error))
            if found and not hasattr(error, "__notes__"):
                error.add_note(f"In Python: {', '.join(found)}.")
            raise
        except TypeError:
            if unfit := _unfit(function, args, kwargs):
                raise RecipeError(unfit) from None
            raise

    return called


def _unfit(function: Callable[..., Any], args: Any, kwargs: Any) -> str | None:
    """Return why a function cannot be called so, and how it is called; None where it can."""
    import inspect

    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        name = function.__qualname__.removesuffix(".__init__")
        needed = [
            "[model, ...]" if parameter.name == "models" else parameter.name
            for parameter in signature.parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and parameter.name not in ("self", "cls")
        ]
        return f"{name}: {error}. Call it as {name}({', '.join(needed)})."
    return None


def keywords(text: str) -> list[str]:
    """Return the options of the command line in a message as keyword arguments.

    >>> keywords('Give --extra "a.*" or --force, or --rename "a=b" --rename "c=d".')
    ['extra="a.*"', 'force=True', 'rename=["a=b", "c=d"]']
    """
    found: dict[str, list[str]] = {}
    for name, value in _OPTION.findall(text):
        found.setdefault(name.replace("-", "_"), []).append(value.strip('"'))
    result = []
    for name, values in found.items():
        known = list(dict.fromkeys(f'"{value}"' for value in values if value))
        if not known:
            result.append(f"{name}=True")
        else:
            several = len(known) > 1 and name == "rename"
            result.append(f"{name}=[{', '.join(known)}]" if several else f"{name}={known[0]}")
    return result
