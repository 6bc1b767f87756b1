"""Finishes: what is done to the merged step in the end, beside the task vectors that it came from.

A finish is the third part of a method, after its transform and its aggregate, and goes with any of
them: ``task_arithmetic+svc``. It is asked for each matrix (of experts stacked in one tensor, for
each of them), embeddings and heads of language models apart; all other tensors are one row to it,
or stay as the aggregate leaves them. The factor alpha comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from breadcrumbs.methods.aggregates.turns import Taus
from breadcrumbs.methods.parameters import Parameter, Values


@dataclass(frozen=True)
class Finish:
    """change: (step (m, n), task vectors (T, m, n), values) -> the step that is taken instead.

    The task vectors are those of the models, before any transform, times their weights; that of a
    model which did not change the matrix is not among them. They may be overwritten. T > 0. Their
    order is that of their content. Large ones come in turns (`aggregates.turns`). name: by which
    users say it. rows: whether tensors that are no matrices, and embeddings and heads, are asked
    for, too, as matrices of one row. algebra: as for an aggregate of whole tensors.
    """

    change: Callable[[np.ndarray, Taus, Values], np.ndarray]
    name: str
    summary: str
    formula: str
    paper: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    rows: bool = False
    algebra: bool = False
