"""What an archive holds, in numbers: bytes, bits by the paper's accounting, and whose weights.

Of the weights that some task changed, Wang et al. (arXiv:2405.07813) call those that no mask has
*catastrophic*, that one mask has *selfish*, that all have *universal*; here the others are
*general*. With one task, what it has is selfish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.stack import LAYER
from breadcrumbs.compression import accounting
from breadcrumbs.plan import Plan

KINDS = ("catastrophic", "selfish", "general", "universal")
OUTSIDE = "outside layers"


@dataclass(frozen=True)
class Report:
    """tasks: their names. trained, frozen: weights in tensors that some task changed, and others.

    bytes, base_bytes, model_bytes: of the archive, of the base's tensors, and of all models'.
    votes: by tensor, how many of its changed weights are in 0, 1, ..., T masks.
    """

    path: str
    method: str
    tasks: tuple[str, ...]
    trained: int
    frozen: int
    bytes: int
    base_bytes: int
    model_bytes: int
    votes: Mapping[str, Sequence[int]]
    seconds: float

    @staticmethod
    def of(
        plan: Plan,
        path: str,
        method: str,
        votes: Mapping[str, np.ndarray],
        trained: int,
        nbytes: int,
        seconds: float,
    ) -> Report:
        """Return the report of an archive that was made as planned."""
        weights = sum(t.base.size for t in plan.tensors if t.base.is_weight)
        return Report(
            path,
            method,
            tuple(model.name for model in plan.recipe.models),
            trained,
            weights - trained,
            nbytes,
            sum(tensor.base.nbytes for tensor in plan.tensors),
            sum(tensor.nbytes for model in plan.models for tensor in model.tensors.values()),
            {t.name: votes[t.name].tolist() for t in plan.tensors if t.name in votes},
            seconds,
        )

    @property
    def bits(self) -> dict[str, int]:
        """The paper's accounting: of all models, and of masks (which TSV-C has none of)."""
        mine = len(self.tasks), self.trained, self.frozen
        found = {"models": accounting.of_models(*mine)}
        return found if self.method == "tsv" else found | {"masks": accounting.of_masks(*mine)}

    def to_mapping(self) -> dict[str, Any]:
        """Return all of it as plain data, for JSON."""
        return {
            "output": self.path,
            "method": self.method,
            "tasks": list(self.tasks),
            "weights": {"trained": self.trained, "frozen": self.frozen},
            "bytes": {
                "archive": self.bytes,
                "base": self.base_bytes,
                "models": self.model_bytes,
            },
            "bits_as_the_paper_counts": self.bits,
            "shares": {layer: shares(votes) for layer, votes in by_layer(self.votes).items()},
            "votes": dict(self.votes),
            "seconds": self.seconds,
        }


def by_layer(votes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Return the votes of the whole (``all``), of each layer, and of what is outside layers.

    A layer is the first number between dots of a name, as for stacks.
    """
    found: dict[str, np.ndarray] = {}
    for name, mine in votes.items():
        match = LAYER.search(name)
        layer = f"layer {match[1]}" if match else OUTSIDE
        found[layer] = found.get(layer, 0) + np.asarray(mine, np.int64)
    ordered = sorted(found, key=lambda key: (key == OUTSIDE, len(key), key))
    whole = {"all": np.sum(list(found.values()), axis=0)} if found else {}
    return {key: value.tolist() for key, value in (whole | {k: found[k] for k in ordered}).items()}


def shares(votes: Sequence[int]) -> dict[str, float]:
    """Return what share of the changed weights is of each kind; 0 where none changed."""
    whole = max(1, sum(votes))
    universal = votes[-1] if len(votes) > 2 else 0
    counts = (votes[0], votes[1], sum(votes[2:]) - universal, universal)
    return {kind: count / whole for kind, count in zip(KINDS, counts, strict=True)}
