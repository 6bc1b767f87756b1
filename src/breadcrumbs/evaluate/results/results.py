"""Rows of results: what a model scores on one split of one task, kept in one SQLite file.

Nothing is computed twice: a row is found again by its `Key`, hashes of all that it depends on.
Normalised values are not kept. They come, on reading, from the row of the fine-tuned model.
"""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.errors import ResultsError, ScoreError, listing, suggestion
from breadcrumbs.evaluate.results import standard_errors
from breadcrumbs.evaluate.results.database import Database, Values
from breadcrumbs.version import __version__

#: The file that commands use unless told.
DEFAULT = "results.sqlite"
#: What the base, and the fine-tuned models on their own tasks together, are called.
BASE, FINETUNED = "base", "fine-tuned"


@dataclass(frozen=True, kw_only=True)
class Key:
    """All that a score depends on.

    model, base: hashes of weights. foundation, head, rows: digests of its settings and of what lies
    beside the base (configuration, tokenizer), of what the head was made of, and of the rows.
    precision: float32 or bfloat16. correction: digest of the corrections that were learned
    behind the model; empty where there are none.
    """

    model: str
    base: str
    foundation: str
    head: str
    task: str
    rows: str
    split: str
    metric: str
    precision: str
    correction: str = ""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, kw_only=True)
