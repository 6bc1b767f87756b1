"""TALL masks: where a task uses the multi-task vector, as Consensus and TALL-masks ask.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression", ICML 2024,
arXiv:2405.07813. The multi-task vector is the sum of the task vectors, or that of TIES: of each
task vector the largest fraction `DENSITY` of the model, added up where it has the elected sign. The
task vectors that masks compare with it are whole in both cases.
"""

from __future__ import annotations

import operator
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from breadcrumbs.kernels.plain import exact_pair, exact_sum, two_sum
from breadcrumbs.methods.aggregates import Entries, Extent, Fold
from breadcrumbs.methods.folds import PLACES, Cut, select
from breadcrumbs.methods.parameters import Fractions, OneOf, Values, count

DENSITY = Decimal("0.2")

ON = OneOf("sum", ("sum", "ties"), "the multi-task vector: the sum, or TIES (.2, disjoint sum)")
SCALE = Fractions("0.4", "how large a task vector must be against the rest; also one for each")


@dataclass(frozen=True)
class Trim:
    """The first entries that stay of each model, and what most entries elect."""

    cuts: Sequence[Cut]
    majority: int = 1

    def terms(self, entries: Entries) -> np.ndarray:
        terms = entries.terms
        for term, sizes, cut in zip(terms, entries.sizes, self.cuts, strict=True):
            term[cut.before(entries.start, sizes)] = 0
        return terms


def passes(values: Values) -> int:
    """Return how many passes `prepare` makes at most."""
    return PLACES + 1 if values["on"] == "ties" else 0


def prepare(extent: Extent, values: Values) -> Generator[Fold, Any, Trim | None]:
    """Return the trim of TIES, if it is asked for."""
    if not passes(values):
        return None
    first = extent.size - count(DENSITY, extent.size)
    cuts = yield from select(lambda it: it.sizes, extent.size, [[first]] * extent.models)
    trim = Trim([cut for (cut,) in cuts])
    votes = yield Fold(
        lambda entries: int(np.sign(exact_sum(trim.terms(entries))).sum()), operator.add, int
    )
    return Trim(trim.cuts, 1 if votes > 0 else -1)


def multi_task(entries: Entries, terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the multi-task vector (n,), and what rounding left of it."""
    trim = entries.known
    if trim is None:
        return exact_pair(terms)
    terms = trim.terms(entries)
    signs = np.sign(exact_sum(terms))
    signs[signs == 0] = trim.majority
    return exact_pair(np.where(terms * signs > 0, terms, 0.0))


def mask(term: np.ndarray, total: np.ndarray, rest: np.ndarray, scale: Decimal) -> np.ndarray:
    """Return where ``|term| > scale * |total - term|``; strict, so an entry of zeros is out."""
    others = total - term
    others += rest + two_sum(total, -term, others)
    p, q = scale.as_integer_ratio()  # a decimal: 0.3 is 3 of 10, not a binary number
    return q * np.abs(term) > p * np.abs(others)


def masks(
    entries: Entries, terms: np.ndarray, total: np.ndarray, rest: np.ndarray, values: Values
) -> np.ndarray:
    """Return the masks (T, n) of all models. terms: those of the entries."""
    scales = [values["scale"][t] for t in entries.who]
    found = np.empty(terms.shape, np.bool_)
    for row, term, scale in zip(found, terms, scales, strict=True):
        row[:] = mask(term, total, rest, scale)
    return found
