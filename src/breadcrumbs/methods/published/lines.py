r"""LiNeS: scale the sum of the task vectors by depth, more in deeper layers.

Wang et al., "LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging",
ICLR 2025, arXiv:2410.17146: layer l of L is scaled by ``alpha + beta l / (L - 1)``, tensors outside
layers by alpha. alpha is 1/T by default, as published for the sum; beta is searched on validation
data there. A layer is found by a regular expression whose group is its number; by default the first
number between dots, as in ``model.layers.3.mlp.weight``. L is one more than the largest number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from breadcrumbs.errors import RecipeError, listing
from breadcrumbs.methods import Everything, Linear, Method, Pattern, Real, Values

PATTERN = r"(?:^|\.)(\d+)\."


def _place(values: Mapping[str, Values], models: int) -> tuple[dict[str, Values], str]:
    found = {name: re.search(mine["pattern"], name) for name, mine in values.items()}
    layer = {name: int(hit[1]) for name, hit in found.items() if hit and hit[1].isdecimal()}
    last = max(layer.values(), default=0)
    if last == 0:
        patterns = " ".join(sorted({mine["pattern"] for mine in values.values()}))
        what = "layer 0 alone" if layer else f"no layer in the names {listing(list(values))}"
        raise RecipeError(
            f"pattern: '{patterns}' finds {what}, so there is no depth to scale by."
            r" Give one whose group is the number of the layer, such as 'blocks\.(\d+)\.'."
        )
    outside = [name for name in values if name not in layer]
    rest = f"; alpha alone scales {listing(outside)}" if outside else ""
    placed = {
        name: {"alpha": 1 / max(models, 1), **mine, "depth": layer.get(name, 0) / last}
        for name, mine in values.items()
    }
    return placed, f"found {last + 1} layers in {len(layer)} tensors{rest}"


def _factor(values: Values, weights: Sequence[float]) -> float:
    return values["alpha"] + values["beta"] * values["depth"]


LINES = Linear(
    factor=_factor,
    parameters={
        "alpha": Real(
            None, "factor of the first layer and of tensors outside layers; default 1 / models"
        ),
        "beta": Real(0.5, "what the last layer gets on top"),
        "pattern": Pattern(PATTERN, "finds the layer number in a tensor's name"),
    },
    place=_place,
    name="lines",
)

METHOD = Method(
    "lines",
    Everything(),
    LINES,
    "add the task vectors, scaled up with the depth of their layer",
    "base + (alpha + beta l / (L - 1)) * sum_t weight_t * tau_t, l the layer of L",
    "Wang et al., LiNeS, ICLR 2025, arXiv:2410.17146",
    "beta is searched on validation data in the paper; 0.5 is not published. Layers of all"
    " stacks of a model count from one L, the largest number found and one.",
)
