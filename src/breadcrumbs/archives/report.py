"""What was compressed, in numbers: bytes, bits by the paper's accounting, and whose weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from breadcrumbs.archives import accounting
from breadcrumbs.archives.votes import by_layer, shares
from breadcrumbs.checkpoint import notebook
from breadcrumbs.plan import Plan


@dataclass(frozen=True, repr=False)
class Report:
    """tasks: their names. trained, frozen: weights in tensors that some task changed, and others.

    bytes, base_bytes, model_bytes: of the archive, of the base's tensors, and of all models'.
    votes: by tensor, how many of its changed weights are in 0, 1, ..., T masks. notes: what is
    right, but should be known. warnings: of the models, a line each.
    """

    path: str
    method: str
    tasks: tuple[str, ...]
    trained: int
    frozen: int
    bytes: int
    base_bytes: int
    model_bytes: int
    votes: Mapping[str, Sequence[int]]
    seconds: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @staticmethod
    def of(
        plan: Plan,
        path: str,
        method: str,
        votes: Mapping[str, np.ndarray],
        trained: int,
        nbytes: int,
        seconds: float,
    ) -> Report:
        """Return the report of an archive that was made as planned."""
        weights = sum(t.base.size for t in plan.tensors if t.base.is_weight)
        return Report(
            path,
            method,
            tuple(model.name for model in plan.recipe.models),
            trained,
            weights - trained,
            nbytes,
            sum(tensor.base.nbytes for tensor in plan.tensors),
            sum(tensor.nbytes for model in plan.models for tensor in model.tensors.values()),
            {t.name: votes[t.name].tolist() for t in plan.tensors if t.name in votes},
            seconds,
            plan.notes,
            plan.warnings,
        )

    @property
    def bits(self) -> dict[str, int]:
        """The paper's accounting: of all models, and of masks (which TSV-C has none of)."""
        mine = len(self.tasks), self.trained, self.frozen
        found = {"models": accounting.of_models(*mine)}
        return found if self.method == "tsv" else found | {"masks": accounting.of_masks(*mine)}

    def __repr__(self) -> str:
        tasks = ", ".join(self.tasks)
        return f"<Report: {tasks} by {self.method}, {self.bytes:,} bytes in {self.path}>"

    def _repr_html_(self) -> str:
        rows = [{"task": task} for task in self.tasks]
        facts = {"method": self.method, "bytes": self.bytes, "of models": self.model_bytes}
        return notebook.table(self.path, rows, facts, self.notes, self.warnings)

    def to_mapping(self) -> dict[str, Any]:
        """Return all of it as plain data, for JSON."""
        return {
            "output": self.path,
            "method": self.method,
            "tasks": list(self.tasks),
            "weights": {"trained": self.trained, "frozen": self.frozen},
            "bytes": {
                "archive": self.bytes,
                "base": self.base_bytes,
                "models": self.model_bytes,
            },
            "warnings": list(self.warnings),
            "bits_as_the_paper_counts": self.bits,
            "shares": {layer: shares(votes) for layer, votes in by_layer(self.votes).items()},
            "votes": dict(self.votes),
            "seconds": self.seconds,
            "notes": list(self.notes),
        }
