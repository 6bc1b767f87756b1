"""Methods: what one is, and all that there are. For authors of plugins this is the door.

from breadcrumbs.methods import Elementwise, Entries, Method, Real, Values
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from breadcrumbs.methods.aggregates import (
        Elementwise,
        Entries,
        Extent,
        Fold,
        Gram,
        Linear,
        Statistics,
        Whole,
    )
    from breadcrumbs.methods.calibration import Calibration, Coefficients
    from breadcrumbs.methods.method import Method
    from breadcrumbs.methods.parameters import (
        AUTO,
        Factor,
        Fraction,
        Integer,
        OneOf,
        Parameter,
        Real,
        Values,
    )
    from breadcrumbs.methods.transforms import Band, Chances, Draw, Everything, Fitted

_HOMES = {
    "calibration": "Calibration Coefficients",
    "aggregates": ("Elementwise Entries Extent Fold Gram Linear Statistics Whole"),
    "method": "Method",
    "parameters": "AUTO Factor Fraction Integer OneOf Parameter Real Values",
    "transforms": "Band Chances Draw Everything Fitted",
}

__all__ = [
    "AUTO",
    "Band",
    "Calibration",
    "Chances",
    "Coefficients",
    "Draw",
    "Elementwise",
    "Entries",
    "Everything",
    "Extent",
    "Factor",
    "Fitted",
    "Fold",
    "Fraction",
    "Gram",
    "Integer",
    "Linear",
    "Method",
    "OneOf",
    "Parameter",
    "Real",
    "Statistics",
    "Values",
    "Whole",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for then, so that a part of the package is imported by itself."""
    for home, names in _HOMES.items():
        if name in names.split():
            import importlib

            return getattr(importlib.import_module(f"breadcrumbs.methods.{home}"), name)
    raise AttributeError(f"module 'breadcrumbs.methods' has no attribute {name!r}")
