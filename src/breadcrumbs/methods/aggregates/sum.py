"""The scaled sum of task vectors: ``base + alpha * sum(weight_t * tau_t)``.

Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv:2212.04089.
"""

from __future__ import annotations

from breadcrumbs.methods.aggregates import Linear
from breadcrumbs.methods.parameters import AUTO, Factor


def scaled_sum(alpha: float | str, name: str = "") -> Linear:
    """Return the aggregate with that default of ``alpha``."""
    return Linear(
        parameters={"alpha": Factor(alpha, "factor of the sum of task vectors")},
        name=name,
    )


SUM = scaled_sum(AUTO, name="sum")
