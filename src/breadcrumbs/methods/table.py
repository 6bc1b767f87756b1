"""The published methods, in the order in which users see them.

To add one: write the file of its paper in `published`, its name here, and a row in the table of the
tests.
"""

from __future__ import annotations

from breadcrumbs.methods.finishes import Finish
from breadcrumbs.methods.finishes.boost import BOOST
from breadcrumbs.methods.finishes.svc import SVC
from breadcrumbs.methods.method import Method, parts
from breadcrumbs.methods.published import (
    adamerging,
    arcee_fusion,
    average,
    awd,
    breadcrumbs,
    cabs,
    cart,
    dare,
    dc,
    della,
    emr,
    fisher,
    geometric_median,
    iso,
    karcher,
    lines,
    localize_and_stitch,
    magmax,
    model_stock,
    multislerp,
    nearswap,
    negmerge,
    nuslerp,
    pcb,
    polar,
    ram,
    regmean,
    sce,
    slerp,
    star,
    tall_masks,
    task_arithmetic,
    tatr,
    ties,
    tsv_m,
    tvq,
    wudi,
)
from breadcrumbs.methods.transforms.low_rank import LOW_RANK
from breadcrumbs.methods.transforms.triplets import TRIPLETS

_ALL = (
    breadcrumbs.METHOD,
    task_arithmetic.METHOD,
    average.METHOD,
    *breadcrumbs.ABLATIONS,
    *ties.METHODS,
    *dare.METHODS,
    *della.METHODS,
    breadcrumbs.ELECTED,
    adamerging.METHOD,
    *tall_masks.METHODS,
    emr.METHOD,
    tatr.METHOD,
    pcb.METHOD,
    lines.METHOD,
    *tvq.METHODS,
    localize_and_stitch.METHOD,
    magmax.METHOD,
    negmerge.METHOD,
    *ram.METHODS,
    awd.METHOD,
    arcee_fusion.METHOD,
    nearswap.METHOD,
    slerp.METHOD,
    nuslerp.METHOD,
    multislerp.METHOD,
    karcher.METHOD,
    geometric_median.METHOD,
    model_stock.METHOD,
    tsv_m.METHOD,
    *iso.METHODS,
    polar.METHOD,
    star.METHOD,
    dc.METHOD,
    cart.METHOD,
    wudi.METHOD,
    sce.METHOD,
    cabs.METHOD,
    fisher.METHOD,
    regmean.METHOD,
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}

#: For pairs that are not in the table, `transform+aggregate`.
TRANSFORMS, AGGREGATES = parts(_ALL)
TRANSFORMS[LOW_RANK.name] = LOW_RANK
TRANSFORMS[TRIPLETS.name] = TRIPLETS

#: For any of them, `method+finish`.
FINISHES: dict[str, Finish] = {finish.name: finish for finish in (SVC, BOOST)}
