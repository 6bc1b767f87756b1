"""DARE: drop entries at random and rescale the rest, so that the expected value stays.

Yu et al., "Language Models are Super Mario", ICML 2024, arXiv:2311.03099: drop with probability p,
divide by ``1 - p``. p = 1 drops all. mergekit rescales to the L1 norm instead (``rescale: l1``),
which is biased.
"""

from __future__ import annotations

from breadcrumbs.methods import (
    AUTO,
    L1,
    SUM,
    Draw,
    Fraction,
    Method,
    OneOf,
    Values,
    difference,
    election,
)

PAPER = "Yu et al., Language Models are Super Mario, ICML 2024, arXiv:2311.03099"


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
            "whether kept entries are divided by 1 - p, left as they are, or multiplied by " + L1,
        ),
    },
    scale=_scale,
    name="dare",
)

METHODS = (
    Method(
        "dare_linear",
        DROP,
        SUM,
        "drop entries of each task vector at random, rescale the rest, and add them",
        "base + alpha * sum_t weight_t * m_t * tau_t / (1 - p), m_t iid Bernoulli(1 - p)",
        PAPER,
        "The draws depend on the seed, the name of the model and the name of the tensor alone."
        " mergekit's density is 1 - p, and it rescales to the L1 norm (`rescale: l1`).",
    ),
    Method(
        "dare_ties",
        DROP,
        election("mean", AUTO),
        "drop at random, rescale, elect a sign per entry, average the entries with that sign",
        "base + alpha * mean over {t: sign(w_t d_t) = s} of w_t d_t, s = sign(sum_t w_t d_t), "
        "d_t = m_t tau_t / (1 - p), m_t iid Bernoulli(1 - p)",
        PAPER,
        "Nothing else is trimmed. The mean is TIES's, as in the authors' program; `merge: sum`"
        " adds, as mergekit does.",
    ),
)
