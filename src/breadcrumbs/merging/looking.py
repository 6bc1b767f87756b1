"""A look at task vectors before and after they are cut: what the figures of a page are drawn from.

One pass of its own over base and models, made only where a page is asked for. Of models of more
than `ENOUGH` weights a sample is looked at: of every tensor chunks that lie evenly, two at least.
What it finds of a tensor is then scaled up to all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Reading
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.engine.workspace import one_blas_thread
from breadcrumbs.merging import estimate
from breadcrumbs.methods.aggregates.sum import scaled_sum
from breadcrumbs.plan import Plan
from breadcrumbs.plan.units import Segment

#: Weights of which all are looked at.
ENOUGH = 1 << 23
#: Entries of all models that are added up at once.
PIECE = 1 << 18
#: Bins of magnitudes: four in each power of two, from this one on. What lies outside is put into
#: the first or the last.
FIRST, BINS = -4 * 64, 4 * 80
#: Tensors of which a histogram is kept besides that of all.
SHOWN = 6
BEFORE, AFTER = 0, 1


@dataclass(frozen=True)
class TensorLook:
    """What a look finds of one tensor; arrays are (2, ...): before cutting and after.

    size, seen: its entries, and those looked at. base: the norm of the base. norms: (2, T).
    products: (2, T, T), inner products. opposite, both: (2, T, T), how many entries of two task
    vectors have opposite signs, and how many are 0 in neither; both of a task vector with itself:
    how many are not 0. low, high: (T,) the smallest and the largest magnitude that is kept;
    edges: (T,) the largest one that there is.
    """

    name: str
    size: int
    seen: int
    base: float
    products: np.ndarray
    opposite: np.ndarray
    both: np.ndarray
    low: np.ndarray
    high: np.ndarray
    edges: np.ndarray

    @property
    def scale(self) -> float:
        """How many entries one that was looked at stands for."""
        return self.size / self.seen if self.seen else 0.0

    @property
    def norms(self) -> np.ndarray:
        return np.sqrt(np.diagonal(self.products, axis1=1, axis2=2) * self.scale)


@dataclass(frozen=True)
class Look:
    """What a look finds. histograms: by name of a tensor, of "" for all tensors, (T, 2, BINS) how
    many entries that are not 0 have the magnitude of a bin (`FIRST`): those kept, those cut.
    cuts: whether the transform cuts anything."""

    names: tuple[str, ...]
    tensors: tuple[TensorLook, ...]
    histograms: dict[str, np.ndarray]
    cuts: bool

    @property
    def entries(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @property
    def share(self) -> float:
        """How many of the weights were looked at, as a fraction."""
        return sum(t.seen for t in self.tensors) / self.entries if self.entries else 1.0

    @property
    def products(self) -> np.ndarray:
        """(2, T, T): the inner products of whole task vectors."""
        return sum((t.products * t.scale for t in self.tensors), np.zeros((2, *self._square)))

    @property
    def norms(self) -> np.ndarray:
        """(2, T): how long the task vectors are."""
        return np.sqrt(np.diagonal(self.products, axis1=1, axis2=2))

    @property
    def kept(self) -> np.ndarray:
        """(2, T): the fraction of weights of each task vector that are not 0."""
        counts = sum(
            (np.diagonal(t.both, axis1=1, axis2=2) * t.scale for t in self.tensors),
            np.zeros((2, len(self.names))),
        )
        return counts / max(self.entries, 1)

    @property
    def cosines(self) -> np.ndarray:
        """(2, T, T)."""
        norms = self.norms
        sizes = norms[:, :, None] * norms[:, None, :]
        return np.divide(self.products, sizes, out=np.zeros_like(sizes), where=sizes > 0)

    @property
    def conflicts(self) -> np.ndarray:
        """(2, T, T): of the entries that are 0 in neither of two, how many have opposite signs."""
        zero = np.zeros((2, *self._square))
        opposite = sum((t.opposite * t.scale for t in self.tensors), zero)
        both = sum((t.both * t.scale for t in self.tensors), zero)
        return np.divide(opposite, both, out=np.zeros_like(both), where=both > 0)

    @property
    def _square(self) -> tuple[int, int]:
        return len(self.names), len(self.names)


def look(
    plan: Plan,
    *,
    threads: int | None = None,
    enough: int = ENOUGH,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Look:
    """Return what the task vectors of a plan look like before and after its transform, whatever its
    method makes of them then."""
    plan = summed(plan)
    looking = Looking(plan, enough)
    with one_blas_thread():
        runner.run(plan, looking, threads=estimate.threads(plan, threads, None), progress=progress)
    found = [looking.result(index) for index, parts in sorted(looking.parts.items()) if parts]
    names = tuple(model.name for model in plan.recipe.models)
    return Look(names, tuple(found), looking.histograms, not plan.lowered.keeps_all)


def summed(plan: Plan) -> Plan:
    """Return the plan with its transform alone, of which the plain sum is taken."""
    method = replace(plan.method, aggregate=scaled_sum(1.0), calibration=None)
    tensors = tuple(
        replace(t, values={**t.values, "alpha": 1.0}, onto=None, statistics=(), turned=False)
        for t in plan.tensors
    )
    return replace(plan, method=method, tensors=tensors, onto=None, statistics=())


class Raw(Vectors):
    """Task vectors that note what they were before the transform: ``raw`` (T, n) of the last chunk.

    chosen: which chunks of the tensor are looked at.
    """

    def __init__(self, terms: Terms, chosen: Callable[[int], bool]):
        super().__init__(terms)
        self.chosen, self.raw = chosen, np.empty((0, 0))

    def chunks(self, segment: Segment, again: bool = False):
        for start, n, cuts in self.terms.chunks(segment):
            if self.chosen(start // self.terms.job.chunk):
                self.raw = np.empty((len(self.terms.who), n))
                yield self._chunk(start, n, cuts, again)

    def transformed(self, rows, group, start, cuts, taus, kept) -> None:
        base = np.empty(rows.shape[1])
        self.terms.kernels.differences(rows[0], rows[1:], base, self.raw[group])
        super().transformed(rows, group, start, cuts, taus, kept)


class Looking(Reading):
    """A consumer that looks at task vectors. parts: by number of the tensor, by first entry."""

    def __init__(self, plan: Plan, enough: int):
        self.plan, self.number = plan, len(plan.models)
        mine = {i: t for i, t in enumerate(plan.tensors) if not t.copied and t.base.size}
        self.parts: dict[int, dict[int, tuple[np.ndarray, ...]]] = {i: {} for i in mine}
        self.numbers = {tensor.name: i for i, tensor in mine.items()}
        total = sum(tensor.base.size for tensor in mine.values())
        self.every = max(1.0, total / max(enough, 1))
        largest = sorted(mine.values(), key=lambda t: (-t.base.size, t.name))[:SHOWN]
        shape = (self.number, 2, BINS)
        self.histograms = {name: np.zeros(shape) for name in ("", *(t.name for t in largest))}
        self._lock = threading.Lock()

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        chunk, size = terms.job.chunk, terms.tensor.base.size
        chunks = -(-size // chunk)
        wanted = min(chunks, max(2, round(chunks / self.every)))
        taken = {i * chunks // wanted for i in range(wanted)}
        vectors = Raw(terms, taken.__contains__)
        seen = sum(min(chunk, size - i * chunk) for i in taken)
        for it in vectors.chunks(segment):
            step = max(1 << 12, PIECE // max(1, len(terms.who)))
            for at in range(0, it.base.size, step):
                part = slice(at, at + step)
                four = it.base[part], vectors.raw[:, part], it.taus[:, part], it.kept[:, part]
                self._add(terms, it.start + at, *four, size / seen)
        return SegmentReport([0] * terms.number)

    def _add(self, terms: Terms, start: int, base, raw, taus, kept, scale: float) -> None:
        """Add what some entries of a tensor show. raw, taus, kept: (T, n) of the models that have
        it. scale: how many entries each stands for in a histogram."""
        who = terms.who
        both = np.stack([raw, taus])
        signs = np.sign(both).astype(np.float32)
        there = np.abs(signs)
        shape = (2, self.number, self.number)
        sums = [np.zeros(shape) for _ in range(3)]
        place = np.ix_(range(2), who, who)
        sums[0][place] = both @ both.swapaxes(1, 2)
        counted = there @ there.swapaxes(1, 2)
        sums[1][place] = (counted - signs @ signs.swapaxes(1, 2)) / 2
        sums[2][place] = counted
        sizes = np.abs(raw)
        kept = kept & (sizes > 0)
        low, high, edges = (
            np.full(self.number, np.inf),
            np.zeros(self.number),
            np.zeros(self.number),
        )
        low[who] = np.where(kept, sizes, np.inf).min(axis=1, initial=np.inf)
        high[who] = np.where(kept, sizes, 0).max(axis=1, initial=0)
        edges[who] = sizes.max(axis=1, initial=0)
        counts = np.zeros((self.number, 2, BINS))
        for row, t in enumerate(who):
            bins = sizes[row].view(np.int64) >> 50  # the exponent, and two bits of the mantissa
            bins -= (1023 << 2) + FIRST - 1
            np.clip(bins, 1, BINS, out=bins)
            bins *= sizes[row] > 0
            bins += kept[row] * np.int64(BINS + 1)
            found = np.bincount(bins, minlength=2 * (BINS + 1)).reshape(2, BINS + 1)
            counts[t] = found[::-1, 1:]
        index = self.numbers[terms.tensor.name]
        part = (np.array([base.size, base @ base]), *sums, low, high, edges)
        with self._lock:
            self.parts[index][start] = part
            self.histograms[""] += counts * scale
            if terms.tensor.name in self.histograms:
                self.histograms[terms.tensor.name] += counts * scale

    def result(self, index: int) -> TensorLook:
        """Return what was found of a tensor, added up in its order."""
        tensor, parts = self.plan.tensors[index], self.parts[index]
        columns = list(zip(*(parts[start] for start in sorted(parts)), strict=True))
        about, products, opposite, both = (np.sum(column, axis=0) for column in columns[:4])
        low = np.min(columns[4], axis=0)
        high, edges = (np.max(column, axis=0) for column in columns[5:])
        seen = int(about[0])
        base = float(np.sqrt(about[1] * tensor.base.size / seen))
        size = tensor.base.size
        return TensorLook(tensor.name, size, seen, base, products, opposite, both, low, high, edges)
