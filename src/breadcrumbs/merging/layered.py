"""A comparison layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from breadcrumbs.pages import layers as naming
from breadcrumbs.plan import TensorPlan


@dataclass(frozen=True)
class Layer:
    """What is compared of one layer. norms: (T,). cosine, conflicts: (T, T), as of a comparison."""

    name: str
    entries: int
    norms: np.ndarray
    cosine: np.ndarray
    conflicts: np.ndarray

    def mean(self, key: str) -> float | None:
        """Return the mean over all pairs of ``cosine`` or ``conflicts``; None without a pair."""
        first, second = np.triu_indices(len(self.norms), 1)
        return float(getattr(self, key)[first, second].mean()) if first.size else None

    def to_mapping(self, names: Sequence[str]) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "layer": self.name,
            "entries": self.entries,
            "norms": dict(zip(names, self.norms.tolist(), strict=True)),
            "cosine": self.mean("cosine"),
            "conflicts": self.mean("conflicts"),
        }


def layers(
    tensors: Sequence[TensorPlan], sums: Sequence[Sequence[float]], models: int
) -> tuple[Layer, ...]:
    """Return the layers of a model in their order, what is outside of them last.

    sums: of each tensor what `comparison._sums` finds: of every pair i <= j of task vectors the
    inner products, squared distances, entries of opposite signs, entries that are 0 in neither.
    """
    places = naming.places(tensor.name for tensor in tensors)
    order = sorted({(p.layer is None, p.stack, p.layer or 0, p.row) for p in places.values()})
    rows: dict[str, list[int]] = {row: [] for *_, row in order}
    for number, tensor in enumerate(tensors):
        rows[places[tensor.name].row].append(number)
    first, second = np.triu_indices(models)
    found = []
    for row, mine in rows.items():
        total = [math.fsum(column) for column in zip(*(sums[i] for i in mine), strict=True)]
        tables = np.zeros((4, models, models))
        for table, part in zip(tables, np.reshape(total[: 4 * first.size], (4, -1)), strict=True):
            table[first, second] = table[second, first] = part
        products, _, opposite, both = tables
        norms = np.sqrt(np.diagonal(products))
        sizes = np.outer(norms, norms)
        cosine = np.divide(products, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        conflicts = opposite / np.where(both == 0, 1, both)
        entries = sum(tensors[i].base.size for i in mine)
        found.append(Layer(row, entries, norms, np.clip(cosine, -1, 1), conflicts))
    return tuple(found)
