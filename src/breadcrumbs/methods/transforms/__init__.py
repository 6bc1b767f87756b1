"""Transforms look at one task vector at a time and say what of it stays.

A transform is declared by what it needs from the engine:

* `Band` keeps an interval of ranks of each unit (a tensor, a row, or the whole model): it is a
  function from the size of the unit to the first and last rank that stay.
* `Draw` keeps entries at random: a function to the probability of staying.
* `Chances` does so with a probability that depends on the rank of an entry in its row.
* `Fitted` changes values by a function of a few numbers, which are found from the tensor first.
* `Shaped` changes each matrix as a whole.
* `Everything` keeps all.

All have a ``name``, by which users pair them with aggregates (``breadcrumbs+elect``), or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.methods.parameters import OneOf, Parameter, Values

GRANULARITY = OneOf(
    None,
    ("kind", "tensor", "row", "model"),
    "what is ranked together: each tensor, each row (last axis), or the model; kind: each row of"
    " embeddings and heads, and each other tensor",
)

COUNTS = OneOf(
    "decimal",
    ("decimal", "mergekit"),
    "how fractions are rounded to counts: down, or as mergekit does",
)
L1 = "the L1 norm lost in a tensor (unless it is below 1e-7)"
RESCALE = OneOf("none", ("none", "l1"), "whether kept entries are rescaled; l1: by " + L1)


def floored(fraction: Decimal, n: int) -> int:
    """Return ``int(fraction * n)`` in binary floating point: 28 for 0.29 of 100, as mergekit."""
    return int(float(fraction) * n)


def own_unit(values: Values) -> str:
    """Return what is ranked together where nothing is said: by kind, or as mergekit does."""
    return "tensor" if values.get("counts") == "mergekit" else "kind"


@dataclass(frozen=True)
class Band:
    """Keep the entries of ranks ``first < rank <= last`` by (magnitude, position), from 1.

    ranks: (n, values) -> (first, last) for a unit of n entries. check: raises RecipeError for
    values that contradict each other, and completes them. unit: values -> default granularity.
    keep_scalars: values -> whether a 0-dimensional tensor passes whole. replaces: a parameter ->
    those that it is given instead of.
    """

    ranks: Callable[[int, Values], tuple[int, int]]
    parameters: Mapping[str, Parameter]
    check: Callable[[Values], Values] = lambda values: values
    unit: Callable[[Values], str] = own_unit
    keep_scalars: Callable[[Values], bool] = lambda values: False
    replaces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = ""

    def granularity(self, values: Values) -> str:
        """Return what is ranked together; `unit_of` says what ``kind`` is of a tensor."""
        return values.get("granularity") or self.unit(values)


def unit_of(granularity: str, table: bool) -> str:
    """Return what ``kind`` is: of embeddings and heads each row, of other tensors the tensor.

    Rows of a head often move alike, by a shift that no softmax over it shows. Ranked together,
    some rows keep that shift, which shows then, and what the rest has learned is cut.
    """
    if granularity != "kind":
        return granularity
    return "row" if table else "tensor"


@dataclass(frozen=True)
class Draw:
    """Keep each entry independently with a probability, from a generator keyed by
    (seed, model, tensor) and the entry's position, and multiply what stays by ``scale``."""

    keep: Callable[[Values], float]
    parameters: Mapping[str, Parameter]
    check: Callable[[Values], Values] = lambda values: values
    scale: Callable[[Values], float] = lambda values: 1.0
    name: str = ""


@dataclass(frozen=True)
class Chances:
    """Keep each entry with a probability of its own, drawn as for `Draw`.

    chances: (n, values) -> the probabilities (n,) of the entries of a row along the last axis, by
    (magnitude, position) from the smallest on. divide: values -> whether entries are divided by
    their probability.
    """

    chances: Callable[[int, Values], np.ndarray]
    parameters: Mapping[str, Parameter]
    check: Callable[[Values], Values] = lambda values: values
    divide: Callable[[Values], bool] = lambda values: True
    name: str = ""


@dataclass(frozen=True)
class Fitted:
    """Change the values of a tensor's task vectors by a function that is fitted to them first.

    fit: (begin, values, kernels) -> numbers; ``begin()`` yields the task vectors (T, n) of the
    tensor, some entries at a time, as often as it is called. change: (task vectors (T, n), what was
    fitted, values, kernels) -> the changed ones, entry by entry. Both may overwrite the task
    vectors that they are given; kernels: with ``exact_sum``, as `Terms` has it. passes: how
    often ``fit`` begins. absent: whether a model that lacks the tensor takes part with zeros,
    because each one's result depends on all.
    """

    fit: Callable[[Callable[[], Iterator[np.ndarray]], Values, Kernels], Any]
    change: Callable[[np.ndarray, Any, Values, Kernels], np.ndarray]
    parameters: Mapping[str, Parameter]
    passes: int
    absent: bool = False
    check: Callable[[Values], Values] = lambda values: values
    name: str = ""


@dataclass(frozen=True)
class Shaped:
    """Change a task vector's matrix as a whole, in memory; other tensors stay.

    change: (matrix (m, n), values) -> another of its shape. Of experts stacked in one tensor it is
    given each matrix, of embeddings and heads of language models none. algebra: as for an aggregate
    of whole tensors.
    """

    change: Callable[[np.ndarray, Values], np.ndarray]
    parameters: Mapping[str, Parameter]
    check: Callable[[Values], Values] = lambda values: values
    algebra: bool = False
    name: str = ""


@dataclass(frozen=True)
class Everything:
    """Keep every entry."""

    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    check: Callable[[Values], Values] = lambda values: values
    name: str = "none"


Transform = Band | Draw | Chances | Fitted | Shaped | Everything
