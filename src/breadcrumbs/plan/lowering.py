"""What a method declares, as all below the plan takes it: each kind of declaration by name.

A method is declared once, as a transform and an aggregate of some kind (`methods.transforms`,
`methods.aggregates`), and read once, here. Everything else asks for the one that it knows, and
finds it or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from breadcrumbs.methods.aggregates import Aggregate, Elementwise, Gram, Linear, Whole
from breadcrumbs.methods.finishes import Finish
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.parameters import Values
from breadcrumbs.methods.transforms import (
    Band,
    Chances,
    Draw,
    Everything,
    Fitted,
    Shaped,
    Transform,
)


@dataclass(frozen=True)
class Lowered:
    """Of the transform, one of ``band``, ``draw``, ``chances``, ``fitted`` and ``shaped``, or none,
    if it keeps everything; of the aggregate, one of ``linear``, ``elementwise``, ``gram`` and
    ``whole``; the finish, if there is one."""

    band: Band | None
    draw: Draw | None
    chances: Chances | None
    fitted: Fitted | None
    linear: Linear | None
    elementwise: Elementwise | None
    gram: Gram | None
    whole: Whole | None
    shaped: Shaped | None = None
    finish: Finish | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether task vectors go into the aggregate as they are."""
        return not (self.band or self.draw or self.chances or self.fitted or self.shaped)

    @property
    def masks(self) -> bool:
        """Whether what stays of a task vector stays as it is, but for a common factor."""
        return not (self.chances or self.fitted or self.shaped)

    @property
    def in_memory(self) -> bool:
        """Whether a tensor, or a matrix of it, is merged as a whole in memory."""
        return self.whole is not None or self.shaped is not None or self.finish is not None

    @property
    def votes(self) -> bool:
        """Whether the majority of all that is ranked together has a say in each entry."""
        return (
            not self.in_memory
            and self.elementwise is not None
            and self.elementwise.vote is not None
        )

    @property
    def prepares(self) -> bool:
        """Whether the aggregate may ask for passes over the whole model, or each tensor."""
        return self.elementwise is not None and self.elementwise.prepare is not None

    @property
    def looks_at_tensors(self) -> bool:
        """Whether a tensor must be known as a whole, or its inner products, before it is merged."""
        return self.gram is not None or self.in_memory or self.prepares_tensors

    @property
    def prepares_tensors(self) -> bool:
        """Whether the aggregate may ask for passes over each tensor."""
        return self.prepares and self.elementwise is not None and self.elementwise.by_tensor


def of(method: Method) -> Lowered:
    """Return what a method declares."""
    return lowered(method.transform, method.aggregate, method.finish)


def beyond(method: Lowered, values: Values, weights: Sequence[float]) -> str:
    """Return why a step depends on more than task vectors, as the end of a sentence; or nothing."""
    takes = next((it.base for it in (method.gram, method.whole) if it is not None), None)
    if takes is not None and takes(values):
        return "looks at the base's weights"
    if method.linear is not None and method.linear.more(values, weights):
        return "adds a part of the base's weights"
    return ""


def lowered(
    transform: Transform, aggregate: Aggregate | None = None, finish: Finish | None = None
) -> Lowered:
    """Return what a transform, an aggregate and a finish are."""
    assert isinstance(transform, Band | Draw | Chances | Fitted | Shaped | Everything)
    return Lowered(
        transform if isinstance(transform, Band) else None,
        transform if isinstance(transform, Draw) else None,
        transform if isinstance(transform, Chances) else None,
        transform if isinstance(transform, Fitted) else None,
        aggregate if isinstance(aggregate, Linear) else None,
        aggregate if isinstance(aggregate, Elementwise) else None,
        aggregate if isinstance(aggregate, Gram) else None,
        aggregate if isinstance(aggregate, Whole) else None,
        transform if isinstance(transform, Shaped) else None,
        finish,
    )
