"""The hot operations in NumPy: what `compiled` computes, stated plainly, with the same bits.

Arrays hold *raw* weights of one run of entries: ``uint16`` (the bits of bfloat16), ``float32`` or
``float64``. ``base`` has shape (n,), ``models`` (G, n) for G models at once. The *key* of an entry
is the magnitude of its task vector: the bits of ``|model - base|`` as an unsigned integer, which
orders like the number. Differences are taken in float32 for keys (float64 if the weights are) and
in float64 for sums.

A *cut* is four integers ``(low, low_ties, high, high_ties)`` that state which ranks of a unit
stay: the keys between ``low`` and ``high``; of the entries equal to ``low`` all but the first
``low_ties``; of those equal to ``high`` the first ``high_ties``. -1 stands for all of them.
"""

from __future__ import annotations

from breadcrumbs.kernels.plain.elections import SUBSETS, elect_band, elect_drawn, elect_weighted
from breadcrumbs.kernels.plain.keys import (
    band,
    cut_units,
    everything,
    histogram,
    keep_by_rank,
    magnitudes,
    nothing,
    select,
    tally,
)
from breadcrumbs.kernels.plain.products import LANES, PART, products, row_products
from breadcrumbs.kernels.plain.raw import NO_EXTENT, extent, extent_of, round_to, sign_zeros, widen
from breadcrumbs.kernels.plain.sums import (
    ALL,
    add_band,
    add_drawn,
    combine,
    drawn,
    merge,
    merge_band,
    merge_drawn,
    settle,
)
from breadcrumbs.kernels.plain.terms import (
    LARGEST,
    MEAN,
    SUM,
    add_step,
    elected,
    exact_pair,
    exact_sum,
    shares,
    two_sum,
)

__all__ = [
    "ALL",
    "LANES",
    "LARGEST",
    "MEAN",
    "NO_EXTENT",
    "PART",
    "SUBSETS",
    "SUM",
    "add_band",
    "add_drawn",
    "add_step",
    "band",
    "combine",
    "cut_units",
    "drawn",
    "elect_band",
    "elect_drawn",
    "elect_weighted",
    "elected",
    "everything",
    "exact_pair",
    "exact_sum",
    "extent",
    "extent_of",
    "histogram",
    "keep_by_rank",
    "magnitudes",
    "merge",
    "merge_band",
    "merge_drawn",
    "nothing",
    "products",
    "round_to",
    "row_products",
    "select",
    "settle",
    "shares",
    "sign_zeros",
    "tally",
    "two_sum",
    "widen",
]
