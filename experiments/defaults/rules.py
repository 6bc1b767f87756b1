"""Candidates for the rule of `alpha: auto`, from what is known of a step by tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.tables import is_table

Sums = Mapping[str, Mapping[str, Any]]
Rule = Callable[[Sums], float]


def totals(sums: Sums) -> tuple[float, float, float, float]:
    """Return <S, D>, |D|^2, |S|^2 and the mean |tau| over the whole model."""
    product, square, step = (
        math.fsum(one[key] for one in sums.values()) for key in ("product", "square", "step")
    )
    return product, square, step, float(np.mean(lengths(sums.values())))


def lengths(sums: Any) -> np.ndarray:
    """Return |tau| of every model."""
    return np.sqrt(np.sum([one["taus"] for one in sums], axis=0))


def crowding(sums: Sums) -> float:
    """Return c: the mean |tau| over |D|."""
    _, square, _, mean = totals(sums)
    return mean / math.sqrt(square)


def global_rule(power: float, exponent: float = 1.25) -> Rule:
    """Return c ** exponent times (|D| / |S|)^(2 - 2 power)... between the projection (power 1)
    and the length (power 0)."""

    def rule(sums: Sums) -> float:
        product, square, step, _ = totals(sums)
        projection, length = square / product, math.sqrt(square / step)
        return crowding(sums) ** exponent * projection**power * length ** (1 - power)

    return rule


def capped(most: float, inner: Rule) -> Rule:
    """Return the rule with a step of at most ``most`` times the mean |tau|."""

    def rule(sums: Sums) -> float:
        _, _, step, mean = totals(sums)
        return min(inner(sums), most * mean / math.sqrt(step))

    return rule


def rooted(most: float, inner: Rule) -> Rule:
    """Return the rule with the length r of its step, in mean |tau|, made min(sqrt(r), most)
    where it is above 1."""

    def rule(sums: Sums) -> float:
        _, _, step, mean = totals(sums)
        alpha = inner(sums)
        r = alpha * math.sqrt(step) / mean
        return alpha * min(math.sqrt(r), most) / r if r > 1 else alpha

    return rule


def clamped(most: float) -> Rule:
    """Return c ** 1.25 * most, but at most the projection rule and at least the rule of lengths."""

    def rule(sums: Sums) -> float:
        low, high = global_rule(0.0)(sums), global_rule(1.0)(sums)
        return min(high, max(low, most * crowding(sums) ** 1.25))

    return rule


def boosted(power: float, most: float = math.inf) -> Rule:
    """Return c ** 1.25 * min(p ** -power, most)."""

    def rule(sums: Sums) -> float:
        product, square, _, _ = totals(sums)
        return crowding(sums) ** 1.25 * min((product / square) ** -power, most)

    return rule


def by_tensor(inner: Rule, how: str = "median", weight: float = 0.0) -> Rule:
    """Return the median (or geometric mean) over tensors of what a rule says of each alone.

    weight: tensors count by their number of entries... here by |D|^(2 weight).
    """

    def rule(sums: Sums) -> float:
        mine = {n: one for n, one in sums.items() if one["square"] > 0 and one["product"] > 0}
        found = np.array([inner({name: one}) for name, one in mine.items()])
        by = np.array([one["square"] ** weight for one in mine.values()])
        if how == "median":
            order = np.argsort(found)
            at = np.searchsorted(np.cumsum(by[order]), by.sum() / 2)
            return float(found[order][at])
        if how == "min":
            return float(found.min())
        return float(np.exp(np.sum(by * np.log(found)) / by.sum()))

    return rule


def by_kind(drawn: bool) -> Rule:
    """Return the rule that `alpha: auto` is: of lengths where embeddings have most of |D|^2."""

    def rule(sums: Sums) -> float:
        tables = math.fsum(one["square"] for name, one in sums.items() if is_table(name))
        projection = global_rule(1.0)
        if tables > totals(sums)[1] / 2:
            return capped(1.5, projection)(sums) if drawn else global_rule(0.0)(sums)
        return projection(sums) if drawn else capped(1.5, projection)(sums)

    return rule


RULES: dict[str, Rule] = {
    "now": by_kind(False),
    "now, drawn": by_kind(True),
    "projection": global_rule(1.0),
    "norm": global_rule(0.0),
    "cap 1": capped(1.0, global_rule(1.0)),
    "cap 1.25": capped(1.25, global_rule(1.0)),
    "cap 1.5": capped(1.5, global_rule(1.0)),
    "2.25": clamped(2.25),
    "random": capped(1.5, global_rule(1.0)),
    "root": rooted(math.inf, global_rule(1.0)),
    "root, cap 1.25": rooted(1.25, global_rule(1.0)),
    "root, cap 1.5": rooted(1.5, global_rule(1.0)),
    "by tensor": by_tensor(global_rule(1.0), "mean"),
    "by tensor, cap 1.25": capped(1.25, by_tensor(global_rule(1.0), "mean")),
}


def loss_at(alphas: Sequence[float], losses: Sequence[Sequence[float]], alpha: float) -> np.ndarray:
    """Return the losses of the tasks at an alpha between those that were measured.

    Linear in log alpha; beyond the last the last, which is past anything of use.
    """
    table = np.array(losses)
    known = np.log(alphas[: len(table)])
    return np.array([np.interp(math.log(alpha), known, table[:, i]) for i in range(table.shape[1])])
