"""How good the chosen trial is at least, on rows like those that it was chosen on.

The best of many trials looks better than it is. Of m trials that were fixed without looking at a
score (a grid, or drawn at random), the chance that the bound of any of them is wrong is at most the
sum of the chances, so each has the confidence 1 - 0.05 / m, and it does not matter which is chosen,
or how. The bound of a share of right answers is Clopper and Pearson's (Biometrika 26, 1934).

Where all tasks have as many rows, the right answers of all tasks together are counted: a sum of
trials of unlike chances strays less than a binomial one of the same mean (Hoeffding, Annals of
Mathematical Statistics 27, 1956). Else each task has its bound, with 0.05 / (m tasks).

A sampler that proposes by what it has seen could have tried other points on other rows, so there is
no such sum, and no bound.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Samplers whose points depend on no score.
FIXED = ("grid", "random", "qmc")
CONFIDENCE = 0.95


def lower(right: Mapping[str, int], rows: Mapping[str, int], trials: int) -> float:
    """Return what the mean over tasks of the share of right answers is at least.

    right, rows: by task. trials: how many there were to choose from. Needs SciPy.
    """
    from scipy.stats import beta

    def bound(k: int, n: int, chance: float) -> float:
        return float(beta.ppf(chance, k, n - k + 1)) if k else 0.0

    chance = (1 - CONFIDENCE) / trials
    if len(set(rows.values())) == 1:
        return bound(sum(right.values()), sum(rows.values()), chance)
    each = [bound(right[task], rows[task], chance / len(rows)) for task in rows]
    return sum(each) / len(each)
