"""The numbers that a `Fitted` transform must know of a tensor, such as the ends of its values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from breadcrumbs.engine.context import Context
from breadcrumbs.engine.facts import Facts
from breadcrumbs.engine.passes.protocol import Looked, Looks
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.plan.units import Job


class Fits(Looks):
    """The pass over the one tensor of a job, which goes through it as often as the fit asks."""

    def __init__(self, context: Context, job: Job):
        self.context, self.job, self._found = context, job, Facts()
        self.index = job.pieces[0].index
        self.tensor = context.plan.tensors[self.index]

    def items(self) -> list[int]:
        return [self.index]

    def scan(self, item: int) -> Any:
        transform = self.context.plan.lowered.fitted
        assert transform is not None
        it = Vectors(Terms(self.context, self.job, self.tensor))

        def begin() -> Iterator[np.ndarray]:
            for segment in self.job.segments():
                yield from (chunk.taus for chunk in it.chunks(segment, again=True))

        return transform.fit(begin, it.values, self.context.kernels)

    def join(self, item: int, part: Any) -> None:
        self._found.fits[self.tensor.name] = part

    def looked(self, item: int) -> Looked:
        return item, float(self.context.plan.method.passes - 1)

    def end(self) -> Facts:
        return self._found
