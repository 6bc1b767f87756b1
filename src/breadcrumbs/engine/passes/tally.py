"""The survey: find the exact cuts of units larger than a chunk, streaming.

A sample brackets the two ranks that bound the band. One pass then counts the keys below each
bracket and collects the few inside it, among which the exact rank is selected. Where the sample
misled (a rank outside its bracket, or too many inside), a wider bracket is tried; where that fails
too, passes of histograms find the keys and one more pass counts their ties. Where a bracket holds
more keys than memory is meant for, as of a model of many billion weights, passes of histograms
narrow it first. Either way the result is exact: the sample decides only how long it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from breadcrumbs.engine.workspace import mapped
from breadcrumbs.kernels.bounds import everything, nothing
from breadcrumbs.kernels.draws import draws
from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.plan import Sizes

#: Standard errors that a bracket reaches to each side, at the first try and at the second.
MARGINS = (3.0, 12.0)
#: The bracket of a rank that is not asked for.
NOTHING = (1, 0)


def wave(collected: Sequence[float], sizes: Sizes) -> int:
    """Return how many of the models one pass takes that collect so many keys each, about.

    Never more than are read at once, so that memory does not grow with the number of models.
    """
    upto = np.cumsum(collected[: sizes.group]) * 4
    return max(1, int(np.searchsorted(upto, sizes.wave, side="right")))


def inside(sample: np.ndarray, bracket: np.ndarray, n: int) -> tuple[float, float]:
    """Return how many of n entries lie in brackets of more than one key, and how many in any.

    By a sample of them.
    """
    open_ = every = 0
    for low, end in (bracket[:2], bracket[2:]):
        found = np.count_nonzero((sample >= low) & (sample <= end)) if low <= end else 0
        every += found
        open_ += found if low < end else 0
    return open_ / sample.size * n, every / sample.size * n


def sample_starts(n: int, run: int) -> list[int]:
    """Return where runs of ``run`` entries are sampled of ``n``: one entry of 64, within bounds."""
    if n <= run:
        return [0]
    number = max(1, min(max(n // 64, 1 << 15), 1 << 18, n) // run)
    step = n // number
    # Jitter, so that no column of a matrix is favoured; from n alone, so that runs repeat.
    jitter = draws(np.uint64(n), 0, number).astype(np.uint64) * np.uint64(max(1, step - run))
    jitter >>= np.uint64(32)
    return [min(i * step + more, n - run) for i, more in enumerate(jitter.tolist())]


def bracket(
    sample: np.ndarray,
    first: int,
    last: int,
    n: int,
    kernels: Kernels,
    margin: float,
    room: float,
    near: Sequence[int] = (0, 0),
) -> np.ndarray:
    """Return keys ``low, low_end, high, high_end`` that ranks ``first`` and ``last`` lie between.

    sample: (runs, run) keys, the runs spread over the n entries. The spread of a rank between the
    runs gives its standard error, so weights whose rows differ get wider brackets. margin: standard
    errors to each side. room: for collected keys, as a fraction of the entries. near: where the
    keys may be, to begin with.
    """
    settings = kernels, margin, room
    low = _around(sample, first / n, *settings, near[0]) if first > 0 else NOTHING
    high = _around(sample, last / n, *settings, near[1]) if last < n else NOTHING
    return np.array([*low, *high], sample.dtype)


def _around(
    sample: np.ndarray, quantile: float, kernels: Kernels, margin: float, room: float, near: int
) -> tuple[int, int]:
    """Return keys on both sides of a quantile."""
    size, (runs, run) = sample.size, sample.shape
    place = min(size, int(quantile * size) + 1)
    key = kernels.key_of_rank(sample, place, near)
    starts = np.arange(0, size, run)
    _, below = kernels.count_runs(sample.ravel(), starts, np.full(runs, run), 0, key)
    error = (below / run).std() / math.sqrt(runs) if runs > 1 else 0.05
    # Two brackets that reach further are too wide to collect; runs spread evenly misjudge less than
    # their spread says, where tensors differ much.
    width = math.ceil(min(margin * error, room / 5) * size) + 4
    low = kernels.key_of_rank(sample, place - width, key) if place > width else 0
    if place + width > size:
        return low, largest(sample.itemsize)
    return low, kernels.key_of_rank(sample, place + width, key)


@dataclass
class Tally:
    """What one pass over a unit finds out about one model.

    bracket, counts (chunks, 4): as `Ranks.tally` has them. inside: room for the collected keys, of
    which ``used`` are taken, segment by segment as they come. starts, sizes: (chunks,) where the
    keys of each chunk lie in it. overflow: some were not kept for want of room.
    """

    bracket: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    inside: np.ndarray
    used: int = 0
    overflow: bool = False

    @staticmethod
    def empty(bracket: np.ndarray, chunks: int, n: int, sizes: Sizes) -> Tally:
        """Return a tally of nothing yet, for a unit of ``n`` entries in ``chunks``."""
        numbers = np.zeros((6, chunks), np.int64)
        collects = bracket[0] < bracket[1] or bracket[2] < bracket[3]
        most = min(sizes.room_of(n), sizes.budget // bracket.itemsize)
        kept = mapped(most if collects else 0, bracket.dtype)
        return Tally(bracket, numbers[:4].T, numbers[4], numbers[5], kept)

    def take(self, chunks: slice, counts: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> None:
        """Add what a segment gave: counts (its chunks, 4), sizes and the keys, in order."""
        self.counts[chunks] = counts
        self.sizes[chunks] = sizes
        self.starts[chunks] = self.used + np.cumsum(sizes) - sizes
        if sizes.sum() > keys.size or self.used + keys.size > self.inside.size:
            self.overflow = True
            return
        self.inside[self.used : self.used + keys.size] = keys
        self.used += keys.size


def cuts(
    tally: Tally, first: int, last: int, entries: np.ndarray, kernels: Kernels
) -> np.ndarray | None:
    """Return the cut of every chunk and how many it keeps, (chunks, 5), or None if that is unknown.

    entries: (chunks,), of which the unit consists. Its ties are dealt to its chunks in order, so
    the number kept is exact.
    """
    result = np.empty((len(entries), 5), np.int64)
    if first >= last:
        result[:, :4] = nothing(tally.bracket.itemsize)
        result[:, 4] = 0
        return result
    result[:, :4] = everything(tally.bracket.itemsize)
    result[:, 4] = entries
    if last < entries.sum():
        found = _find(tally, 2, last, kernels)
        if found is None:
            return None
        result[:, 2], result[:, 3], result[:, 4] = found
    if first > 0:
        found = _find(tally, 0, first, kernels)
        if found is None:
            return None
        result[:, 0], result[:, 1] = found[:2]
        result[:, 4] -= found[2]
    return result


def _find(
    tally: Tally, column: int, rank: int, kernels: Kernels
) -> tuple[int, np.ndarray, np.ndarray] | None:
    """Return the key of that rank, and of each chunk: ties (-1: all) and keys up to that rank."""
    low, end = tally.bracket[column], tally.bracket[column + 1]
    below = tally.counts[:, column]
    place = rank - int(below.sum())
    if place <= 0:
        return None
    if low == end:
        key, ordinal, ties = int(low), place, tally.counts[:, column + 1]
        if ordinal > ties.sum():
            return None
    else:
        if tally.overflow:
            return None
        inside = tally.inside[: tally.used]
        key, ordinal = (int(x) for x in kernels.select(inside, low, end, place))
        if ordinal == 0:
            return None
        ties, inside_below = kernels.count_runs(inside, tally.starts, tally.sizes, int(low), key)
        below = below + inside_below
    before = np.cumsum(ties) - ties
    left = np.clip(ordinal - before, 0, ties)
    return key, np.where(left == ties, -1, left), below + left


@dataclass
class Histogram:
    """How many keys lie in the bins of ``2**shift`` that the bracket low to end is cut in."""

    low: int
    end: int
    shift: int
    counts: np.ndarray
    below: int = 0

    @staticmethod
    def empty(low: int, end: int, bins: int) -> Histogram:
        """Return the histogram of no keys yet, of so many bins (a power of 2) or up to twice."""
        shift = max(0, int(end - low).bit_length() - (bins.bit_length() - 1))
        return Histogram(low, end, shift, np.zeros(((end - low) >> shift) + 1, np.int64))

    def count(self, keys: np.ndarray) -> tuple[int, np.ndarray]:
        """Return how many of some keys are below, and how many are in each bin."""
        low, end = (np.asarray(it, keys.dtype) for it in (self.low, self.end))
        inside = keys[(keys >= low) & (keys <= end)] - low
        inside >>= np.asarray(self.shift, keys.dtype)
        found = np.bincount(inside.astype(np.intp), minlength=self.counts.size)
        return int(np.count_nonzero(keys < low)), found

    def narrowed(self, rank: int, n: int, key_bytes: int) -> tuple[int, int, int]:
        """Return the bracket in which the key of that rank of n lies, and how many keys do."""
        place, inside = rank - self.below, int(self.counts.sum())
        if place <= 0:
            return 0, self.low - 1, self.below
        if place > inside:
            return self.end + 1, largest(key_bytes), n - self.below - inside
        bin_, _ = refine(self.counts, place)
        low = self.low + (bin_ << self.shift)
        return low, min(self.end, low + (1 << self.shift) - 1), int(self.counts[bin_])


def largest(key_bytes: int) -> int:
    """Return the key of infinity: keys are compared as numbers too, and above it are none."""
    return int(np.array(np.inf, f"f{key_bytes}").view(f"u{key_bytes}"))


def refine(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """Return (bin that holds ``rank``, number of keys in the bins before it)."""
    upto = np.cumsum(counts)
    bin_ = int(np.searchsorted(upto, rank))
    return bin_, int(upto[bin_] - counts[bin_])
