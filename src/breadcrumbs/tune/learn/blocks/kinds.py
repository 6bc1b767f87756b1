"""What can be learned of a block, by name."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.tune.learn.blocks.distill import Distill

if TYPE_CHECKING:
    from breadcrumbs.tune.learn.blocks.block import Block, Weights

#: How they are named, and the default first.
NAMES = ("distill",)


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


def make(name: str, **settings: float | None) -> Kind:
    """Return the kind of a name. settings: those that are not its defaults; None is not given.

    SuiteError for a name that there is not, and for settings that it does not have.
    """
    kinds = {"distill": Distill}
    if name not in kinds:
        raise SuiteError(
            f"there is no --as {name!r} of blocks.{suggestion(name, NAMES)} There are"
            f" {', '.join(NAMES)}."
        )
    given = {key: value for key, value in settings.items() if value is not None}
    known = kinds[name]().settings
    for key in given:
        if key not in known:
            raise SuiteError(f"{name}: has no {key}. It has {', '.join(known) or 'no settings'}.")
    return kinds[name](**given)
