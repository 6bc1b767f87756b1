"""The plan: what happens to each tensor, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, bits
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.parameters import AUTO, Factor, Values
from breadcrumbs.plan import lowering
from breadcrumbs.plan.coordinates import Basis
from breadcrumbs.plan.lowering import Lowered
from breadcrumbs.plan.recipe import SAME, Recipe
from breadcrumbs.plan.settings import Own
from breadcrumbs.plan.sizes import USUAL, Sizes
from breadcrumbs.plan.words import Words


@dataclass(frozen=True)
class TensorPlan:
    """What happens to one tensor.

    base: the base's tensor, which gives name and shape. dtype: of the output.
    models: the models' tensors, None for a model that lacks it. values: the method's parameters.
    own: for each model its weight and its parameters, which differ from `values` at most in the
    transform's. copied: why it is copied from the base; empty if it is merged. onto: what the step
    is added to instead of the base, or what is copied. mean: the weights of the models in the mean
    that a statistic is instead. tied: the name of the tensor that it is a copy of. careful: whether
    a NaN or infinity counts as unchanged. statistics: the models' arrays for it, where the method
    takes any; turned: whether the inputs that they are about lie along axis 0. written: what the
    tensor is called in the output, if not as in the base. component: the folder of the pipeline's
    component that it is of: what is ranked or found of a whole model is so of each of these.
    """

    base: Tensor
    dtype: str
    models: tuple[Tensor | None, ...]
    values: Values
    own: tuple[Own, ...]
    copied: str = ""
    onto: Tensor | None = None
    statistics: tuple[Tensor | None, ...] = ()
    turned: bool = False
    mean: tuple[float, ...] = ()
    tied: str = ""
    careful: bool = False
    written: str = ""
    component: str = ""

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def inner(self) -> str:
        """What the tensor is called in its component."""
        return self.name[len(self.component) + 1 :] if self.component else self.name

    @property
    def output(self) -> str:
        """What the tensor is called in the output."""
        return self.written or self.name

    @property
    def target(self) -> Tensor:
        """What the step is added to, and what is copied."""
        return self.onto or self.base

    @cached_property
    def bytes_read(self) -> int:
        """Bytes of the tensors that the result is made from, each counted once."""
        if self.tied:
            return 0
        others = () if self.copied and not self.mean else (*self.models, *self.statistics)
        return self.base.stored + sum(other.stored for other in others if other)


@dataclass(frozen=True)
class Coordinates:
    """What is merged before the output is written, of adapters in a space of their own.

    plan: with matrices of coordinates in the place of matrices. bases: what they are coordinates
    in, by the name of the tensor. Once it is done: ``rows``, what was done to the plan's tensors,
    and ``steps``, the merged coordinates by name.
    """

    plan: Plan
    bases: Mapping[str, Basis]
    rows: Sequence[Any] = ()
    steps: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A recipe that fits its checkpoints. tensors: in the base's order, then markers of the models.
    warnings: what the user should look at. notes: what the user should know, and is right.
    onto: the model that the step is added to instead of the base. statistics: a file for each
    model, if the method takes any. alphas: what `merging.calibration` has found from the weights:
    by component, or of "", the whole of a model that has none; task_length: the mean length of the
    task vectors, where that found it too. sizes: in what pieces it is carried out. words: the
    vocabulary, where rows were matched by token. coordinates: of a merge in a space of adapters.
    """

    recipe: Recipe
    method: Method
    base: Checkpoint
    models: tuple[Checkpoint, ...]
    tensors: tuple[TensorPlan, ...]
    warnings: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
    onto: Checkpoint | None = None
    statistics: tuple[Checkpoint, ...] = ()
    alphas: Mapping[str, float] = field(default_factory=dict)
    task_length: float | None = None
    sizes: Sizes = USUAL
    words: Words | None = None
    coordinates: Coordinates | None = None

    @property
    def target(self) -> Checkpoint:
        """What the step is added to, and whose other files are copied."""
        return self.onto or self.base

    @property
    def sources(self) -> tuple[Checkpoint, ...]:
        return (self.base, *self.models, *((self.onto,) if self.onto else ()))

    @property
    def inputs(self) -> tuple[Checkpoint, ...]:
        """All that is read: models and statistics."""
        return (*self.origins, *self.statistics)

    @property
    def origins(self) -> tuple[Checkpoint, ...]:
        """The sources, those that a stack is made of in its place, each once."""
        parts = [{p.label: p for p in source.parts or (source,)} for source in self.sources]
        return tuple(part for mine in parts for part in mine.values())

    @cached_property
    def merged(self) -> list[TensorPlan]:
        return [tensor for tensor in self.tensors if not tensor.copied]

    @cached_property
    def untouched(self) -> tuple[frozenset[str], ...]:
        """Of each model the names of the tensors that its adapter leaves as they are."""
        none = frozenset[str]()
        return tuple(model.untouched(self.base) or none for model in self.models)

    @cached_property
    def kinds(self) -> dict[str, int]:
        """How many tensors there are of each kind, tied copies apart."""
        return Counter("tied copy" if tensor.tied else tensor.base.kind for tensor in self.tensors)

    @cached_property
    def automatic(self) -> list[TensorPlan]:
        """The tensors some of whose parameters must be found before they can be merged."""
        known = [key for key, kind in self.method.parameters.items() if isinstance(kind, Factor)]
        return [t for t in self.merged if any(t.values.get(key) == AUTO for key in known)]

    @property
    def bytes_measured(self) -> int:
        """Bytes that are read to find alpha, each counted once."""
        return sum(tensor.bytes_read for tensor in self.automatic)

    @cached_property
    def lowered(self) -> Lowered:
        """What the method declares, each kind by name."""
        return lowering.of(self.method)

    @property
    def prepares(self) -> bool:
        """Whether the aggregate looks at the whole model before anything is written."""
        aggregate = self.lowered.elementwise
        if aggregate is None or aggregate.by_tensor:
            return False
        return any(aggregate.passes(tensor.values) for tensor in self.merged if tensor.base.size)

    @cached_property
    def bytes_read(self) -> int:
        """Bytes of the tensors that the result is made from, each counted once."""
        return sum(tensor.bytes_read for tensor in self.tensors)

    @property
    def bytes_written(self) -> int:
        again = self.recipe.dtype == SAME
        return sum(
            t.target.stored if again and t.target.layout else t.base.size * bits(t.dtype) // 8
            for t in self.tensors
        )
