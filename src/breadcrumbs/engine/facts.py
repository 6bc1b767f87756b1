"""What passes have found out before tensors are merged: plain data, to be sent, kept, compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from breadcrumbs.engine.plain import of_json, to_json

#: Number of the tensor, and the first entry, of the first piece of what is ranked together.
UnitId = tuple[int, int]
BEGUN = "begun"


@dataclass
class Begun:
    """A segment that was merged before its ranks were known, but for the entries in doubt.

    values: (n,) raw weights of the output. squares: of the sums that are in no doubt. extent: bits
    of the magnitudes of all weights. doubts: (chunks,) how many entries are in doubt; where: their
    positions; columns: (1 + models, doubts) the raw weights there.
    """

    values: np.ndarray
    squares: float
    extent: np.ndarray
    doubts: np.ndarray
    where: np.ndarray
    columns: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.where.nbytes + self.columns.nbytes


@dataclass
class Facts:
    """Of units and, by name, of tensors, what had to be known first.

    cuts: (chunks of the unit, models, 5): of each chunk the two keys between which entries stay,
    with how many ties of each (-1: all), and how many that keeps. norms: (models that count,), what
    `rescale: l1` multiplies task vectors by. fits: what a `Fitted` transform asked for.
    coefficients: (1 + models,) of the base and the task vectors, or of each line (lines, 1 +
    models). starts: how many entries of the model come before the tensor's. model: what
    `Elementwise.prepare` found of the whole model, by the component of a pipeline. begun: segments,
    by the number of the tensor and the first entry, that are merged but for what waits for cuts.
    """

    cuts: dict[UnitId, np.ndarray] = field(default_factory=dict)
    norms: dict[str, np.ndarray] = field(default_factory=dict)
    fits: dict[str, Any] = field(default_factory=dict)
    coefficients: dict[str, np.ndarray] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    begun: dict[tuple[int, int], Begun] = field(default_factory=dict)

    def add(self, other: Facts) -> None:
        """Take in what others have found, in other passes, threads or machines."""
        for one in fields(Facts):
            mine: dict[Any, Any] = getattr(self, one.name)
            theirs: Mapping[Any, Any] = getattr(other, one.name)
            mine.update(theirs)

    def to_text(self) -> str:
        """Return JSON that `of_text` makes them from; TypeError where a method's are not plain.

        Without segments that are begun, which are for the run that began them.
        """
        found = {one.name: getattr(self, one.name) for one in fields(Facts) if one.name != BEGUN}
        return json.dumps({name: to_json(mine) for name, mine in found.items() if mine})

    @staticmethod
    def of_text(text: str) -> Facts:
        """Return the facts that `to_text` wrote; ValueError for what it did not write."""
        found = json.loads(text)
        known = {one.name for one in fields(Facts)} - {BEGUN}
        if not isinstance(found, dict) or not found.keys() <= known:
            raise ValueError("these are no facts")
        made = {name: of_json(mine) for name, mine in found.items()}
        if not all(isinstance(mine, dict) for mine in made.values()):
            raise ValueError("these are no facts")
        return Facts(**made)

    def forget(self, names: Iterable[str]) -> None:
        """Drop what is large of tensors by name, when they are merged."""
        for name in names:
            self.coefficients.pop(name, None)