class Row(Key):
    """A score, with all that is known of it.

    label: what the user calls the model. suite: where the task comes from. value: of the metric.
    correct, items: right answers, and all. hits: which answers are right, in the order of the
    rows, as `numpy.packbits` packs them. finetuned: hash of the model that was fine-tuned on the
    task, which the value is normalised by. recipe: JSON of what the model was merged from.
    seconds: what scoring took. version: of breadcrumbs. when: UTC.
    learned_split, learned_rows, learned_from, answers: the split, the number and a digest of the
    rows of the task that something was learned from besides the model, or its recipe's numbers, and
    what was known of them: expert (the fine-tuned model's answers), labels, or none, which is
    nothing. None where nothing was learned. transductive: whether rows that are scored were among
    them. task_known: whether something that was learned has to be told the task. extra_numbers: of
    the task, beside the model. encoder_passes: rows that went through an encoder to learn them.
    reference: the row of the fine-tuned model, if it is there; it is not kept.
    """

    suite: str
    label: str
    value: float
    stderr: float
    correct: int
    items: int
    hits: bytes | None = field(default=None, repr=False)
    finetuned: str | None = None
    recipe: str | None = field(default=None, repr=False)
    recipe_hash: str | None = None
    seed: int | None = None
    seconds: float | None = None
    version: str = __version__
    when: str = field(default_factory=_now)
    learned_split: str | None = None
    learned_rows: int | None = None
    learned_from: str | None = None
    answers: str | None = None
    transductive: int = 0
    task_known: int = 0
    extra_numbers: int = 0
    encoder_passes: int = 0
    reference: Row | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make plain numbers and text of what is given, and check that they agree."""
        for name, cast in _CASTS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, cast(value))
        where = f"{self.label} on {self.task}"
        if not (math.isfinite(self.value) and math.isfinite(self.stderr)):
            raise ScoreError(
                f"{where}: scores {self.value} +- {self.stderr}, which is not a number."
            )
        if not 0 <= self.correct <= self.items or not self.items:
            raise ScoreError(f"{where}: {self.correct} of {self.items} answers cannot be right.")
        if self.hits is not None:
            right = int(np.bitwise_count(np.frombuffer(self.hits, np.uint8)).sum())
            if right != self.correct or len(self.hits) != -(-self.items // 8):
                raise ScoreError(
                    f"{where}: hits of {len(self.hits)} bytes with {right} right do not fit"
                    f" {self.correct} of {self.items} answers."
                )
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise ScoreError(f"{where}: seed {self.seed} is not between 0 and 2^63.")

    @property
    def key(self) -> Key:
        """What the score depends on."""
        return Key(**{name: getattr(self, name) for name in KEY})

    @property
    def own(self) -> bool:
        """Whether this is the fine-tuned model on its own task, as it is."""
        return self.model == self.finetuned and not self.correction

    @property
    def divisor(self) -> Row | None:
        """The row of the fine-tuned model, which may be this one."""
        return self if self.own else self.reference

    @property
    def normalised(self) -> float | None:
        """The value divided by that of the fine-tuned model: 1 for that one itself."""
        found = self.normalised_estimate
        return None if found is None else found.value

    @property
    def normalised_estimate(self) -> standard_errors.Estimate | None:
        """The normalised value and its standard error."""
        return standard_errors.ratio(self)

    @property
    def finetuned_value(self) -> float | None:
        """The value of the fine-tuned model."""
        return None if self.divisor is None else self.divisor.value

    def to_mapping(self) -> dict[str, Any]:
        """Return all fields as plain data but for the hits, and the normalised value."""
        found = {name: getattr(self, name) for name in COLUMNS if name != "hits"}
        found |= {name: bool(found[name]) for name in ("transductive", "task_known")}
        normalised = self.normalised_estimate
        return found | {
            "finetuned_value": self.finetuned_value,
            "normalised": None if normalised is None else normalised.value,
            "normalised_stderr": None if normalised is None else normalised.stderr,
        }


KEY = tuple(one.name for one in fields(Key))
_KINDS = {
    "str": "TEXT NOT NULL",
    "float": "REAL NOT NULL",
    "int": "INTEGER NOT NULL",
    "str | None": "TEXT",
    "float | None": "REAL",
    "int | None": "INTEGER",
    "bytes | None": "BLOB",
}
#: The columns of the file: every field but the reference.
COLUMNS = {one.name: _KINDS[str(one.type)] for one in fields(Row) if one.name != "reference"}
_CASTS: dict[str, Callable[[Any], Any]] = {
    name: {
        # A file name that is no Unicode can be a label.
        "TEXT": lambda text: str(text).encode(errors="backslashreplace").decode(),
        "REAL": float,
        "INTEGER": int,
        "BLOB": bytes,
    }[kind.split(" ")[0]]
    for name, kind in COLUMNS.items()
}
#: The same score may stand in several suites, under several names and for several fine-tunings.
_UNIQUE = (*KEY, "suite", "label", "finetuned", "recipe_hash", "seed")
#: Columns that files of version 1 lack, and what their rows have there.
_ADDED = {
    "correction": "",
    "learned_split": None,
    "learned_rows": None,
    "learned_from": None,
    "answers": None,
    "transductive": 0,
    "task_known": 0,
    "extra_numbers": 0,
    "encoder_passes": 0,
}
_HASHES = ("model", "base", "foundation", "head", "rows", "finetuned", "recipe_hash")
_HASHES += ("correction", "learned_from")


class Results:
    """Rows in a file that several processes read and write at once. A context manager.

    path: of the file, which is made where there is none, or ``:memory:``. readonly: leave the file
    as it is, and raise ResultsError where there is none. warn: takes one line, which is printed
    unless told. `results.database` says what happens to files that are damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT,
        *,
        readonly: bool = False,
        warn: Callable[[str], None] | None = None,
    ):
        file = None if path == ":memory:" else Path(path)
        told = {} if warn is None else {"warn": warn}
        self._database = Database(file, COLUMNS, _UNIQUE, added=_ADDED, readonly=readonly, **told)
        #: How messages call the file.
        self.name = str(path)

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *exc: object) -> None:
        self._database.close()

    def add(self, *rows: Row) -> None:
        """Keep rows: all or none of them, and on disk when this returns.

        A row of the same key, suite, label, fine-tuned model, recipe and seed is replaced.
        """
        self._database.write([_values(row) for row in rows])

    def recall(self, key: Key, **facts: Any) -> Row | None:
        """Return the latest row of a key, or None.

        facts: fields to say otherwise, such as the label: the same weights may have several names.
        The row is kept with them, if it is not there yet.
        """
        found = self._read({name: glob.escape(value) for name, value in asdict(key).items()})
        if not found:
            return None
        row = replace(found[-1], **facts)
        if row not in found:
            self.add(row)
        return row

    def models(self, key: Key) -> set[str]:
        """Return the hashes of the models of which there are rows of a key, but for its model."""
        names = [name for name in KEY if name != "model"]
        where = " AND ".join(f'"{name}" = ?' for name in names)
        found = self._database.ask(
            f"SELECT DISTINCT model FROM rows WHERE {where}", [getattr(key, name) for name in names]
        )
        return {model for (model,) in found}

    def select(self, **filters: Any) -> list[Row]:
        """Return the rows that fit, in the order of writing.

        filters: by column, a value or several of them. Hashes fit by their beginning, text also as
        a glob, such as ``task="glyphs-*"``; None fits what is unknown.
        """
        return self.referenced(self._read(filters))

    def referenced(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows with the rows of the fine-tuned models, as far as they are there."""
        rows = list(rows)
        wanted = {row.finetuned for row in rows if row.finetuned is not None and not row.own}
        return refer(rows, self._read({"model": wanted}) if wanted else [])

    def contents(self) -> list[tuple[str, str, int]]:
        """Return (suite, split, number of rows), the latest first."""
        return self._database.ask(
            "SELECT suite, split, count(*) FROM rows GROUP BY suite, split ORDER BY max(id) DESC"
        )

    def _read(self, filters: Mapping[str, Any]) -> list[Row]:
        conditions, parameters = [], []
        for name, wanted in filters.items():
            if name not in COLUMNS or name == "hits":
                raise ResultsError(
                    f"rows have no {name!r} to choose by.{suggestion(name, COLUMNS)}"
                    f" They have {listing(COLUMNS, len(COLUMNS))}."
                )
            several = isinstance(wanted, Collection) and not isinstance(wanted, str | bytes)
            tests = [_test(name, one) for one in (wanted if several else [wanted])]
            conditions.append(" OR ".join(test for test, _ in tests) or "0")
            parameters += [value for _, values in tests for value in values]
        where = f"WHERE ({') AND ('.join(conditions)})" if conditions else ""
        rows = [_row(values) for values in self._database.read(where, parameters)]
        # Where the index is damaged, a row may be there twice.
        latest = {tuple(getattr(row, name) for name in _UNIQUE): row for row in reversed(rows)}
        return [*reversed(latest.values())] if len(latest) < len(rows) else rows


def refer(rows: Iterable[Row], among: Iterable[Row]) -> list[Row]:
    """Return the rows with their reference among the others, if they have none."""
    by_key = {_key(row, row.model): row for row in among if not row.correction}
    found = []
    for row in rows:
        if row.reference is None and row.finetuned is not None and not row.own:
            reference = by_key.get(_key(row, row.finetuned))
            row = row if reference is None else replace(row, reference=reference)
        found.append(row)
    return found


def _key(row: Row, model: str | None) -> tuple[Any, ...]:
    return (model, *(getattr(row, name) for name in KEY if name not in ("model", "correction")))


def _test(name: str, wanted: Any) -> tuple[str, list[Any]]:
    """Return the SQL and the parameters of a condition."""
    column = f'"{name}"'
    if wanted is None:
        return f"{column} IS NULL", []
    wanted = _CASTS[name](wanted)
    if name in _HASHES and 0 < len(wanted) < 64:
        return f"substr({column}, 1, ?) = ?", [len(wanted), wanted]
    if COLUMNS[name].startswith("TEXT") and re.search(r"[*?\[]", wanted):
        return f"{column} = ? OR {column} GLOB ?", [wanted, wanted]
    return f"{column} = ?", [wanted]


def _values(row: Row) -> Values:
    return tuple(getattr(row, name) for name in COLUMNS)


def _row(values: Values) -> Row:
    return Row(**dict(zip(COLUMNS, values, strict=True)))
