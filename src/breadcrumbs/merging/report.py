"""What a merge did: numbers for the table on screen, the model card and ``--json``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs import machine
from breadcrumbs.checkpoint import notebook
from breadcrumbs.checkpoint.sparse import Sparse
from breadcrumbs.engine.outputs import TensorReport
from breadcrumbs.errors import counted
from breadcrumbs.kernels import AUTO, described
from breadcrumbs.merging import publishing
from breadcrumbs.methods import algebra
from breadcrumbs.plan import Plan, TensorPlan, shift, step
from breadcrumbs.plan.plan import Coordinates

if TYPE_CHECKING:
    import pandas


@dataclass
class ModelRow:
    """One model: name, weight, entries kept of its task vector and of how many.

    Of an adapter those of the tensors that it changes.
    """

    name: str
    weight: float
    kept: int
    entries: int

    @property
    def fraction(self) -> float:
        return self.kept / self.entries if self.entries else 0.0


def computed_by(plan: Plan, kernel: str) -> str:
    """Return what does the arithmetic of a plan here: kernels, and a device for matrices."""
    on = algebra.of(plan.recipe.device).name
    return f"{described(kernel)}; matrices by {on}" if on else described(kernel)


@dataclass(repr=False)
class Report:
    """A finished merge. seconds: wall clock. peak: resident bytes, where the system tells.

    norm: Euclidean length of the update, the merged weights minus the base's (without statistics,
    which are no weights). emptied: tensors of
    which some model kept nothing. copied: tensors taken from the base, by reason. shares: fractions
    of the weights that changed in some model, by what the method says of them. alpha: what was
    found from the weights, if it was asked for and is one; alphas: those of the components of a
    pipeline. kinds: how many tensors are of each kind. notes: what is right, but should be known.
    lost: of weights that were quantised again, the norm of what that lost over the norm of the
    update. step: how many times the length of the mean task vector the update has, each counted
    with the size of its weight; step_exact: or about, from a sample. parts: of a model whose
    weights lie in several folders, the norm of the update in each, "" for the folder itself.
    kernel: which kernels did the arithmetic. output: where files were written, if they were.
    adapter: what was written, in words, if it is one; error: the norm of what it lacks of the
    update, over the norm of that.
    """

    method: str
    models: list[ModelRow]
    tensors: int
    merged: int
    entries: int
    norm: float
    emptied: list[str]
    copied: dict[str, int]
    seconds: float
    peak: int | None
    bytes_read: int
    bytes_written: int
    warnings: list[str] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    alpha: float | None = None
    alphas: dict[str, float] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lost: float | None = None
    step: float | None = None
    step_exact: bool = True
    kernel: str = ""
    output: str = ""
    adapter: str = ""
    error: float | None = None

    @staticmethod
    def of(
        plan: Plan,
        rows: Sequence[TensorReport],
        seconds: float,
        same: Sequence[str] = (),
        kernel: str = AUTO,
    ) -> Report:
        """Return the report of a plan and what was done to its tensors.

        same: labels of models whose files are the base's, byte for byte. kernel: empty if it is
        said elsewhere what did the arithmetic.
        """
        if plan.coordinates is not None:
            return Report._of_coordinates(plan, plan.coordinates, seconds, same, kernel)
        merged = [(t, row) for t, row in zip(plan.tensors, rows, strict=True) if not t.copied]
        models = []
        for number, model in enumerate(plan.recipe.models):
            left = plan.untouched[number]
            mine = [
                (t, row) for t, row in merged if t.models[number] is not None and t.name not in left
            ]
            models.append(
                ModelRow(
                    model.name,
                    model.weight,
                    sum(row.kept[number] for _, row in mine),
                    sum(t.base.size for t, _ in mine),
                )
            )
        copied: dict[str, int] = {}
        for tensor in plan.tensors:
            if tensor.copied:
                copied[tensor.copied] = copied.get(tensor.copied, 0) + 1
        warnings = list(plan.warnings)
        warnings += [f"{label} has the same weights as the base" for label in same]
        norm = math.sqrt(math.fsum(row.squares for _, row in merged))
        if plan.models and not any(row.squares for row in rows):
            what = "no tensor is merged" if not merged else "nothing is added"
            warnings.append(
                f"{what}, so the result is the base: are the parameters what you intended?"
            )
        length = step.of(plan, norm)
        values = plan.method.complete(plan.recipe.parameters)
        warnings += filter(
            None,
            (
                plan.method.caution(values, len(plan.models)),
                step.warning(plan, length),
                shift.warning(plan),
            ),
        )
        return Report(
            method=plan.recipe.method,
            models=models,
            tensors=len(plan.tensors),
            merged=len(merged),
            entries=sum(t.base.size for t, _ in merged),
            norm=norm,
            emptied=[t.name for t, row in merged if t.base.size and _empty(plan, t, row)],
            copied=copied,
            seconds=seconds,
            peak=machine.peak_memory(),
            bytes_read=plan.bytes_read,
            bytes_written=plan.bytes_written,
            warnings=warnings,
            alpha=plan.alphas.get(""),
            alphas={component: alpha for component, alpha in plan.alphas.items() if component},
            shares=_shares(rows),
            parts=_parts(plan, rows),
            kinds=dict(plan.kinds),
            notes=list(plan.notes),
            step=length.ratio if length else None,
            step_exact=length is None or length.exact,
            kernel=computed_by(plan, kernel) if kernel else "",
        )

    @staticmethod
    def _of_coordinates(
        plan: Plan, within: Coordinates, seconds: float, same: Sequence[str], kernel: str
    ) -> Report:
        """Return the report of a merge in coordinates: lengths are those of the weights."""
        names = {tensor.name for tensor in within.plan.tensors}
        copied = Counter(t.copied for t in plan.tensors if t.copied and t.name not in names)
        inner = Report.of(within.plan, within.rows, seconds, same, kernel)
        return replace(
            inner,
            tensors=len(plan.tensors),
            entries=sum(t.base.size for t in plan.tensors if t.name in names),
            copied=dict(copied),
            bytes_read=plan.bytes_read,
            bytes_written=plan.bytes_written,
            kinds=dict(plan.kinds),
            notes=list(plan.notes),
            warnings=list(dict.fromkeys([*plan.warnings, *inner.warnings])),
        )

    @property
    def found(self) -> str:
        """What alpha was found to be, in words; empty if it was given."""
        if self.alphas:
            each = ", ".join(
                f"{alpha:g} of {component}" for component, alpha in self.alphas.items()
            )
            return f"alpha {each}, chosen automatically"
        return "" if self.alpha is None else f"alpha {self.alpha:g}, chosen automatically"

    @property
    def length(self) -> str:
        """How long the update is against the task vectors, in words; empty if unknown."""
        return "" if self.step is None else str(step.Step(self.step, self.step_exact))

    @property
    def summary(self) -> str:
        """The merge in a line: how many models by which method, what was merged, the alpha."""
        number = counted(len(self.models), "model")
        parts = [
            f"{number} by {self.method}, {self.merged} of {counted(self.tensors, 'tensor')} merged",
            counted(self.entries, "weight"),
            self.found,
            self.length,
            self.adapter,
            f"{self.seconds:.2g} s",
            f"written to {self.output}" if self.output else "",
        ]
        return ", ".join(filter(None, parts))

    def rows(self) -> list[dict[str, Any]]:
        """Return of each model its name, weight, and what was kept of its task vector."""
        return [
            {"model": it.name, "weight": it.weight, "kept": it.kept, "fraction": it.fraction}
            for it in self.models
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Return a row for each model: its weight, and how many entries were kept."""
        return notebook.frame(self.rows())

    def push_to_hub(self, repo: str, **settings: Any) -> str:
        """Upload the folder that was written; return the address of the commit.

        repo: ``org/name``. settings: as for `breadcrumbs.merging.publishing.push`.
        """
        return publishing.push(Path(self.output), repo, **settings)

    def __repr__(self) -> str:
        number = len(self.warnings)
        more = f", {counted(number, 'warning')}" if number else ""
        return f"<Report: {self.summary}{more}>"

    def _repr_html_(self) -> str:
        facts = {"merge": self.summary}
        return notebook.table("Merge", self.rows(), facts, self.notes, self.warnings)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        data = {key: value for key, value in self.__dict__.items() if key != "output"}
        data["models"] = [{**row.__dict__, "fraction": row.fraction} for row in self.models]
        return data


