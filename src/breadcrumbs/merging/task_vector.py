"""Task vectors as values: subtract, add, scale, apply.

Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv:2212.04089.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import like, renames
from breadcrumbs.checkpoint.tensors import WEIGHT_DTYPES, Checkpoint
from breadcrumbs.errors import MismatchError, listing
from breadcrumbs.kernels import choose
from breadcrumbs.plan import naming, ties
from breadcrumbs.plan.partners import Remarks, partners
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.taskfile import view

_FLOATS = set(WEIGHT_DTYPES.values())
#: What is left out where the base lacks it, and found out here where the model does.
_ALL = Recipe("base", (Model("a model"),), missing="base", extra="ignore")


class TaskVector(Mapping[str, np.ndarray]):
    """The difference of a fine-tuned model and its base, in float64, tensor by tensor.

    base, finetuned: what `breadcrumbs.open` takes. rename: as for `breadcrumbs.merge`.
    Integer tensors are left out, since they are copied from the base. Of tied copies a model may
    store one, as in a merge; MismatchError for a head that it has untied.
    ``tau1 + 0.5 * tau2 - tau3`` and ``sum([tau1, tau2])`` are task vectors
    again; ``base + tau`` and ``tau.apply_to(base, scale)`` are models. float64 holds such sums with
    no rounding that a weight of 32 bits or fewer would show.
    """

    def __init__(self, base: Any, finetuned: Any, *, rename: str | Sequence[str] = ()):
        first = checkpoint.open(base)
        first, second = view.on_base(first, [first, checkpoint.open(finetuned)])
        rules = [rename] if isinstance(rename, str) else list(rename)
        second = naming.of_one(first, second, rules)
        names = [name for name, tensor in first.tensors.items() if tensor.is_weight]
        ties.untied(_ALL, first, [second])  # raises for a head that is no copy any more
        mine = partners(_ALL, first, second, {}, Remarks())
        absent = [name for name in names if name not in mine]
        if absent:
            raise MismatchError(
                f"{second.label}: lacks tensors of {first.label}: {listing(absent)}."
                f"{renames.suggestion(first, second) or ' Give a fine-tuning of this base.'}"
            )
        self._tensors: dict[str, np.ndarray] = {}
        for name in names:
            if first.tensors[name].shape != mine[name].shape:
                raise MismatchError(
                    f"{second.label}: tensor {name!r} has shape {mine[name].shape},"
                    f" {first.label} has {first.tensors[name].shape}. Give a fine-tuning of this"
                    " base."
                )
            tuned, own = mine[name].read().astype(np.float64), first[name].astype(np.float64)
            self._tensors[name] = np.subtract(tuned, own, out=np.empty(own.shape))

    @classmethod
    def _of(cls, tensors: dict[str, np.ndarray]) -> TaskVector:
        vector = cls.__new__(cls)
        vector._tensors = tensors
        return vector

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name]

    def __iter__(self):
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, TaskVector):
            return self._with(other, np.add)
        if isinstance(other, Mapping):
            return self.apply_to(other)
        if isinstance(other, int) and other == 0:  # where `sum` begins
            return self
        return NotImplemented

    __radd__ = __add__

    def __sub__(self, other: TaskVector) -> TaskVector:
        return self._with(other, np.subtract)

    def __mul__(self, factor: float) -> TaskVector:
        return self._of({name: tau * float(factor) for name, tau in self._tensors.items()})

    __rmul__ = __mul__

    def __neg__(self) -> TaskVector:
        return self * -1.0

    def _with(self, other: TaskVector, combine: Callable[..., np.ndarray]) -> TaskVector:
        if not isinstance(other, TaskVector):
            return NotImplemented
        different = set(self) ^ set(other)
        if different:
            raise MismatchError(
                f"these task vectors have different tensors: {listing(sorted(different))}."
                " Combine vectors of one base."
            )
        return self._of({name: combine(tau, other[name]) for name, tau in self._tensors.items()})

    def norm(self) -> float:
        """Return the Euclidean length over all tensors."""
        return float(np.sqrt(sum(np.vdot(tau, tau) for tau in self._tensors.values())))

    def apply_to(self, base: Any, scale: float = 1.0) -> dict[str, Any]:
        """Return ``base + scale * self`` as a dict of arrays of the base's kind, dtypes and shapes.

        base: what `breadcrumbs.open` takes. Each weight is rounded once; other tensors are copied.
        """
        opened: Checkpoint = checkpoint.open(base)
        absent = [name for name in self if name not in opened.tensors]
        if absent:
            raise MismatchError(
                f"{opened.label}: lacks tensors of the task vector: {listing(absent)}."
            )
        result = {}
        kernels = choose()
        for name, tensor in opened.tensors.items():
            values = opened[name]
            if name in self._tensors:
                merged = values.astype(np.float64) + float(scale) * self._tensors[name]
                values = kernels.round_to(np.atleast_1d(merged), tensor.dtype)
                values = values.reshape(tensor.shape)
                if not np.isfinite(values.astype(np.float64)).all():
                    raise MismatchError(
                        f"tensor {name!r}: a value does not fit {tensor.dtype}. Give a smaller"
                        " scale, or a base and models of finite weights."
                    )
            result[name] = values
        return like.like(base, result)
