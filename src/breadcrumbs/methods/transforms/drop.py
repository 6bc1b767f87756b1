"""DARE: drop entries at random and rescale the rest, so that the expected value stays.

Yu et al., "Language Models are Super Mario", ICML 2024, arXiv:2311.03099: drop with probability p,
divide by ``1 - p``. p = 1 drops all. mergekit rescales to the L1 norm instead (``rescale: l1``),
which is biased.
"""

from __future__ import annotations

from breadcrumbs.methods.parameters import Fraction, OneOf, Values, difference
from breadcrumbs.methods.transforms import L1, Draw


def _keep(values: Values) -> float:
    return float(difference(1, values["p"]))


def _scale(values: Values) -> float:
    keep = _keep(values)
    return 1 / keep if keep and values["rescale"] == "expected" else 1.0


DROP = Draw(
    keep=_keep,
    parameters={
        "p": Fraction("0.9", "probability that an entry is dropped"),
        "rescale": OneOf(
            "expected",
            ("expected", "none", "l1"),
            "what stays is divided by 1 - p, or not, or multiplied by " + L1,
        ),
    },
    scale=_scale,
)
