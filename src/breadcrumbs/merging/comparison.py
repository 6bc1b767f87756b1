"""How alike task vectors are: cosines, distances and conflicts of every pair, streaming.

Hu et al., "Exploring Model Kinship for Merging Large Language Models", 2024, arXiv:2410.12613:
cosine, Pearson's correlation and Euclidean distance of the flat task vectors, and their means over
all pairs, the kinship of the models. The cosine keeps its sign, which the authors' program drops.
Masked first, these are the cosines of Model Breadcrumbs, Fig. 8.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from breadcrumbs.checkpoint import notebook
from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Reading
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.errors import RecipeError, explained, suggestion
from breadcrumbs.merging import estimate, layered, looking, opening
from breadcrumbs.merging import progress as bars
from breadcrumbs.merging.layered import Layer
from breadcrumbs.merging.looking import Look
from breadcrumbs.methods import parameters
from breadcrumbs.methods.table import TRANSFORMS
from breadcrumbs.plan import Plan, Sizes, lowering
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.plan.units import Segment

#: What is known of every two models.
MATRICES = ("cosine", "pearson", "euclid", "conflicts")
#: A variance that is so much less than the mean square is its rounding, and counts as 0.
NOISE = 1e-12

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Comparison:
    """Task vectors of some models, compared.

    entries: weights of the model, zeros of masks and of models without a tensor included. norms,
    kept: the length of each task vector, and how many of its entries are not 0. cosine, pearson,
    euclid, conflicts: (T, T); conflicts is the share with opposite signs of the entries that are 0
    in neither. A task vector of zeros has cosine 0, a constant one Pearson 0 with any. layers: the
    same, layer by layer. look: what figures are drawn from, if it was asked for.
    """

    base: str
    names: tuple[str, ...]
    transform: str
    parameters: dict[str, Any]
    entries: int
    norms: np.ndarray
    kept: np.ndarray
    cosine: np.ndarray
    pearson: np.ndarray
    euclid: np.ndarray
    conflicts: np.ndarray
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    look: Look | None = None

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """Every pair of models, each once."""
        return [
            {"first": self.names[i], "second": self.names[j]}
            | {key: float(getattr(self, key)[i, j]) for key in MATRICES}
            for i in range(len(self.names))
            for j in range(i + 1, len(self.names))
        ]

    @property
    def kinship(self) -> dict[str, float]:
        """The means over all pairs; nothing for less than two models."""
        pairs = self.pairs
        keys = [key for key in (pairs[0] if pairs else ()) if key not in ("first", "second")]
        return {key: math.fsum(pair[key] for pair in pairs) / len(pairs) for key in keys}

    def to_frame(self, what: str = "pairs") -> pandas.DataFrame:
        """Return a row for each pair as a frame of pandas.

        what: or a matrix by the names of the models: ``cosine``, ``pearson``, ``euclid`` or
        ``conflicts``.
        """
        if what == "pairs":
            return notebook.frame(self.pairs)
        if what not in MATRICES:
            raise RecipeError(
                f"to_frame: there is no {what!r}.{suggestion(what, MATRICES)} Give pairs,"
                f" {', '.join(MATRICES)}."
            )
        rows = [dict(zip(self.names, row, strict=True)) for _, row in self._of(what)]
        return notebook.frame(rows).set_axis(list(self.names))

    def _of(self, what: str) -> list[tuple[str, list[float]]]:
        return list(zip(self.names, getattr(self, what).tolist(), strict=True))

    def __repr__(self) -> str:
        kinship = ", ".join(f"{key} {value:.3g}" for key, value in self.kinship.items())
        pairs = len(self.pairs)
        means = "" if pairs == 1 else f"means of {pairs} pairs: "
        kinship = f"; {means}{kinship}" if kinship else ""
        return f"<Comparison of {', '.join(self.names)} on {self.base}{kinship}>"

    def _repr_html_(self) -> str:
        norms = dict(zip(self.names, self.norms.tolist(), strict=True))
        rows = [
            {"cosine": name, **dict(zip(self.names, row, strict=True)), "norm": norms[name]}
            for name, row in self._of("cosine")
        ]
        means = {f"mean {key}": notebook.number(value) for key, value in self.kinship.items()}
        facts = {"base": self.base, "transform": self.transform, **means}
        return notebook.table("Task vectors compared", rows, facts, self.notes, self.warnings)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        rows = zip(self.names, self.norms.tolist(), self.kept.tolist(), strict=True)
        return {
            "base": self.base,
            "transform": self.transform,
            "parameters": {key: str(value) for key, value in self.parameters.items()},
            "entries": self.entries,
            "models": [{"name": name, "norm": norm, "kept": n} for name, norm, n in rows],
            "pairs": self.pairs,
            "kinship": self.kinship,
            "layers": [layer.to_mapping(self.names) for layer in self.layers],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    @overload
    def to_html(self, path: None = None) -> str: ...
    @overload
    def to_html(self, path: str | os.PathLike[str]) -> None: ...
    def to_html(self, path: str | os.PathLike[str] | None = None) -> str | None:
        """Write a page of figures (docs/pages.md) to a file, or return it as HTML without one.

        With ``look=True`` it shows magnitudes too, and what the transform changes. Needs the extra
        ``report``.
        """
        from breadcrumbs.merging import picture
        from breadcrumbs.pages import files, html

        page = picture.of_comparison(self)
        if path is None:
            return html.to_html(page)
        return files.write(page, os.fspath(path))


@explained
def compare(
    base: opening.Source,
    models: Iterable[opening.Source],
    *,
    transform: str = "none",
    names: Iterable[str] | None = None,
    exclude: str | Sequence[str] = (),
    only: str | Sequence[str] = (),
    only_changed: bool = False,
    missing: str | Sequence[str] = "error",
    extra: str | Sequence[str] = "error",
    rename: str | Sequence[str] = (),
    allow_nonfinite: bool | Sequence[str] = False,
    seed: int = 0,
    threads: int | None = None,
    progress: bool | None = None,
    look: bool = False,
    **parameters: Any,
) -> Comparison:
    """Compare the task vectors of every two ``models``.

    transform: what cuts them first, such as ``breadcrumbs``; ``parameters`` are its parameters. The
    others are as for `breadcrumbs.merge`. Each weight is read once, or twice for a transform that
    ranks; sums are float64, and the same bits whatever the threads and chunks. look: read once more
    for what `Comparison.to_html` draws.

    >>> import numpy as np, breadcrumbs
    >>> base = {"w": np.zeros(2, np.float32)}
    >>> tuned = [{"w": np.array(w, np.float32)} for w in ([1, 0], [1, 1])]
    >>> breadcrumbs.compare(base, tuned).cosine.round(3).tolist()
    [[1.0, 0.707], [0.707, 1.0]]
    """
    models = opening.listed(models)
    made = recipe(
        opening.label(base, "base"),
        opening.named(models, names),
        transform,
        opening.plain(parameters),
        exclude=opening.globs(exclude),
        only=opening.globs(only),
        only_changed=only_changed,
        missing=missing,
        extra=extra,
        rename=opening.globs(rename),
        allow_nonfinite=allow_nonfinite,
        seed=seed,
    )
    state = opening.under(base, opening.any_files(models))
    with (
        opening.opened(made, [state, *opening.alongside(state, models)], by_token=True) as plan,
        bars.bar(plan.bytes_read, progress, "comparing") as told,
    ):
        return of(plan, threads=threads, progress=told, look=look)


def recipe(
    base: str, models: Sequence[Model], transform: str, given: dict[str, Any], **settings: Any
) -> Recipe:
    """Return a recipe whose plan `of` compares; RecipeError says what is unknown."""
    if transform not in TRANSFORMS:
        raise RecipeError(
            f"there is no transform {transform!r}.{suggestion(transform, TRANSFORMS)}"
            f" There are {', '.join(TRANSFORMS)}."
        )
    if lowering.lowered(TRANSFORMS[transform]).shaped:
        raise RecipeError(
            f"transform {transform} changes whole matrices, so its task vectors can be neither"
            " compared nor packed. Use transform none here, and this one in the merge."
        )
    if not models:
        raise RecipeError("compare: no models are given. Give a base and at least two models.")
    checked = parameters.parse(f"transform {transform}", TRANSFORMS[transform].parameters, given)
    alone = {**checked, "alpha": 1.0}  # what is compared is no sum, but a plan has one
    return Recipe(base, tuple(models), f"{transform}+sum", alone, **settings)


def of(
    plan: Plan,
    *,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda nbytes: None,
    look: bool = False,
) -> Comparison:
    """Return the comparison of the task vectors of a plan, which reads weights and writes none."""
    comparing = Comparing(plan)
    runner.run(plan, comparing, threads=estimate.threads(plan, threads, None), progress=progress)
    found = [totals.result() for totals in comparing.totals.values()]
    sums = np.array([math.fsum(column) for column in zip(*found, strict=True)])
    count, entries = len(plan.models), sum(tensor.base.size for tensor in plan.merged)
    if not found:
        sums = np.zeros(len(_sums(np.zeros((count, 0)))))
    first, second = np.triu_indices(count)
    tables = []
    for _ in range(4):
        table = np.zeros((count, count))
        part, sums = sums[: first.size], sums[first.size :]
        table[first, second] = table[second, first] = part
        tables.append(table)
    products, squares, opposite, both = tables
    centred = products - np.outer(sums, sums) / max(entries, 1)
    centred[np.diagonal(centred) <= NOISE * np.diagonal(products)] = 0
    transform = plan.method.transform
    settings = plan.method.complete(plan.recipe.parameters)
    return Comparison(
        plan.base.label,
        tuple(model.name for model in plan.recipe.models),
        plan.recipe.method.partition("+")[0],
        {key: value for key, value in settings.items() if key in transform.parameters},
        entries,
        np.sqrt(np.diagonal(products)),
        np.diagonal(both).astype(np.int64),
        _cosines(products),
        _cosines(centred),
        np.sqrt(squares),
        opposite / np.where(both == 0, 1, both),
        plan.warnings,
        plan.notes,
        layered.layers([plan.tensors[i] for i in comparing.totals], found, count),
        looking.look(plan, threads=threads) if look else None,
    )


def _cosines(products: np.ndarray) -> np.ndarray:
    squares = np.diagonal(products)
    sizes = np.sqrt(np.outer(squares, squares))
    cosines = np.where(sizes > 0, products / np.where(sizes > 0, sizes, 1), 0)
    cosines[np.diag_indices_from(cosines)] = squares > 0
    return np.clip(cosines, -1, 1)


class Comparing(Reading):
    """A consumer that adds up products of task vectors. totals: by number of the tensor."""

    def __init__(self, plan: Plan):
        number = len(plan.models)
        self.totals = {
            index: _Totals(number, tensor.base.size, plan.sizes)
            for index, tensor in enumerate(plan.tensors)
            if not tensor.copied and tensor.base.size
        }

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        for start, taus in Vectors(terms).task_vectors(segment):
            self.totals[segment.index].add(start, taus)
        return SegmentReport([0] * terms.number)


class _Totals:
    """The `_sums` of one tensor, the same bits in whatever pieces and order its entries come.

    Blocks of entries lie at fixed places. A block that comes in parts waits for the others.
    """

    def __init__(self, models: int, size: int, sizes: Sizes):
        self.models, self.size = models, size
        self.block, self.held = sizes.block, sizes.held
        self._parts: dict[int, tuple[np.ndarray, list[int]]] = {}
        self._held: dict[int, dict[int, np.ndarray]] = {}
        self._done: dict[int, list[float]] = {}
        self._lock = threading.Lock()

    def add(self, start: int, taus: np.ndarray) -> None:
        """Add the task vectors (T, n) of the entries from ``start`` on."""
        stop = start + taus.shape[1]
        for block in range(start // self.block, -(-stop // self.block)):
            begin, end = block * self.block, min((block + 1) * self.block, self.size)
            low, high = max(begin, start), min(end, stop)
            rows = taus[:, low - start : high - start]
            if (low, high) != (begin, end):
                rows = self._joined(block, begin, end, low, rows)
            if rows is not None:
                self._hold(block, _sums(np.ascontiguousarray(rows)))

    def _joined(self, block: int, begin: int, end: int, low: int, rows: np.ndarray) -> Any:
        """Return the whole block if these rows were the last that it waited for, else None."""
        with self._lock:
            fresh = (np.empty((self.models, end - begin)), [end - begin])
            whole, left = self._parts.setdefault(block, fresh)
            whole[:, low - begin : low - begin + rows.shape[1]] = rows
            left[0] -= rows.shape[1]
            return None if left[0] else self._parts.pop(block)[0]

    def _hold(self, block: int, sums: np.ndarray) -> None:
        group = block // self.held
        with self._lock:
            held = self._held.setdefault(group, {})
            held[block] = sums
            blocks = -(-self.size // self.block)
            if len(held) == min(self.held, blocks - group * self.held):
                columns = np.array(list(self._held.pop(group).values())).T.tolist()
                self._done[group] = [math.fsum(column) for column in columns]

    def result(self) -> list[float]:
        """Return the sums over all entries."""
        return [math.fsum(column) for column in zip(*self._done.values(), strict=True)]


def _sums(taus: np.ndarray) -> np.ndarray:
    """Return, one after the other, for every pair i <= j of task vectors (T, n), contiguous:

    inner products, squared distances, entries of opposite signs, entries that are 0 in neither; and
    for each task vector the sum of its entries.
    """
    pairs = [(i, j) for i in range(len(taus)) for j in range(i, len(taus))]
    above, below = taus > 0, taus < 0
    found = np.zeros((4, len(pairs)))
    # No BLAS: its sums depend on the number of its threads.
    for column, (i, j) in enumerate(pairs):
        apart = taus[i] - taus[j]
        found[0, column] = np.einsum("n,n->", taus[i], taus[j])
        found[1, column] = np.einsum("n,n->", apart, apart)
        opposite = np.count_nonzero(above[i] & below[j]) + np.count_nonzero(below[i] & above[j])
        same = np.count_nonzero(above[i] & above[j]) + np.count_nonzero(below[i] & below[j])
        found[2:, column] = opposite, opposite + same
    return np.concatenate([found.reshape(-1), taus.sum(axis=1)])
