"""The operations in Numba, where that is faster; the others are NumPy's. The same bits as those.

They go through the weights in blocks, by the `steps`. Compiled are the two kinds of raw weights
that nearly all checkpoints come down to: ``uint16``, the bits of bfloat16, and ``float32``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from breadcrumbs.kernels.numba.chances import keep_by_rank
from breadcrumbs.kernels.numba.elections import elect_band, elect_drawn
from breadcrumbs.kernels.numba.products import products, row_products
from breadcrumbs.kernels.numba.ranks import cut_units, select, tally
from breadcrumbs.kernels.numba.raw import extent, round_to
from breadcrumbs.kernels.numba.sums import (
    add_band,
    add_drawn,
    combine,
    merge,
    merge_band,
    merge_drawn,
)
from breadcrumbs.kernels.numba.terms import add_step, elected, exact_sum
from breadcrumbs.kernels.numba.weighted import elect_weighted
from breadcrumbs.kernels.numpy import (
    band,
    drawn,
    exact_pair,
    histogram,
    magnitudes,
    settle,
    sign_zeros,
    widen,
)
from breadcrumbs.kernels.protocol import OPERATIONS

if TYPE_CHECKING:
    from breadcrumbs.kernels.numba.kept import (
        changed,
        fill,
        from_bitmap,
        from_gaps,
        keep_band,
        merge_kept,
        product,
        zeros,
    )

__all__ = [
    "add_band",
    "add_drawn",
    "add_step",
    "band",
    "changed",
    "combine",
    "cut_units",
    "drawn",
    "elect_band",
    "elect_drawn",
    "elect_weighted",
    "elected",
    "exact_pair",
    "exact_sum",
    "extent",
    "fill",
    "from_bitmap",
    "from_gaps",
    "histogram",
    "keep_band",
    "keep_by_rank",
    "magnitudes",
    "merge",
    "merge_band",
    "merge_drawn",
    "merge_kept",
    "product",
    "products",
    "round_to",
    "row_products",
    "select",
    "settle",
    "sign_zeros",
    "tally",
    "widen",
    "zeros",
]


def __getattr__(name: str) -> Any:
    """Load what works on task files when it is asked for: that takes a while, and few merges do."""
    if name not in OPERATIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from breadcrumbs.kernels.numba import kept

    globals()[name] = getattr(kept, name)
    return globals()[name]
