"""Parts of a merge that other processes or machines do: plain data, to be sent.

What must be known first is found once, by whoever deals the shares; each is then merged by itself,
from the recipe and the files, to the bytes that one process would have written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Writing
from breadcrumbs.engine.facts import Facts, UnitId
from breadcrumbs.engine.outputs import Nowhere
from breadcrumbs.errors import RecipeError
from breadcrumbs.merging import calibration, opening
from breadcrumbs.plan import USUAL, Plan, Sizes, units
from breadcrumbs.plan.recipe import Recipe


@dataclass(frozen=True)
class Share:
    """Some jobs of a merge. facts: what is known of them. sizes: what they are cut by."""

    recipe: Recipe
    units: tuple[UnitId, ...]
    facts: Facts
    sizes: Sizes = USUAL


def deal(plan: Plan, number: int, *, threads: int = 1, kernel: str = "auto") -> list[Share]:
    """Return so many shares of a plan, or fewer, of about as many entries each.

    Reads the models for what must be known first. Of `alpha: auto` the recipe of the shares has
    the number. Tied copies are in no share: they repeat what others are (`units.repeats`).
    """
    if plan.coordinates is not None:
        raise RecipeError(f"space {plan.recipe.space}: is not merged in shares. Merge it whole.")
    plan = calibration.fixed(plan, threads=threads, kernel=kernel)
    facts = runner.known(plan, threads=threads, kernel=kernel)
    jobs = sorted(units.jobs(plan), key=lambda job: -_entries(job))
    hands: list[list[units.Job]] = [[] for _ in range(min(number, len(jobs)))]
    for job in jobs:
        min(hands, key=lambda hand: sum(map(_entries, hand))).append(job)
    return [Share(plan.recipe, tuple(j.unit_id for j in hand), facts, plan.sizes) for hand in hands]


def _entries(job: units.Job) -> int:
    return sum(piece.stop - piece.start for piece in job.pieces)


@dataclass
class _Pieces(Nowhere):
    """An output that keeps what it is given. found: (tensor, first entry) -> values."""

    found: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        self.found[index, start] = values.copy()


def merged(
    share: Share, *, threads: int = 1, kernel: str = "auto"
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (number of the tensor, first entry, values in the dtype of the output) of a share.

    The models are opened from the recipe, whose paths must lead to them here.
    """
    output = _Pieces()
    with opening.opened(share.recipe, sizes=share.sizes, by_token=True) as plan:
        runner.run(
            plan,
            Writing(output),
            threads=threads,
            kernel=kernel,
            facts=share.facts,
            only=set(share.units),
        )
    for (index, start), values in sorted(output.found.items()):
        yield index, start, values
