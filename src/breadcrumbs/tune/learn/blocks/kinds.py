"""What can be learned of a block, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.tune.learn.blocks.distill import Distill
from breadcrumbs.tune.learn.blocks.prodistill import ProDistill
from breadcrumbs.tune.learn.blocks.regmean import RegMean

if TYPE_CHECKING:
    from breadcrumbs.tune.learn.blocks.block import Block, Weights


class Kind(Protocol):
    """A way to fit a block. settings: what it depends on, as plain data.

    follows: whether the experts' rows go through the experts' own blocks, and what these give is
    the goal; else an expert's block takes in what the blocks learned so far gave. keeps: whether
    the start's block stays where the fitted one is no nearer to the goal.
    """

    name: str
    follows: bool
    keeps: bool

    @property
    def settings(self) -> dict[str, float]:
        """What it depends on, as plain data."""
        ...

    def begin(self, block: Block) -> None:
        """Prepare for a block."""
        ...

    def expert(self, block: Block, task: str, weights: Weights) -> AbstractContextManager[None]:
        """Return a context in which the rows of a task go through its expert's block."""
        ...

    def fit(self, block: Block) -> Weights:
        """Return the weights of the block, float32, by the module's names."""
        ...


_KINDS: dict[str, Callable[..., Kind]] = {
    "distill": Distill,
    "prodistill": ProDistill,
    "regmean": RegMean,
    "regmean++": partial(RegMean, "regmean++", merged=True),
    "lot": partial(RegMean, "lot", 1.0, 0.0, lot=True),
    "lot++": partial(RegMean, "lot++", 1.0, 0.0, lot=True, merged=True),
}
#: How they are named, and the default first.
NAMES = tuple(_KINDS)


def make(name: str, given: Mapping[str, str | float] | None = None) -> Kind:
    """Return the kind of a name. given: numbers of it by name, as text or as they are.

    SuiteError for a name that there is not, and for numbers that it does not have.
    """
    if name not in _KINDS:
        raise SuiteError(
            f"there is nothing to learn of blocks called {name!r}.{suggestion(name, NAMES)} Give"
            f" one of {', '.join(NAMES)}."
        )
    known = _KINDS[name]().settings
    found: dict[str, Any] = {}
    for key, value in (given or {}).items():
        if key not in known:
            also = f"It has {', '.join(known)}." if known else "It has none."
            raise SuiteError(f"{name}: has no number {key!r}.{suggestion(key, known)} {also}")
        found[key] = _number(f"{name}: {key}", value, type(known[key]))
    return _KINDS[name](**found)


def _number(where: str, value: str | float, kind: type) -> float:
    try:
        found = kind(value)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        what = "a whole number of 0 or more" if kind is int else "a number of 0 or more"
        raise SuiteError(f"{where}: {value!r} is not possible. Give {what}.")
    return found
