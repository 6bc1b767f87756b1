"""RAM: the mean over the models that changed an entry; what one model alone changed stays whole.

Reinforced Agent Merging, 2026, arXiv:2601.13572, as mergekit has it. *RAM+* makes the entries of
one model alone larger, the more the more of what the model changed is shared: by ``1 + r min(shared
/ own, most)`` with the numbers of both in the tensor (``tl``, tensor-local).

An entry counts as changed by a model where ``|tau| > least``. mergekit's 1e-5 drops small steps of
small fine-tunings, bfloat16 ones least of all; here any change counts. Neither has weights: here
they multiply the task vectors.
"""

from __future__ import annotations

import operator
from collections.abc import Generator
from typing import Any

import numpy as np

from breadcrumbs.methods import (
    Elementwise,
    Entries,
    Everything,
    Extent,
    Factor,
    Fold,
    Method,
    Real,
    Values,
)

PAPER = "Reinforced Agent Merging, 2026, arXiv:2601.13572; as mergekit has it"


def _changed(entries: Entries, values: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return which entries each model changed (T, n), and how many models did (n,)."""
    changed = np.abs(entries.taus) > values["least"]
    return changed, np.count_nonzero(changed, axis=0)


def _ram(entries: Entries, values: Values) -> np.ndarray:
    changed, owners = _changed(entries, values)
    total = entries.kernels.exact_sum(np.where(changed, entries.taus, 0.0), entries.weights)
    return total / np.maximum(owners, 1)


def _prepare(extent: Extent, values: Values) -> Generator[Fold, Any, np.ndarray]:
    """Return by how much the entries of each model alone grow in the tensor, (T,)."""

    def scan(entries: Entries) -> np.ndarray:
        changed, owners = _changed(entries, values)
        parts = changed & (owners > 1), changed & (owners == 1)
        return np.array([np.count_nonzero(part, axis=1) for part in parts])

    found = yield Fold(scan, operator.add, lambda: np.zeros((2, extent.models), np.int64))
    shared, own = found.astype(np.float64)
    below = np.maximum(own, values["least"])
    ratio = np.where(below > 0, shared / np.where(below > 0, below, 1), np.where(shared, np.inf, 0))
    return 1 + values["r"] * np.clip(ratio, 0, values["most"])


def _ramplus(entries: Entries, values: Values) -> np.ndarray:
    changed, owners = _changed(entries, values)
    mine = np.where(changed, entries.taus, 0.0)
    mine *= np.where(owners == 1, entries.known[:, None], 1.0)
    return entries.kernels.exact_sum(mine, entries.weights) / np.maximum(owners, 1)


LEAST = Real(0.0, "size above which an entry counts as changed; 1e-5 in mergekit")
ALPHA = Factor(1.0, "factor of the merged task vector")

RAM = Elementwise(combine=_ram, parameters={"least": LEAST, "alpha": ALPHA}, name="ram")
RAMPLUS = Elementwise(
    combine=_ramplus,
    parameters={
        "r": Real(0.1, "how much entries of one model alone grow, times shared / own entries"),
        "most": Real(0.2, "what shared / own entries counts at most; alpha in mergekit"),
        "least": LEAST,
        "alpha": ALPHA,
    },
    prepare=_prepare,
    passes=lambda values: 1,
    by_tensor=True,
    name="ramplus_tl",
)

METHODS = (
    Method(
        "ram",
        Everything(),
        RAM,
        "average over the models that changed an entry, keep what one alone changed",
        "base + alpha * sum_t w_t m_t tau_t / max(1, sum_t m_t), m_t = [|tau_t| > least]",
        PAPER,
    ),
    Method(
        "ramplus_tl",
        Everything(),
        RAMPLUS,
        "the same, and what one model alone changed grows with what it shares in the tensor",
        "base + alpha * sum_t l_t w_t m_t tau_t / max(1, sum_t m_t), l_t = 1 + r min(shared_t /"
        " own_t, most) where sum_t m_t = 1, else 1",
        PAPER,
        "A pass more.",
    ),
)
