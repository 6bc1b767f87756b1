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

from collections.abc import Iterable


class BreadcrumbsError(Exception):
    """Base of all errors with a message meant for the user."""


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


def listing(names: Iterable[str], limit: int = 5) -> str:
    """Return up to ``limit`` names in quotes, then how many more there are."""
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
