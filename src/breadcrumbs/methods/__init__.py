"""Methods: what one is, and all that there are. For authors of methods this is the door.

>>> from breadcrumbs.methods import Elementwise, Entries, Everything, Method, Real, Values

Kinds of transforms (`Everything`, `Band`, `Draw`, `Chances`, `Fitted`, `Shaped`), of aggregates
(`Linear`, `Elementwise`, `Gram`, `Whole`) and of finishes (`Finish`), of parameters, the `Method`
that joins them, and what several papers share. `published` has a file a paper, which is what a
plugin looks like: docs/plugins.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from breadcrumbs.errors import RecipeError
    from breadcrumbs.methods.aggregates import (
        Aggregate,
        Elementwise,
        Entries,
        Extent,
        Fold,
        Given,
        Gram,
        Linear,
        Statistics,
        Whole,
        matrices,
        sphere,
    )
    from breadcrumbs.methods.aggregates.elect import election
    from breadcrumbs.methods.aggregates.sum import SUM, scaled_sum
    from breadcrumbs.methods.calibration import Calibration, Coefficients
    from breadcrumbs.methods.finishes import Finish
    from breadcrumbs.methods.folds import PLACES, VALUES, Cut, Total, select
    from breadcrumbs.methods.method import Method
    from breadcrumbs.methods.parameters import (
        AUTO,
        Factor,
        Fraction,
        Fractions,
        Integer,
        OneOf,
        Parameter,
        Pattern,
        Real,
        Values,
        WhichModel,
        count,
        defaults,
        difference,
    )
    from breadcrumbs.methods.transforms import (
        COUNTS,
        GRANULARITY,
        L1,
        RESCALE,
        Band,
        Chances,
        Draw,
        Everything,
        Fitted,
        Shaped,
        Transform,
        floored,
        own_unit,
    )
    from breadcrumbs.methods.transforms.largest import largest

__all__ = [
    "AUTO",
    "COUNTS",
    "GRANULARITY",
    "L1",
    "PLACES",
    "RESCALE",
    "SUM",
    "VALUES",
    "Aggregate",
    "Band",
    "Calibration",
    "Chances",
    "Coefficients",
    "Cut",
    "Draw",
    "Elementwise",
    "Entries",
    "Everything",
    "Extent",
    "Factor",
    "Finish",
    "Fitted",
    "Fold",
    "Fraction",
    "Fractions",
    "Given",
    "Gram",
    "Integer",
    "Linear",
    "Method",
    "OneOf",
    "Parameter",
    "Pattern",
    "Real",
    "RecipeError",
    "Shaped",
    "Statistics",
    "Total",
    "Transform",
    "Values",
    "WhichModel",
    "Whole",
    "count",
    "defaults",
    "difference",
    "election",
    "floored",
    "largest",
    "matrices",
    "own_unit",
    "scaled_sum",
    "select",
    "sphere",
]

#: By module, what it offers here.
_HOMES = {
    "breadcrumbs.errors": "RecipeError",
    "breadcrumbs.methods.aggregates": "Aggregate Elementwise Entries Extent Fold Given Gram Linear"
    " Statistics Whole",
    "breadcrumbs.methods.aggregates.elect": "election",
    "breadcrumbs.methods.aggregates.sum": "SUM scaled_sum",
    "breadcrumbs.methods.calibration": "Calibration Coefficients",
    "breadcrumbs.methods.finishes": "Finish",
    "breadcrumbs.methods.folds": "PLACES VALUES Cut Total select",
    "breadcrumbs.methods.method": "Method",
    "breadcrumbs.methods.parameters": "AUTO Factor Fraction Fractions Integer OneOf Parameter"
    " Pattern Real Values WhichModel count defaults difference",
    "breadcrumbs.methods.transforms": "COUNTS GRANULARITY L1 RESCALE Band Chances Draw Everything"
    " Fitted Shaped Transform floored own_unit",
    "breadcrumbs.methods.transforms.largest": "largest",
}
#: Modules that are offered as they are.
_SHARED = {name: f"breadcrumbs.methods.aggregates.{name}" for name in ("matrices", "sphere")}


def __getattr__(name: str) -> Any:
    """Import what is asked for then, so that a part of the package is imported by itself."""
    import importlib

    if name in _SHARED:
        value = importlib.import_module(_SHARED[name])
    elif homes := [home for home, names in _HOMES.items() if name in names.split()]:
        value = getattr(importlib.import_module(homes[0]), name)
    else:
        raise AttributeError(f"module 'breadcrumbs.methods' has no attribute {name!r}")
    globals()[name] = value
    return value
