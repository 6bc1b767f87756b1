"""An angle for each line of a tensor: inner products and coefficients of its rows or columns.

Rows lie along the last axis, columns along the first; a vector is one line, and so is a scalar. The
tensor goes by once, in pieces whose sizes depend on its shape alone, so the bits do too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from breadcrumbs.kernels.exact import two_sum

#: Inner products (lines, S, S) -> coefficients (lines, S), or (S,) if they are the same for all.
Coefficients = Callable[[np.ndarray], np.ndarray]


def number(shape: tuple[int, ...], kind: str) -> int:
    """Return how many lines a tensor has."""
    if len(shape) < 2:
        return 1
    return math.prod(shape[:-1] if kind == "row" else shape[1:])


def line_of(shape: tuple[int, ...], kind: str, start: int, n: int) -> np.ndarray:
    """Return the numbers of the lines (n,) that the entries from ``start`` on lie in."""
    entries = np.arange(start, start + n)
    if len(shape) < 2:
        return np.zeros_like(entries)
    return entries // shape[-1] if kind == "row" else entries % number(shape, kind)


def coefficients(
    pieces: Iterable[np.ndarray], shape: tuple[int, ...], kind: str, find: Coefficients, block: int
) -> np.ndarray:
    """Return the coefficients (lines, S) of every line.

    pieces: the rows (S, n), in order. block: entries whose inner products are found at once, about;
    of a longer row, they are added up.
    """
    if len(shape) >= 2 and kind == "column":
        return find(_column_products(pieces, shape, block))
    width = shape[-1] if shape else 1
    lines = number(shape, "row")
    found = []
    if width > block:
        sizes = [min(block, width - at) for at in range(0, width, block)]
        parts = [_products(rows, 1)[0] for rows in recut(pieces, sizes * lines)]
        for line in range(lines):
            mine = np.array(parts[line * len(sizes) : (line + 1) * len(sizes)])
            found.append(find(_added(mine)[None]))
    else:
        step = max(1, block // max(width, 1))
        sizes = [min(step, lines - at) * width for at in range(0, lines, step)]
        for rows in recut(pieces, sizes):
            found.append(find(_products(rows, rows.shape[1] // width)))
    return np.concatenate([np.atleast_2d(part) for part in found])


def recut(pieces: Iterable[np.ndarray], sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the same rows (S, n) in pieces of the given sizes."""
    coming = iter(pieces)
    held = next(coming)
    for size in sizes:
        while held.shape[1] < size:
            held = np.concatenate([held, next(coming)], axis=1)
        yield held[:, :size]
        held = held[:, size:]


def _products(rows: np.ndarray, lines: int) -> np.ndarray:
    """Return the inner products (lines, S, S) of rows (S, n) that hold so many whole lines.

    No BLAS: its sums depend on the number of its threads.
    """
    rows = np.ascontiguousarray(rows).reshape(len(rows), lines, -1)
    return np.einsum("inc,jnc->nij", rows, rows)


def _column_products(
    pieces: Iterable[np.ndarray], shape: tuple[int, ...], block: int
) -> np.ndarray:
    """Return the inner products (columns, S, S), added up with the rounding errors beside them."""
    columns = number(shape, "column")
    step = max(1, block // max(columns, 1))
    sizes = [min(step, shape[0] - at) * columns for at in range(0, shape[0], step)]
    total = rest = np.zeros(())
    for rows in recut(pieces, sizes):
        rows = np.ascontiguousarray(rows).reshape(len(rows), -1, columns)
        part = np.einsum("inc,jnc->cij", rows, rows)
        together = total + part
        rest = rest + two_sum(total, part, together)
        total = together
    return total + rest


def _added(parts: np.ndarray) -> np.ndarray:
    """Return the exact sums over the first axis."""
    columns = parts.reshape(len(parts), -1).T.tolist()
    return np.array([math.fsum(column) for column in columns]).reshape(parts.shape[1:])