def _parts(plan: Plan, rows: Sequence[TensorReport]) -> dict[str, float]:
    layout = plan.base.layout
    if layout is None or not layout.several:
        return {}
    squares: dict[str, list[float]] = {}
    for tensor, row in zip(plan.tensors, rows, strict=True):
        squares.setdefault(layout.split(tensor.name)[0].folder, []).append(row.squares)
    return {folder: math.sqrt(math.fsum(found)) for folder, found in squares.items()}


def said_of_parts(parts: dict[str, float]) -> str:
    """Return in a line how far each part of a model moved."""
    names = {folder: folder or "the folder itself" for folder in parts}
    moved = [f"{names[folder]} {norm:.4g}" for folder, norm in parts.items() if norm]
    same = [names[folder] for folder, norm in parts.items() if not norm]
    line = f"norm of the update in each part: {', '.join(moved) or 'none moved'}"
    return f"{line}; as in the base: {', '.join(same)}" if same else line


def _shares(rows: Sequence[TensorReport]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row.counts)
    changed = max(counts["changed"], 1)
    return {key: n / changed for key, n in sorted(counts.items()) if key != "changed"}


def _empty(plan: Plan, tensor: TensorPlan, row: TensorReport) -> bool:
    return any(
        kept == 0 and model is not None and own.weight and not _is_same(plan, tensor, number)
        for number, (kept, model, own) in enumerate(
            zip(row.kept, tensor.models, tensor.own, strict=True)
        )
    )


def _is_same(plan: Plan, tensor: TensorPlan, number: int) -> bool:
    """Return whether it is known without reading that a model has the base's tensor.

    What a task file lacks it did not lose here: the fine-tuning left it as it was, or a cut took
    all of it when it was packed.
    """
    cut, model = plan.models[number].cut, tensor.models[number]
    return tensor.name in plan.untouched[number] or (
        cut is not None and model is not None and not isinstance(model.source, Sparse)
    )
