"""What an adapter changes of a base."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from breadcrumbs.checkpoint.products import Product
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor


@dataclass(frozen=True)
class Magnitude:
    """The lengths that rows (or columns) of a weight get. values: (rows,) float64."""

    values: np.ndarray
    by_column: bool = False

    def equals(self, other: Magnitude | None) -> bool:
        return (
            other is not None
            and self.by_column == other.by_column
            and np.array_equal(self.values, other.values)
        )


@dataclass
class Changes:
    """What an adapter changes, by the base's names.

    base: with tensors of their own for what it ties, where the adapter changes those apart.
    products: added to the base's. magnitudes: of DoRA, what the sum is scaled to. whole: instead of
    the base's. rows: of tables, which and what.
    notes: for the user. lacking: names that the base has not.
    """

    base: Checkpoint
    products: dict[str, Product] = field(default_factory=dict)
    magnitudes: dict[str, Magnitude] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """All tensors that change, in the order of the base."""
        changed = self.products.keys() | self.whole.keys() | self.rows.keys()
        return [name for name in self.base.tensors if name in changed]
