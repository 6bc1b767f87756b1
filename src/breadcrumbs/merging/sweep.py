"""Many merges of one family of models in memory, one after the other, each as fast as it can be.

Checkpoints are opened once. Where a recipe differs from an earlier one in factors of the whole step
alone (`breadcrumbs.engine.replay`), such as alpha, the models are not looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.engine import replay, runner
from breadcrumbs.merging import arrays, calibration, opening, spaces
from breadcrumbs.merging.opening import Source
from breadcrumbs.plan import USUAL, Sizes
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.taskfile import view

#: Checkpoints that stay open, if a recipe does not name more: files that are open are counted.
OPEN = 256


class Sweep:
    """A family of open models, and the steps of the last merges of it. A context; one thread's.

    base, models: what to merge, models by name; a recipe's paths (names, for arrays in memory) say
        which. What else a recipe names is opened when it is asked for; the last ones stay open.
    keep: of how many merges steps are kept, 8 bytes an entry each.
    threads, kernel: as for `breadcrumbs.merge`; no bit depends on them, nor on the sizes.
    most: checkpoints that stay open, if a recipe does not name more.
    """

    def __init__(
        self,
        base: Source,
        models: Mapping[str, Source] | None = None,
        *,
        keep: int = 1,
        threads: int = 1,
        kernel: str = "auto",
        sizes: Sizes = USUAL,
        most: int = OPEN,
    ):
        self.threads, self.kernel, self.keep = threads, kernel, keep
        self.sizes, self.most = sizes, most
        self._given: dict[str, Checkpoint] = {}
        self._open: dict[str, Checkpoint] = {}
        self._steps: dict[str, replay.Steps] = {}
        try:
            for name, model in [("base", base), *(models or {}).items()]:
                label = opening.label(model, name)
                if label not in self._given:
                    self._given[label] = self._opened(model, label)
        except BaseException:
            self.close()
            raise

    def _opened(self, source: Source, label: str) -> Checkpoint:
        found = checkpoint.open(source, label)
        base = next(iter(self._given.values()), found)
        try:
            return view.on_base(base, [found])[0]
        except BaseException:
            found.close()
            raise

    def _models(self, paths: Sequence[str]) -> list[Checkpoint]:
        """Return the open models of a recipe; close those that were asked for longest ago."""
        for path in dict.fromkeys(paths):
            if path in self._open:
                self._open[path] = self._open.pop(path)
            elif path not in self._given:
                self._open[path] = self._opened(path, path)
        while len(self._open) > max(self.most, len(paths)):
            self._open.pop(next(iter(self._open))).close()
        return [self._given[path] if path in self._given else self._open[path] for path in paths]

    def merged(self, recipe: Recipe) -> dict[str, np.ndarray]:
        """Return the merged weights, bit for bit what `breadcrumbs.merge` makes of the recipe.

        The arrays are the caller's. Raises as `breadcrumbs.merge` does.
        """
        plan = opening.planned(recipe, self._models(recipe.paths), self.sizes, by_token=True)
        settings = {"threads": self.threads, "kernel": self.kernel}
        plan = calibration.fixed(spaces.settled(plan, **settings), **settings)
        sink = arrays.ArraySink(plan)
        if plan.coordinates is not None or not replay.factors(plan) or not self.keep:
            runner.write(plan, sink, **settings)
            return sink.arrays
        key = replay.key(plan)
        known = self._steps.pop(key, None)
        if known is not None:
            runner.rescale(plan, known, sink, **settings)
        else:
            while len(self._steps) >= self.keep:
                del self._steps[next(iter(self._steps))]
            known = replay.Steps(plan)
            runner.write(plan, sink, steps=known, **settings)
        self._steps[key] = known
        return sink.arrays

    def close(self) -> None:
        """Close the models and forget their steps."""
        self._steps.clear()
        for kept in (self._given, self._open):
            for model in kept.values():
                model.close()
            kept.clear()

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
