"""Variants, such as fp16, in the names of an output's files: as the base's, or dropped."""

from __future__ import annotations

from dataclasses import replace

from breadcrumbs.checkpoint import composite
from breadcrumbs.checkpoint.layout import DTYPES, Layout, Place
from breadcrumbs.plan.plan import Plan
from breadcrumbs.plan.recipe import OUTPUT_DTYPES, SAME


def layout(plan: Plan) -> Layout:
    """Return how the files of a merged model are called: as the base's, or the target's.

    A variant that names a dtype is dropped where weights of another one are written.
    """
    places = composite.of(plan.target).places
    return Layout(
        tuple(replace(place, variant="") if _is_wrong(plan, place) else place for place in places)
    )


def _is_wrong(plan: Plan, place: Place) -> bool:
    dtype, says = plan.recipe.dtype, DTYPES.get(place.variant.partition("_")[0])
    if says is None or dtype == SAME:
        return False
    if dtype is None:  # as in the base, but that quantised weights become bfloat16
        return says == "F8" and bool(plan.target.quantised)
    return OUTPUT_DTYPES[dtype] != says


def said(plan: Plan) -> list[str]:
    """Return what to say of the variants in the names of an output's files, a line each."""
    mine = [place.variant for place in composite.of(plan.target).places if place.variant]
    kept = [place.variant for place in layout(plan).places]
    return [
        f"the weights are called as the base's, of the variant {variant}: open the output with"
        f' variant="{variant}"'
        if variant in kept
        else f"the weights are not of the dtype that the base's variant {variant} says, so the"
        " output's names are without it"
        for variant in dict.fromkeys(mine)
    ]
