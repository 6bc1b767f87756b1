"""Task vectors one after the other, for what needs no two of them at once.

Eight task vectors of 53248 x 16384 are 56 GB in float64; of each one a few triplets are wanted, or
its share of a sum. So the aggregates of matrices go through them, once or several times, and each
is made when its turn comes. An array of them does as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np


class Turns:
    """Task vectors that are made in their turn. shape: ``(T, *shape)``.

    make: number -> the array of that shape, new, which whoever goes through them may overwrite.
    """

    def __init__(self, shape: tuple[int, ...], make: Callable[[int], np.ndarray]):
        self.shape, self._make = shape, make

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(len(self)):
            yield self._make(number)

    @property
    def size(self) -> int:
        """How many entries there are in all."""
        return int(np.prod(self.shape, dtype=object))


#: Task vectors ``(T, *shape)``, all there or each in its turn.
Taus = np.ndarray | Turns


def added(taus: Taus) -> np.ndarray:
    """Return the sum of the task vectors, one added after the other; T > 0."""
    if isinstance(taus, np.ndarray):
        return taus.sum(axis=0)
    turns = iter(taus)
    result = next(turns)
    for tau in turns:
        result += tau
        del tau  # before the next one is made
    return result
