"""Random masking: keep each entry independently with a probability, without rescaling.

Davari and Belilovsky, arXiv:2312.06795, Fig. 7 and Table 1 ("random sparsed Task Arithmetic").
The draws come from a counter-based generator keyed by (seed, model, tensor), so neither threads
nor the order of models change them.
"""

from __future__ import annotations

from breadcrumbs.methods.parameters import Fraction
from breadcrumbs.methods.transforms import Draw

RANDOM_MASK = Draw(
    keep=lambda values: float(values["density"]),
    parameters={"density": Fraction("0.10", "probability that an entry is kept")},
)
