"""Task arithmetic: the scaled sum of task vectors.

Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv:2212.04089.
"""

from __future__ import annotations

from breadcrumbs.methods import Everything, Method, scaled_sum

METHOD = Method(
    "task_arithmetic",
    Everything(),
    scaled_sum(0.3),
    "add the task vectors",
    "base + alpha * sum_t weight_t * tau_t",
    "Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, arXiv:2212.04089",
    "alpha 0.3 is the value published for use without validation data."
    " A negative alpha removes tasks.",
)
