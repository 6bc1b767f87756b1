"""All operations in NumPy: what every other package computes, stated plainly, bit for bit."""

from __future__ import annotations

from breadcrumbs.kernels.numpy.chances import keep_by_rank, merge_by_rank
from breadcrumbs.kernels.numpy.combined import combine
from breadcrumbs.kernels.numpy.drops import add_drawn, drawn, merge_drawn
from breadcrumbs.kernels.numpy.elections import elect_band, elect_drawn
from breadcrumbs.kernels.numpy.entrywise import (
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
from breadcrumbs.kernels.numpy.kept import (
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
from breadcrumbs.kernels.numpy.lengths import lengths, squares
from breadcrumbs.kernels.numpy.parts import add_band, merge, settle
from breadcrumbs.kernels.numpy.products import products, row_products
from breadcrumbs.kernels.numpy.ranks import (
    band,
    count_runs,
    cut_units,
    histogram,
    key_of_rank,
    magnitudes,
    select,
    tally,
)
from breadcrumbs.kernels.numpy.raw import extent, round_to, sign_zeros, widen
from breadcrumbs.kernels.numpy.several import merge_several
from breadcrumbs.kernels.numpy.sums import begin_band, merge_band
from breadcrumbs.kernels.numpy.terms import add_step, elected, exact_pair, exact_sum
from breadcrumbs.kernels.numpy.weighted import elect_weighted

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
