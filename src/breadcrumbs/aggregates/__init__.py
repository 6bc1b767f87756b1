"""Aggregates combine the transformed task vectors of one tensor. One file each.

An aggregate here is linear: the merged tensor is ``base + factor * sum(weight_t * tau_t)``, and the
aggregate says what the factor is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from breadcrumbs.parameters import Parameter, Values


@dataclass(frozen=True)
class Linear:
    """``base + factor * sum(weight_t * tau_t)``.

    factor: (values, weights) -> the factor; raises RecipeError where there is none.
    """

    factor: Callable[[Values, Sequence[float]], float]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
