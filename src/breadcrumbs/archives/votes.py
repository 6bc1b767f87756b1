"""Whose the weights are that some task changed: how many masks have each.

Wang et al. (arXiv:2405.07813) call those that no mask has *catastrophic*, that one mask has
*selfish*, that all have *universal*; here the others are *general*. With one task, what it has is
selfish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from breadcrumbs.checkpoint.stack import LAYER

KINDS = ("catastrophic", "selfish", "general", "universal")
OUTSIDE = "outside layers"


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
