"""Numbers that are found before a merge and written into the recipe that it repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Coefficients:
    """What a calibration has found.

    parameters: of the method, those that said `auto` among them. weights: of the models for some
    tensors, by (glob of tensors, name of the model); later ones win.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """How a method finds what its parameters leave to be found, where one of them is `auto`.

    needs: what is looked at: the ``weights`` of the models alone; nothing else can be given yet.
    find: (plan, run) -> coefficients. plan: `breadcrumbs.plan.Plan`, whose tensors can be read;
    run: (plan, consumer) carries out a plan for a `breadcrumbs.engine.consumers.Consumer`. The
    merge, its recipe and its card then have numbers, and the recipe finds nothing again.
    """

    needs: Literal["weights"]
    find: Callable[[Any, Callable[..., Any]], Coefficients]
