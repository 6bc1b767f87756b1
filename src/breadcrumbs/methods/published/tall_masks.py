"""TALL masks: where a task uses the multi-task vector, for Consensus and for one model again.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression", ICML 2024,
arXiv:2405.07813. The multi-task vector is the sum of the task vectors, or that of TIES: of each
task vector the largest fraction `DENSITY` of the model, added up where it has the elected sign. The
task vectors that masks compare with it are whole in both cases.

*Consensus* keeps an entry of the multi-task vector where at least k of the masks hold. k = 1
removes what none uses (catastrophic entries), k = 2 also what one alone uses (selfish ones); the
report has the fractions of both among the entries that changed.

*TALL-masks* give the model of one task back: base, multi-task vector and one bit of each weight
for each task are all that is kept. `breadcrumbs.archives` writes them and reads them back.
"""

from __future__ import annotations

import operator
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from breadcrumbs.methods import (
    AUTO,
    PLACES,
    Cut,
    Elementwise,
    Entries,
    Everything,
    Extent,
    Factor,
    Fold,
    Fractions,
    Integer,
    Method,
    OneOf,
    Values,
    WhichModel,
    count,
    select,
)

PAPER = "Wang et al., Localizing Task Information (TALL-masks), ICML 2024, arXiv:2405.07813"

DENSITY = Decimal("0.2")

ON = OneOf("sum", ("sum", "ties"), "the multi-task vector: the sum, or TIES (0.2, disjoint sum)")
SCALE = Fractions("0.4", "how large a task vector must be compared with the rest; or one per model")


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
    cuts = yield from select(lambda it: it.sizes, extent, [[first]] * extent.models)
    trim = Trim([cut for (cut,) in cuts])
    votes = yield Fold(
        lambda entries: int(np.sign(entries.kernels.exact_sum(trim.terms(entries))).sum()),
        operator.add,
        int,
    )
    return Trim(trim.cuts, 1 if votes > 0 else -1)


def multi_task(entries: Entries) -> tuple[np.ndarray, np.ndarray]:
    """Return the multi-task vector (n,), and what rounding left of it."""
    trim = entries.known
    if trim is None:
        return entries.kernels.exact_pair(entries.taus, entries.weights)
    terms = trim.terms(entries)
    signs = np.sign(entries.kernels.exact_sum(terms))
    signs[signs == 0] = trim.majority
    return entries.kernels.exact_pair(np.where(terms * signs > 0, terms, 0.0))


def _scales(entries: Entries, values: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return p and q of the scale of each model: a decimal, 0.3 is 3 of 10, no binary number."""
    ratios = [values["scale"][t].as_integer_ratio() for t in entries.who]
    ps, qs = zip(*ratios, strict=True) if ratios else ((), ())
    return np.array(ps, np.float64), np.array(qs, np.float64)


def masks(entries: Entries, total: np.ndarray, rest: np.ndarray, values: Values) -> np.ndarray:
    """Return the masks (T, n) of all models: where ``|term| > scale * |total - term|``.

    Strict, so an entry of zeros is out.
    """
    found = np.empty(entries.taus.shape, np.bool_)
    ps, qs = _scales(entries, values)
    for t, row in enumerate(found):
        mine = slice(t, t + 1)
        given = entries.taus[mine], entries.weights[mine], total, rest, ps[mine], qs[mine]
        row[:] = entries.kernels.claims(*given)[0]
    return found


def _agree(entries: Entries, values: Values) -> np.ndarray:
    total, rest = multi_task(entries)
    given = entries.taus, entries.weights, total, rest
    votes, changed, unclaimed = entries.kernels.claims(*given, *_scales(entries, values))
    entries.counts["changed"] += changed
    entries.counts["catastrophic"] += unclaimed
    entries.counts["selfish"] += int(np.count_nonzero(votes == 1))
    return np.where(votes >= values["k"], total, 0.0)


CONSENSUS = Elementwise(
    combine=_agree,
    parameters={
        "on": ON,
        "scale": SCALE,
        "k": Integer(2, 0, "number of tasks that must use an entry"),
        "alpha": Factor(AUTO, "factor of the masked multi-task vector"),
    },
    prepare=prepare,
    passes=passes,
    name="consensus",
)


def _rebuild(entries: Entries, values: Values) -> np.ndarray:
    total, rest = multi_task(entries)
    row = list(entries.who).index(values["task"])
    mine = slice(row, row + 1)
    ps, qs = _scales(entries, values)
    given = entries.taus[mine], entries.weights[mine], total, rest, ps[mine], qs[mine]
    return np.where(entries.kernels.claims(*given)[0], total, 0.0)


TALL_MASK = Elementwise(
    combine=_rebuild,
    parameters={
        "task": WhichModel(True, "the model to rebuild"),
        "on": ON,
        "scale": SCALE,
    },
    models=(1, None),
    prepare=prepare,
    passes=passes,
)

_ON_TIES = (
    " `on: ties`: the trimmed 20 % of each model make S, the masks compare whole task vectors with"
    " it; that takes up to 6 passes more."
)

METHODS = (
    Method(
        "consensus",
        Everything(),
        CONSENSUS,
        "keep the entries of the summed task vectors that at least k tasks use",
        "base + alpha * [#{t: |tau_t| > scale_t |S - tau_t|} >= k] * S, S = sum_t w_t tau_t",
        PAPER,
        "scale is searched from 0.2 to 0.6 for each task on validation data in the paper, 0.4"
        " without. k 1 removes catastrophic entries, k 2 also selfish ones; the report counts"
        " both." + _ON_TIES,
    ),
    Method(
        "tall_mask",
        Everything(),
        TALL_MASK,
        "rebuild one model by its mask on the summed task vectors",
        "base + [|tau_t| > scale_t |S - tau_t|] * S, S = sum_t w_t tau_t",
        PAPER,
        "scale as in consensus. `breadcrumbs compress` writes all tasks to one file." + _ON_TIES,
    ),
)
