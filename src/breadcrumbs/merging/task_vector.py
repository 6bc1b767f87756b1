"""Task vectors as values: subtract, add, scale, apply.

Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv:2212.04089.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import notebook, renames
from breadcrumbs.checkpoint.lazy import UnknownTensorError
from breadcrumbs.checkpoint.tensors import WEIGHT_DTYPES, Checkpoint
from breadcrumbs.errors import MismatchError, RecipeError, counted, explained, listing, suggestion
from breadcrumbs.kernels import choose
from breadcrumbs.merging import opening, products
from breadcrumbs.merging.result import given_back
from breadcrumbs.plan import naming, ties
from breadcrumbs.plan.partners import Remarks, partners
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.taskfile import view

if TYPE_CHECKING:
    import pandas

_FLOATS = set(WEIGHT_DTYPES.values())
#: What is left out where the base lacks it, and found out here where the model does.
_ALL = Recipe("base", (Model("a model"),), missing="base", extra="ignore")


class TaskVector(Mapping[str, np.ndarray]):
    """The difference of a fine-tuned model and its base, in float64, tensor by tensor.

    base, finetuned: what `breadcrumbs.load` takes. rename: as for `breadcrumbs.merge`.
    Integer tensors are left out, since they are copied from the base. Of tied copies a model may
    store one, as in a merge; MismatchError for a head that it has untied.
    ``tau1 + 0.5 * tau2 - tau3 / 2`` and ``sum([tau1, tau2])`` are task vectors
    again; ``base + tau`` and ``tau.apply_to(base, scale)`` are models. float64 holds such sums with
    no rounding that a weight of 32 bits or fewer would show.

    >>> import numpy as np, breadcrumbs
    >>> base = {"w": np.zeros(2, np.float32)}
    >>> first, second = ({"w": np.array(w, np.float32)} for w in ([3, 4], [4, 0]))
    >>> tau1, tau2 = breadcrumbs.TaskVector(base, first), breadcrumbs.TaskVector(base, second)
    >>> tau1.norm(), tau1.dot(tau2), tau1.cosine(tau2)
    (5.0, 12.0, 0.6)
    >>> ((tau1 + tau2) / 2).apply_to(base)["w"].tolist()
    [3.5, 2.0]
    """

    @explained
    def __init__(self, base: Any, finetuned: Any, *, rename: str | Sequence[str] = ()):
        for source, what in ((base, "base"), (finetuned, "finetuned")):
            opening.label(source, what)  # raises for what is no model
        state = opening.under(base, opening.any_files([finetuned]))
        (finetuned,) = opening.alongside(state, [finetuned])
        first = checkpoint.open(state, "base")
        first, second = view.on_base(first, [first, checkpoint.open(finetuned, "finetuned")])
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
        if name not in self._tensors:
            known = list(self._tensors)
            raise UnknownTensorError(
                f"this task vector has no tensor {name!r}.{suggestion(str(name), known)}"
            )
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

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

    def __truediv__(self, divisor: float) -> TaskVector:
        number = _number(divisor)
        if number is None:
            return NotImplemented
        if number == 0:
            raise ZeroDivisionError("a task vector cannot be divided by 0")
        return self._of({name: tau / number for name, tau in self._tensors.items()})

    def __sub__(self, other: TaskVector) -> TaskVector:
        return self._with(other, np.subtract)

    def __mul__(self, factor: float) -> TaskVector:
        number = _number(factor)
        if number is None:
            return NotImplemented
        return self._of({name: tau * number for name, tau in self._tensors.items()})

    __rmul__ = __mul__

    def __neg__(self) -> TaskVector:
        return self * -1.0

    def _with(self, other: TaskVector, combine: Callable[..., np.ndarray]) -> TaskVector:
        if not isinstance(other, TaskVector):
            return NotImplemented
        self._check(other)
        return self._of({name: combine(tau, other[name]) for name, tau in self._tensors.items()})

    def _check(self, other: Any) -> None:
        """Raise MismatchError for vectors that are not of one base."""
        if not isinstance(other, TaskVector):
            raise MismatchError(
                f"a {type(other).__name__} is not a task vector. Give a TaskVector."
            )
        different = set(self) ^ set(other)
        different |= {n for n in self if n in other and self[n].shape != other[n].shape}
        if different:
            raise MismatchError(
                f"these task vectors have different tensors: {listing(sorted(different))}."
                " Combine vectors of one base."
            )

    def norm(self) -> float:
        """Return the Euclidean length over all tensors, the bits of `breadcrumbs.compare`."""
        return math.sqrt(products.inner(self, self))

    def dot(self, other: TaskVector) -> float:
        """Return the inner product with another task vector, the bits that `compare` finds."""
        self._check(other)
        return products.inner(self, other)

    def cosine(self, other: TaskVector) -> float:
        """Return the cosine with another task vector, 0 where one of them is 0."""
        self._check(other)
        sizes = math.sqrt(products.inner(self, self) * products.inner(other, other))
        return max(-1.0, min(1.0, self.dot(other) / sizes)) if sizes else 0.0

    @property
    def size(self) -> int:
        """The number of entries."""
        return sum(tau.size for tau in self._tensors.values())

    def rows(self) -> list[dict[str, Any]]:
        """Return of each tensor its name, shape, norm and how many entries are not 0."""
        return [
            {
                "tensor": name,
                "shape": tau.shape,
                "norm": math.sqrt(products.inner({name: tau}, {name: tau})),
                "changed": int(np.count_nonzero(tau)),
            }
            for name, tau in self._tensors.items()
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Return `rows` as a frame of pandas."""
        return notebook.frame(self.rows())

    def __repr__(self) -> str:
        return (
            f"<TaskVector of {counted(len(self), 'tensor')}, {self.size:,} entries,"
            f" norm {self.norm():.4g}>"
        )

    def _repr_html_(self) -> str:
        facts = {"entries": self.size, "norm": self.norm()}
        return notebook.table("Task vector", self.rows(), facts)

    @explained
    def apply_to(self, base: Any, scale: float = 1.0) -> Any:
        """Return ``base + scale * self``, of the base's dtypes and shapes.

        base: what `breadcrumbs.load` takes. A module gives a module, anything else a dict of
        tensors of the base's kind. Each weight is rounded once; other tensors are copied.
        """
        number = _number(scale)
        if number is None:
            raise RecipeError(f"scale: {scale!r} is not a number.")
        state = opening.under(base)
        if state is not base and any(name not in state for name in self):
            state = opening.under(base, files=True)
        opened: Checkpoint = checkpoint.open(state)
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
                merged = values.astype(np.float64) + number * self._tensors[name]
                values = kernels.round_to(np.atleast_1d(merged), tensor.dtype)
                values = values.reshape(tensor.shape)
                if not np.isfinite(values.astype(np.float64)).all():
                    raise MismatchError(
                        f"tensor {name!r}: a value does not fit {tensor.dtype}. Give a smaller"
                        " scale, or a base and models of finite weights."
                    )
            result[name] = values
        return given_back(base, state, result)


def _number(value: Any) -> float | None:
    """Return a number of Python, NumPy or Torch as a float, None for anything else."""
    one = getattr(value, "shape", ()) == () and hasattr(value, "__float__")
    return float(value) if one else None
