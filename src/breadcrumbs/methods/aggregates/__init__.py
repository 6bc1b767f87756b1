"""Aggregates combine the transformed task vectors of one tensor.

An aggregate is declared by what it needs from the engine; the merged tensor is ``base + step``:

* `Linear`: the step is a factor times the weighted sum of the task vectors.
* `Elementwise`: the step of an entry is a function of the task vectors at that entry.
* `Gram`: the step is a combination of the base and the task vectors, whose coefficients follow from
  their inner products.
* `Whole`: the step is a function of the whole tensor.

All have a ``name``, by which users pair them with transforms (``breadcrumbs+elect``), or none;
``alone`` says why no transform goes with one that is a method by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from breadcrumbs.kernels import choose
from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.methods.parameters import Parameter, Values

#: How many models an aggregate takes: the least, and the most if there is a limit.
Models = tuple[int, int | None]
Weights = Sequence[float]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Statistics:
    """What an aggregate takes of each model besides its weights: a file of arrays by weight name.

    kind: as such a file says of itself. what: one of them, in words. make: what makes them.
    fits: (shape of a weight, shape of its array) -> whether that can be. everywhere: whether each
    merged weight must have an array; else any number of them has, the same of all models.
    """

    kind: str
    what: str
    make: str
    fits: Callable[[Shape, Shape], bool]
    everywhere: bool


@dataclass(frozen=True)
class Linear:
    """``base + factor * sum(weight_t * tau_t)``.

    factor: (values, weights) -> the factor, if it is not alpha, as for `Elementwise`; raises
    RecipeError where there is none. more: (values, weights) -> how much of the base is added
    besides. place: (values of each tensor by name, number
    of models) -> the same with what follows from the names, and a sentence for the user; raises
    RecipeError where the names do not tell.
    """

    factor: Callable[[Values, Sequence[float]], float] = lambda values, _: values.get("alpha", 1.0)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    models: Models = (0, None)
    more: Callable[[Values, Sequence[float]], float] = lambda values, weights: 0.0
    place: Callable[[Mapping[str, Values], int], tuple[dict[str, Values], str]] | None = None
    name: str = ""
    alone: str = ""


@dataclass
class Entries:
    """Some entries of all models.

    taus: (T, n) float64, transformed, 0 where cut. kept: (T, n), where they were not cut.
    weights: (T,). majority: 1 or -1, what `Elementwise.vote` found. counts: to add to what the
    report tells: how many entries ``changed``, and of these how many are what else. statistics:
    (T, n) float64, if the aggregate takes any.

    With `Elementwise.prepare`, ``absent`` or statistics, the rows are all models of a weight other
    than 0, zeros where one lacks the tensor. who: (T,) their numbers in the recipe. start: how many
    entries of the model come before these. narrow: whether magnitudes rank as float32. known: what
    ``prepare`` returned. kernels: with ``exact_sum`` and ``elected``, as `Terms` has them.
    """

    taus: np.ndarray
    kept: np.ndarray
    weights: np.ndarray
    majority: int = 1
    statistics: np.ndarray | None = None
    counts: Counter[str] = field(default_factory=Counter)
    who: Sequence[int] = ()
    start: int = 0
    narrow: bool = True
    known: Any = None
    kernels: Kernels = field(default_factory=choose)

    @property
    def terms(self) -> np.ndarray:
        """The task vectors times their weights."""
        return self.weights[:, None] * self.taus

    @property
    def sizes(self) -> np.ndarray:
        """The magnitudes of the task vectors, as they are ranked."""
        sizes = np.abs(self.taus)
        return sizes.astype(np.float32).astype(np.float64) if self.narrow else sizes


@dataclass(frozen=True)
class Extent:
    """How much of a model is merged: how many entries, and of how many models (rows).

    few: entries that a pass may hold.
    """

    size: int
    models: int
    few: int = 1 << 22


@dataclass(frozen=True)
class Fold:
    """One pass over all entries that are merged, some at a time.

    scan: entries -> what is found in them, in any thread. join: (what is known, what was found) ->
    what is known then; it may change the first. empty: () -> what is known before. The result may
    depend neither on how the entries are cut nor on the order in which they come; their positions
    in the model count tensor after tensor in the order of names. at: if given, only the entries
    that begin there are scanned, as they were cut in an earlier pass. some: if given, one entry of
    so many, about, in runs: the same ones in every run of the program, cut in another way.
    """

    scan: Callable[[Entries], Any]
    join: Callable[[Any, Any], Any]
    empty: Callable[[], Any]
    at: int | None = None
    some: int | None = None


@dataclass(frozen=True)
class Elementwise:
    """``base + alpha * combine(entries, values)``, entry by entry, the same bits in any order.

    combine: (entries, values) -> step (n,). alpha is the parameter of that name, 1 if there is
    none; it is not among the values, so that another alpha needs no other step. vote: entries -> a
    number; where the whole model is ranked together, the sign of their sum over all entries is
    given as ``entries.majority`` (1 where it is 1 or not asked for, else -1). It is known after the
    last entry, so ``combine`` is asked what both would be. kind: values -> which of the fused
    kernels' elections it is, if it is one. statistics: what it takes besides, of the shape of the
    weights.

    prepare: (extent, values) -> what ``combine`` is to know of the whole model, found before
    anything is written, and given as ``entries.known``: a generator, which yields each pass that it
    asks for as a `Fold`, is sent what that found, and returns what is known. passes: values -> how
    many passes it makes at most; 0 asks for none. by_tensor: whether it looks at each tensor by
    itself instead, each known for itself. sharp: whether task vectors that are known as products of
    thin matrices are taken as these, not as what adding them to the base is rounded to. absent:
    whether a model that lacks the tensor takes part with zeros, as with ``prepare``. parts: if the
    step is the sum of weights times what depends on none, (entries, values) -> that, (T, n).
    """

    combine: Callable[[Entries, Values], np.ndarray]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    models: Models = (0, None)
    vote: Callable[[Entries], int] | None = None
    kind: Callable[[Values], int] | None = None
    statistics: Statistics | None = None
    prepare: Callable[[Extent, Values], Generator[Fold, Any, Any]] | None = None
    passes: Callable[[Values], int] = lambda values: 0
    by_tensor: bool = False
    sharp: bool = False
    absent: bool = False
    parts: Callable[[Entries, Values], np.ndarray] | None = None
    name: str = ""
    alone: str = ""


@dataclass(frozen=True)
class Gram:
    """``base + c_0 base + sum(c_t * tau_t)`` with coefficients from inner products.

    coefficients: (gram, weights, values) -> c (..., 1 + T); gram (..., 1 + T, 1 + T): the inner
    products of the base and the task vectors in float64, of the flat tensor, or of each of its
    lines: values -> ``tensor``, ``row`` (along the last axis) or ``column`` (along the first).
    base: values -> whether the coefficients depend on the base.
    """

    coefficients: Callable[[np.ndarray, Weights, Values], np.ndarray]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    models: Models = (1, None)
    lines: Callable[[Values], str] = lambda values: values.get("angles", "tensor")
    base: Callable[[Values], bool] = lambda values: (
        values.get("of", "task_vectors") != "task_vectors"
    )
    name: str = ""
    alone: str = ""


@dataclass(frozen=True)
class Whole:
    """``base + alpha * combine(base, taus, weights, values)``, a tensor at a time in memory.

    combine: base float64 of the tensor's shape, taus (T, *shape) that it may overwrite, weights
    (T,) -> step of the shape. each: (name, shape, values) -> the shape of what is combined by
    itself: that of the tensor, or of its last dimensions, of one matrix of a stack. run: values ->
    how many entries in a row are combined by themselves, whatever the shape, the last ones of a
    tensor too if they are fewer; 0 for none. Then ``combine`` gets some such runs, flat. alpha: as
    for `Elementwise`. svds: how many singular value decompositions a matrix takes, in words.
    ordered: whether the order of the models matters. statistics: what it takes besides; then
    combine has one argument more, an iterator over the models of `Given`, or None where a model has
    no array for this tensor. memory: (shape of what is combined, number of models) -> how many
    float64 numbers combine holds at most besides the base and the task vectors. directions: whether
    it takes apart or evens out directions of matrices, so that those of noise count. apart: whether
    tasks are kept apart, so that T of them make a step of sqrt(T) task vectors at a published
    factor. fits: (parameters, number of models) -> anything; raises RecipeError where so many
    models cannot be merged so. counts: whether ``combine`` returns a pair, the step and how many
    entries it keeps of each model, in their order. turns: whether ``combine`` may be given the task
    vectors as `turns.Turns`, which it goes through one after the other: then the base is zeros, and
    they have their weights. base: values -> whether ``combine`` looks at the base's weights.
    by_entry: whether an entry of what is not a matrix depends on the task vectors there alone, so
    that such a tensor need not be held. algebra: whether its products and decompositions of
    matrices are those of `methods.algebra`, which may make them on a device. check: given
    parameters -> the same with those that depend on others; raises RecipeError for what contradicts
    each other.
    """

    combine: Callable[..., Any]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    models: Models = (1, None)
    each: Callable[[str, Shape, Values], Shape] = lambda name, shape, values: shape
    run: Callable[[Values], int] = lambda values: 0
    memory: Callable[[Shape, int], float] = lambda shape, models: math.prod(shape) * (models + 6)
    svds: str = ""
    ordered: bool = False
    statistics: Statistics | None = None
    directions: bool = False
    apart: bool = False
    fits: Callable[[Values, int], object] = lambda values, models: None
    counts: bool = False
    by_entry: bool = False
    turns: bool = False
    algebra: bool = False
    check: Callable[[Values], Values] = lambda values: values
    base: Callable[[Values], bool] = lambda values: False
    name: str = ""
    alone: str = ""


@dataclass(frozen=True)
class Given:
    """An array of statistics, float64. turned: whether the weight's inputs lie along its axis 0."""

    array: np.ndarray
    turned: bool = False


Aggregate = Linear | Elementwise | Gram | Whole
