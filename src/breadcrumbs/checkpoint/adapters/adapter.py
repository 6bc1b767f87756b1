"""Adapters: two thin matrices for each weight that changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor

ADVICE = "Merge it into its model with PEFT (`merge_and_unload`), and give that."
#: The matrices A (rank, in) and B (out, rank), as the files have them.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Adapter:
    """An open adapter, under its own names of the weights that it changes.

    kind: whose format it is: ``PEFT``, ``kohya`` or ``diffusers``. products: A and B. whole: what
    takes the place of the base's tensors. scales: of the products. rows: rows of tables, and which
    they are. stacks: A and B of parameters that are stacks of matrices, by module. others: the
    matrices of products of other kinds (LoHa, LoKr), by their names. magnitudes: of DoRA, the
    lengths that rows get. config: what it says of itself. trained_on: the base, as far as it says.
    """

    label: str
    kind: str
    products: Mapping[str, Pair]
    whole: Mapping[str, Tensor]
    source: Checkpoint = field(repr=False)
    scales: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, tuple[Tensor, list[int]]] = field(default_factory=dict)
    stacks: Mapping[str, list[Pair]] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    magnitudes: Mapping[str, Tensor] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str = ""

    @property
    def names(self) -> list[str]:
        """What it changes, as it is called there."""
        return [*self.products, *self.others, *self.stacks, *self.whole, *self.rows]
