"""The operations in C, compiled once for all levels of a processor. The same bits as NumPy's.

What NumPy does as well is NumPy's. Raw weights are ``uint16``, the bits of bfloat16, or
``float32``; arrays that C cannot take go to NumPy too.
"""

from __future__ import annotations

from breadcrumbs.kernels.native.chances import keep_by_rank, merge_by_rank
from breadcrumbs.kernels.native.combined import combine
from breadcrumbs.kernels.native.drops import add_drawn, merge_drawn
from breadcrumbs.kernels.native.elections import elect_band, elect_drawn
from breadcrumbs.kernels.native.entrywise import (
    add_units,
    claims,
    conflicts,
    contend,
    differences,
    exact_at,
    sift,
    unify,
    variances,
)
from breadcrumbs.kernels.native.kept import (
    changed,
    fill,
    from_bitmap,
    from_gaps,
    from_planes,
    keep_band,
    merge_kept,
    places,
    product,
    take,
    zeros,
)
from breadcrumbs.kernels.native.lengths import lengths, squares
from breadcrumbs.kernels.native.parts import add_band, merge, settle
from breadcrumbs.kernels.native.products import products, row_products
from breadcrumbs.kernels.native.ranks import (
    count_runs,
    cut_units,
    key_of_rank,
    magnitudes,
    select,
    tally,
)
from breadcrumbs.kernels.native.raw import extent, round_to
from breadcrumbs.kernels.native.several import merge_several
from breadcrumbs.kernels.native.sums import begin_band, merge_band
from breadcrumbs.kernels.native.terms import add_step, elected, exact_pair, exact_sum
from breadcrumbs.kernels.native.weighted import elect_weighted
from breadcrumbs.kernels.numpy import band, drawn, histogram, sign_zeros, widen

__all__ = [
    "add_band",
    "add_drawn",
    "add_step",
    "add_units",
    "band",
    "begin_band",
    "changed",
    "claims",
    "combine",
    "conflicts",
    "contend",
    "count_runs",
    "cut_units",
    "differences",
    "drawn",
    "elect_band",
    "elect_drawn",
    "elect_weighted",
    "elected",
    "exact_at",
    "exact_pair",
    "exact_sum",
    "extent",
    "fill",
    "from_bitmap",
    "from_gaps",
    "from_planes",
    "histogram",
    "keep_band",
    "keep_by_rank",
    "key_of_rank",
    "lengths",
    "magnitudes",
    "merge",
    "merge_band",
    "merge_by_rank",
    "merge_drawn",
    "merge_kept",
    "merge_several",
    "places",
    "product",
    "products",
    "round_to",
    "row_products",
    "select",
    "settle",
    "sift",
    "sign_zeros",
    "squares",
    "take",
    "tally",
    "unify",
    "variances",
    "widen",
    "zeros",
]
