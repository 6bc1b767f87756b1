"""What a route makes of a segment: values, for whoever writes, keeps or compares them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from breadcrumbs.engine.outputs import SegmentReport


@dataclass(frozen=True)
class Step:
    """Part of a step before its factor, from entry ``start`` of the tensor on.

    rest: what ``total`` leaves out of it, if that was looked for; else empty.
    """

    start: int
    total: np.ndarray
    rest: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass
class Undecided:
    """How a segment votes on the majority of the model, and what the other one would make of it.

    votes: their sum. elected: the majority that it is merged with. number: entries that depend on
    it. where: positions of these in the segment, and ``other``: the weights of the output that the
    other majority makes of them; None where that is not known. more: by how much these change the
    sum of squares of the update.
    """

    elected: int
    votes: int = 0
    number: int = 0
    where: list[np.ndarray] | None = field(default_factory=list)
    other: list[np.ndarray] = field(default_factory=list)
    more: float = 0.0

    def add(self, votes: int, where: np.ndarray, other: np.ndarray, more: float) -> None:
        """Count the votes of some entries, and take in those that are undecided."""
        self.votes += votes
        self.number += where.size
        self.more += more
        if self.where is not None:
            self.where.append(where)
            self.other.append(other)

    def add_unknown(self, votes: int, number: int) -> None:
        """Count votes of entries of which it is not known what the other majority makes."""
        self.votes += votes
        self.number += number
        self.where = None


@dataclass
class Merged:
    """A merged segment.

    pieces: (first entry in the tensor, values in the dtype of the output), to be gone through once;
    the values may lie in room of the thread that is used again. steps: where they are wanted.
    undecided: where the majority of the model has a say.
    """

    pieces: Iterable[tuple[int, np.ndarray]]
    report: SegmentReport
    steps: list[Step] = field(default_factory=list)
    undecided: Undecided | None = None
