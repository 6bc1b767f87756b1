"""The survey: find the exact cuts of units larger than a chunk, streaming.

A sample brackets the two ranks that bound the band. One pass then counts the keys below each
bracket and collects the few inside it, among which the exact rank is selected. Where the sample
misled (a rank outside its bracket, or too many inside), three passes of histograms find the keys
and one more pass counts their ties. Either way the result is exact: the sample decides only how
long it takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from breadcrumbs.kernels import plain

#: Entries of a run of the sample.
RUN = 1024
#: Standard errors that a bracket reaches to each side.
MARGIN = 4.5
#: Room for collected keys, as a fraction of the entries of a segment.
ROOM = 0.10
#: Collected keys of all models of one pass over a unit, bytes, about; more models take more passes.
WAVE_BYTES = 8 << 20
#: What fraction of the entries is collected, about.
COLLECTED = 0.02


def wave(n: int) -> int:
    """Return how many models one pass over a unit of ``n`` entries takes."""
    return max(1, int(WAVE_BYTES / (COLLECTED * n * 4)))


def sample_starts(n: int) -> list[int]:
    """Return where runs of `RUN` entries are sampled of ``n``: about ``n ** (2/3)`` entries."""
    if n <= RUN:
        return [0]
    number = int(min(max(n ** (2 / 3), 16 * RUN), 1 << 20, n) / RUN) or 1
    step = n // number
    # A stride that is odd to every row length, so that no column is favoured.
    rng = np.random.Generator(np.random.Philox(key=n))
    jitter = rng.integers(0, max(1, step - RUN), number)
    return [int(min(i * step + jitter[i], n - RUN)) for i in range(number)]


def bracket(sample: np.ndarray, first: int, last: int, n: int) -> np.ndarray:
    """Return keys ``low, low_end, high, high_end`` that ranks ``first`` and ``last`` lie between.

    sample: (runs, RUN) keys, the runs spread over the n entries. The spread of a rank between the
    runs gives its standard error, so weights whose rows differ get wider brackets.
    """
    ordered = np.sort(sample, axis=None)
    low = _around(sample, ordered, first / n) if first > 0 else (0, 0)
    high = _around(sample, ordered, last / n) if last < n else (0, 0)
    return np.array([*low, *high], sample.dtype)


def _around(sample: np.ndarray, ordered: np.ndarray, quantile: float) -> tuple[int, int]:
    middle = ordered[min(int(quantile * ordered.size), ordered.size - 1)]
    below = np.count_nonzero(sample < middle, axis=1) / sample.shape[1]
    error = below.std() / np.sqrt(len(below)) if len(below) > 1 else 0.05
    width = MARGIN * error + 4 / ordered.size
    start = int((quantile - width) * ordered.size)
    stop = int((quantile + width) * ordered.size) + 1
    low = ordered[start] if start >= 0 else ordered[0] * 0
    high = ordered[min(stop, ordered.size - 1)]
    if stop >= ordered.size:
        high = plain.everything(sample.itemsize)[2]
    return int(low), int(high)


@dataclass
class Tally:
    """What one pass over a unit found out about one model, chunk by chunk.

    bracket: (4,) keys. counts: (chunks, 4) of keys < low, <= low, < high, <= high.
    inside: keys in ``(low, low_end]`` or ``(high, high_end]``, chunk by chunk, in segments.
    sizes: (chunks,) how many of them each chunk has. overflow: some were not kept for want of room.
    """

    bracket: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray
    inside: list[np.ndarray] = field(default_factory=list)
    overflow: bool = False


def cuts(tally: Tally, first: int, last: int, n: int) -> np.ndarray | None:
    """Return the cut of every chunk, (chunks, 4), or None if the tally does not tell.

    The unit's ties are dealt to its chunks in order, so the number kept is exact.
    """
    result = np.empty((len(tally.counts), 4), np.int64)
    result[:] = plain.everything(tally.bracket.itemsize)
    if first >= last:
        result[:] = plain.nothing(tally.bracket.itemsize)
        return result
    inside = np.concatenate(tally.inside) if tally.inside else tally.bracket[:0]
    for column, rank, limit in ((0, first, 0), (2, last, n)):
        if rank == limit:
            continue
        found = _find(tally, inside, column, rank)
        if found is None:
            return None
        key, ordinal, ties = found
        before = np.cumsum(ties) - ties
        left = np.clip(ordinal - before, 0, ties)
        result[:, column] = key
        result[:, column + 1] = np.where(left == ties, -1, left)
    return result


def _find(
    tally: Tally, inside: np.ndarray, column: int, rank: int
) -> tuple[int, int, np.ndarray] | None:
    """Return (key of that rank, its place among equal keys, number of equal keys in each chunk)."""
    low, end = tally.bracket[column], tally.bracket[column + 1]
    below, upto = tally.counts[:, column], tally.counts[:, column + 1]
    if rank <= below.sum():
        return None
    if rank <= upto.sum():
        return int(low), int(rank - below.sum()), upto - below
    if tally.overflow:
        return None
    mine = inside[(inside > low) & (inside <= end)]
    place = int(rank - upto.sum())
    if place > mine.size:
        return None
    key = np.partition(mine, place - 1)[place - 1]
    ordinal = place - int(np.count_nonzero(mine < key))
    equal = np.zeros(inside.size + 1, np.int64)
    np.cumsum(inside == key, out=equal[1:])
    ends = np.cumsum(tally.sizes)
    return int(key), ordinal, equal[ends] - equal[ends - tally.sizes]


def refine(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """Return (bin that holds ``rank``, number of keys in the bins before it)."""
    upto = np.cumsum(counts)
    bin_ = int(np.searchsorted(upto, rank))
    return bin_, int(upto[bin_] - counts[bin_])
