"""TIES: trim each task vector, elect a sign per entry, average the entries with that sign.

Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023,
arXiv:2306.01708. `largest` trims, over the whole model or, without the election, tensor by tensor;
`election` elects and averages.
"""

from __future__ import annotations

from breadcrumbs.methods import SUM, Method, election, largest

PAPER = "Yadav et al., TIES-Merging, NeurIPS 2023, arXiv:2306.01708"

METHODS = (
    Method(
        "magnitude",
        largest("0.20", name="magnitude"),
        SUM,
        "keep the largest entries of each task vector, tensor by tensor, and add them",
        "base + alpha * sum_t weight_t * m_t * tau_t, m_t = [rank |tau_t| > n - floor(density n)]",
        "the trimming of " + PAPER,
        "As bottom_masking; density as in TIES. alpha is not published.",
    ),
    Method(
        "ties",
        largest("0.20", unit="model"),
        election("mean", 1.0, name="elect"),
        "trim each task vector, elect a sign per entry, average the entries with that sign",
        "base + alpha * mean over {t: sign(w_t m_t tau_t) = s} of w_t m_t tau_t, "
        "s = sign(sum_t w_t m_t tau_t), m_t = [rank |tau_t| > N - floor(density N)], N of all",
        PAPER,
        "alpha 1 is published with `merge: mean`, 0.3 with `merge: sum`. The authors' program"
        " keeps one entry more than density N. A sum of 0 elects what most entries elect,"
        " negative if there is no majority. With `granularity: tensor` it elects positive and"
        " trims each tensor, as mergekit does. Weights multiply before the election, and the"
        " mean divides by the sum of the magnitudes of the weights that agree.",
    ),
)
