"""Adapters merged into one adapter, which PEFT loads on the base.

In a space of the adapters, and for sums of them in any, the step is known as a product of thin
matrices: it is written as it is, or cut to a rank, without a weight of the base. Elsewhere the step
of each matrix is formed, one job after the other, and cut.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import composite, tied
from breadcrumbs.checkpoint.adapters import nominal, peft
from breadcrumbs.checkpoint.beside import RECIPE
from breadcrumbs.checkpoint.hashing import FileHashes
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint
from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.engine.outputs import TensorReport
from breadcrumbs.engine.workspace import one_blas_thread
from breadcrumbs.errors import BreadcrumbsError, MismatchError, OutputError, RecipeError
from breadcrumbs.errors import counted as counted_as
from breadcrumbs.merging import adapter_folder, card, dense, estimate, files, inputs, opening
from breadcrumbs.merging import spaces as carried
from breadcrumbs.merging.adapter_folder import Made
from breadcrumbs.merging.provenance import check_unchanged, provenance, stamps_of
from breadcrumbs.merging.published import Names
from breadcrumbs.merging.report import Report
from breadcrumbs.methods import algebra, registry
from breadcrumbs.methods.aggregates.singular import leading
from breadcrumbs.plan import Plan, TensorPlan, lowering, spaces
from breadcrumbs.plan.coordinates import counted
from breadcrumbs.plan.judgement import judged, refuse
from breadcrumbs.plan.plan import Coordinates
from breadcrumbs.plan.recipe import OUTPUT_DTYPES, SAME, SPACES, Recipe

_ADVICE = "Leave --to away, for a whole model."


def check(output: object, resume: bool) -> None:
    """Raise RecipeError for what an adapter cannot be written with."""
    if output is None:
        raise RecipeError("to lora: an adapter is written to a folder. Give an output.")
    if resume:
        raise RecipeError("to lora: an adapter is not resumed: it is made at once. Leave that out.")


@contextmanager
def opened(recipe: Recipe, sources: Sequence[Any] | None = None) -> Iterator[Plan]:
    """Open what a recipe merges into an adapter; yield the plan.

    A base that is not on this machine, or not given (an empty path), is known by what adapters say
    of it (`nominal`). A sum is planned in the core space, where it is the same, if it can be.
    """
    with ExitStack() as stack:
        given = list(sources or recipe.paths)
        spaced = recipe.space != SPACES[0] or _is_sum(recipe)
        if _is_away(given[0], spaced):
            number = 1 + len(recipe.models)
            labels = recipe.paths[1:number]
            given[0] = _named(given[1:number], labels, recipe.base)
            recipe = replace(recipe, base=given[0].label)
        wanted = recipe
        if recipe.space == SPACES[0] and spaced:
            wanted = replace(recipe, space="core")
        try:
            plan = stack.enter_context(opening.opened(wanted, given, by_token=True))
        except BreadcrumbsError:
            if wanted is recipe:
                raise
            plan = stack.enter_context(opening.opened(recipe, given, by_token=True))
        yield plan


def called(base: Any) -> str:
    """Return how messages call a base; nothing where there is none."""
    return "" if base is None else opening.label(base, "base")


def is_adapter(path: str) -> bool:
    """Return whether a path is of an adapter by itself, where a base may stand."""
    if not os.path.exists(path):
        return False
    with checkpoint.open(path) as found:
        return found.is_bare_adapter


def _is_away(base: Any, spaced: bool) -> bool:
    """Return whether a base is but a name. spaced: whether no weight of it may be needed.

    Where some are, what is no path of this machine is opened, as the id of a model of a hub.
    """
    if not isinstance(base, str | os.PathLike):
        return base is None
    text = os.fspath(base)
    there = "+" in text or os.path.exists(os.path.expanduser(text))
    return not text or (spaced and not there)


def _named(sources: Sequence[Any], labels: Sequence[str], base: str) -> Checkpoint:
    """Return a base that is not there, as the adapters for it have it."""
    with ExitStack() as stack:
        found = []
        for source, label in zip(sources, labels, strict=True):
            found.append(checkpoint.open(source, label))
            if isinstance(source, str | os.PathLike):
                stack.callback(found[-1].close)
        return nominal.of(found, base)


def _is_sum(recipe: Recipe) -> bool:
    method = lowering.of(registry.get(recipe.method))
    return method.linear is not None and method.keeps_all and method.finish is None


def to_folder(
    it: Plan,
    output: str | os.PathLike[str],
    *,
    rank: int | None = None,
    threads: int | None = None,
    kernel: str = "auto",
    force: bool = False,
    strict: bool = False,
) -> Report:
    """Write what a plan merges as the folder of an adapter; return the report.

    rank: of each matrix at most; None takes all that the step has, in a space of the adapters, and
    else the sum of their ranks. The folder takes its name when it is whole. Raises OutputError,
    MismatchError, RecipeError.
    """
    began, output = time.perf_counter(), Path(output)
    on = algebra.of(it.recipe.device).name
    adapter_folder.check_output(output, force)
    if rank is not None and rank < 1:
        raise RecipeError(f"rank {rank} is not possible. Give 1 or more.")
    if it.recipe.dtype == SAME:
        raise RecipeError("dtype same: an adapter is not quantised. Give another dtype.")
    if it.onto is not None:
        raise RecipeError("onto: an adapter is one of the base. Leave one of both out.")
    if not it.models:
        raise RecipeError("to lora: no fine-tuned model is given. Give an adapter at least.")
    adapter_folder.check_base(it)
    it = files.advised(it)
    if it.base.files:  # else there are neither weights nor configs to judge by
        it = judged(it, strict)
    files.check_not_input(it, output)
    threads = estimate.threads(it, threads, None)
    told = replace(it, base=replace(it.base, files=()))  # no weight of which counts
    stamps = stamps_of(told)
    own = list(dict.fromkeys(path for source in told.inputs for path in source.own_files))
    hashes = FileHashes(own)
    digests = FileDigests(own, hashes.known)
    for task in digests.tasks():
        task()
    inputs.check(told, digests)
    it = carried.settled(it, threads=threads, kernel=kernel)
    dtype = DTYPES[OUTPUT_DTYPES[it.recipe.dtype or "float32"]]
    several = any(composite.component(it.base, tensor.name) for tensor in it.tensors)
    made = _Making(it, rank, dtype, Made(pipeline=several))
    with one_blas_thread():
        if it.coordinates is not None:
            rows = made.of_coordinates(it.coordinates)
        else:
            rows = made.of_weights(threads, kernel)
    known = made.plan  # with the alpha that was found
    told = replace(told, recipe=known.recipe, method=known.method, alphas=known.alphas)
    check_unchanged(stamps, stamps_of(told))
    hashes.keep(digests.digests)
    report = Report.of(made.plan, rows, 0.0, kernel=kernel)
    report.error, report.adapter, report.output = made.error, made.said(), os.fspath(output)
    if strict:
        refuse(report.warnings)
    names = Names(told, output)
    said = {"format": "pt", "breadcrumbs": provenance(told, digests, None, names, on)}
    report.bytes_written = sum(array.nbytes for array in made.made.tensors.values())
    report.bytes_read = sum(digests.sizes.values())
    report.seconds = time.perf_counter() - began

    def beside(folder: Path) -> None:
        text = card.recipe_text(told, digests, names)
        (folder / RECIPE).write_text(text, encoding="utf-8")
        text = card.card(told, report, digests, names)
        (folder / "README.md").write_text(text, encoding="utf-8", errors="replace")

    try:
        made.made.write(it, output, said, force, beside)
    except OSError as error:
        raise OutputError(
            f"{output}: {error.strerror or error}. Give another output, or check the disk."
        ) from None
    return report


@dataclass
class _Making:
    """An adapter being made of a plan.

    dtype: of its matrices. kept: what is kept whole, by name. lost, whole: sums of squares of the
    step.
    """

    plan: Plan
    rank: int | None
    dtype: np.dtype
    made: Made = field(default_factory=Made)
    kept: dict[str, np.ndarray] = field(default_factory=dict)
    lost: float = 0.0
    whole: float = 0.0

    @cached_property
    def ties(self) -> Mapping[str, str]:
        """What the base ties, by name."""
        return {} if self.plan.base.untied else tied.ties(self.plan.base)

    @cached_property
    def together(self) -> set[str]:
        """The names of all that is tied."""
        return {*self.ties, *self.ties.values()}

    @property
    def error(self) -> float:
        return math.sqrt(self.lost / self.whole) if self.whole else 0.0

    def said(self) -> str:
        """Return what was made, in words."""
        ranks = sorted(set(self.made.ranks.values()))
        shown = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        kept = [*self.made.modules, *self.made.tied]
        also = f", {counted_as(len(kept), 'module')} kept whole" if kept else ""
        biases = len(self.made.biases)
        also += f", {counted_as(biases, 'bias', 'biases')}" if biases else ""
        error = f"lacks {self.error:.2%} of the step" if self.error >= 5e-5 else "lacks nothing"
        if self.error < 5e-5:
            error += f" of the step but rounding ({self.error:.0e})"
        number = counted_as(len(self.made.ranks), "matrix", "matrices")
        return f"adapter of rank {shown} on {number}{also}: {error}"

    def of_coordinates(self, within: Coordinates) -> Sequence[TensorReport]:
        """Add all that was merged in a space of the adapters; return what was done to it."""
        for tensor in self.plan.tensors:
            if tensor.copied == spaces.WHOLE:
                self._add_whole(tensor, tensor.target.read())
            elif tensor.copied == spaces.LIFTED:
                basis, step = within.bases[tensor.name], within.steps[tensor.name]
                u, s, v = np.linalg.svd(step, full_matrices=False)
                right = v if basis.right is None else v @ basis.right
                self._add(tensor, basis.left @ u, s, right, counted(s, step.shape))
        self._end()
        return within.rows

    def of_weights(self, threads: int, kernel: str) -> Sequence[TensorReport]:
        """Add the leading triplets of what is merged as weights; return what was done to it."""
        dtypes = {tensor.name: tensor.dtype for tensor in self.plan.tensors}
        self.plan = dense.planned(self.plan, threads=threads, kernel=kernel)
        rows: list[TensorReport] = []
        for tensor, flat in dense.merged(self.plan, rows, threads=threads, kernel=kernel):
            values = flat.reshape(tensor.base.shape)
            if values.ndim < 2 or tensor.name in self.together:
                self._add_whole(tensor, values.astype(DTYPES[dtypes[tensor.name]]))
                continue
            step = (values - tensor.base.read()).reshape(len(values), -1)
            most = self.rank or dense.rank(self.plan, tensor)
            self._add(tensor, *leading(step, min(step.shape)), most)
        self._end()
        return rows

    def _add(
        self, tensor: TensorPlan, u: np.ndarray, s: np.ndarray, v: np.ndarray, most: int
    ) -> None:
        """Add the leading triplets ``u (m, k), s (k,), v (k, n)`` of a step: ``most``, or rank."""
        self.whole += float(np.square(s).sum())
        number = min(most, self.rank or most, int(np.count_nonzero(s)))
        if not number:
            return
        roots = np.sqrt(s[:number])
        left, right = u[:, :number] * roots, roots[:, None] * v[:number]
        mine = left.astype(self.dtype), right.astype(self.dtype)
        if not all(np.isfinite(one).all() for one in mine):
            raise MismatchError(_not_finite(tensor, bool(np.isfinite(s).all()), self.dtype))
        self.lost += float(np.square(s[number:]).sum()) + _apart((left, right), mine)
        source = tensor.base.source
        turned = adapter_folder.is_turned(self.plan, tensor.base)
        if isinstance(source, nominal.Absent):
            turned = source.turned
        self.made.add(tensor.base, *mine, turned)

    def _add_whole(self, tensor: TensorPlan, values: np.ndarray) -> None:
        """Note a tensor that goes in as it is, if it is another than the base's."""
        square = float(np.square(values.astype(np.float64) - tensor.base.read()).sum())
        self.whole += square
        if not square:
            return
        self.kept[tensor.name] = values
        if tensor.name in self.together and not self.made.pipeline:
            for name in adapter_folder.both_names(self.plan, tensor.name, self.ties, _ADVICE):
                self.made.tied.append(name.rpartition(".")[0])
                self.made.tensors[peft.PREFIX + name] = values
        else:
            self.made.keep(tensor, self.plan.models[0].label, _ADVICE)

    def _end(self) -> None:
        """Add what is kept whole; MismatchError for an adapter of nothing."""
        if not self.made.ranks:
            label = self.plan.models[0].label
            raise MismatchError(f"{label}: no matrix is changed by this merge. {_ADVICE}")

        def add(tensor: TensorPlan, key: str) -> None:
            mine = self.kept.get(tensor.name)
            self.made.tensors[key] = tensor.base.read() if mine is None else mine

        self.made.rest(self.plan, add)


def _not_finite(tensor: TensorPlan, is_number: bool, dtype: np.dtype) -> str:
    """Return what is said of a step of which the factors are not finite. is_number: if it is."""
    if is_number:
        return (
            f"tensor {tensor.name!r}: the step does not fit {dtype}. Give a wider output dtype,"
            " such as --dtype float32, or a smaller alpha."
        )
    return f"tensor {tensor.name!r}: the step is not finite. Repair a model."


def _apart(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the squared norm of the difference of two products of thin matrices, nearly alike.

    ``A B - A' B' = (A - A') B + A' (B - B')`` is one product, of thin matrices side by side.
    """
    (a, b), (c, d) = first, (one.astype(np.float64) for one in second)
    left, right = np.hstack([a - c, c]), np.vstack([b, b - d])
    return max(0.0, float(np.sum((left.T @ left) * (right @ right.T))))
