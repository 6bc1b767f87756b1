"""What a method declares, as all below the plan takes it: each kind of declaration by name.

A method is declared once, as a transform and an aggregate of some kind (`methods.transforms`,
`methods.aggregates`), and read once, here. Everything else asks for the one that it knows, and
finds it or None.
"""

from __future__ import annotations

from dataclasses import dataclass

from breadcrumbs.methods.aggregates import Aggregate, Elementwise, Gram, Linear, Whole
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.transforms import Band, Chances, Draw, Everything, Fitted, Transform


@dataclass(frozen=True)
class Lowered:
    """Of the transform, one of ``band``, ``draw``, ``chances`` and ``fitted``, or none, if it keeps
    everything; of the aggregate, one of ``linear``, ``elementwise``, ``gram`` and ``whole``."""

    band: Band | None
    draw: Draw | None
    chances: Chances | None
    fitted: Fitted | None
    linear: Linear | None
    elementwise: Elementwise | None
    gram: Gram | None
    whole: Whole | None

    @property
    def keeps_all(self) -> bool:
        """Whether task vectors go into the aggregate as they are."""
        return not (self.band or self.draw or self.chances or self.fitted)

    @property
    def masks(self) -> bool:
        """Whether what stays of a task vector stays as it is, but for a common factor."""
        return not (self.chances or self.fitted)

    @property
    def votes(self) -> bool:
        """Whether the majority of all that is ranked together has a say in each entry."""
        return self.elementwise is not None and self.elementwise.vote is not None

    @property
    def prepares(self) -> bool:
        """Whether the aggregate may ask for passes over the whole model, or each tensor."""
        return self.elementwise is not None and self.elementwise.prepare is not None

    @property
    def looks_at_tensors(self) -> bool:
        """Whether a tensor must be known as a whole, or its inner products, before it is merged."""
        return self.gram is not None or self.whole is not None or self.prepares_tensors

    @property
    def prepares_tensors(self) -> bool:
        """Whether the aggregate may ask for passes over each tensor."""
        return self.prepares and self.elementwise is not None and self.elementwise.by_tensor


def of(method: Method) -> Lowered:
    """Return what a method declares."""
    return lowered(method.transform, method.aggregate)


def lowered(transform: Transform, aggregate: Aggregate | None = None) -> Lowered:
    """Return what a transform and an aggregate are."""
    assert isinstance(transform, Band | Draw | Chances | Fitted | Everything)
    return Lowered(
        transform if isinstance(transform, Band) else None,
        transform if isinstance(transform, Draw) else None,
        transform if isinstance(transform, Chances) else None,
        transform if isinstance(transform, Fitted) else None,
        aggregate if isinstance(aggregate, Linear) else None,
        aggregate if isinstance(aggregate, Elementwise) else None,
        aggregate if isinstance(aggregate, Gram) else None,
        aggregate if isinstance(aggregate, Whole) else None,
    )
