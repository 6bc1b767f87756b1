"""Lengths, angles and arcs of tensors that are known by their inner products alone.

A vector here is its coordinates over (base, tau_1, ..., tau_T), so that the base is ``(1, 0, ...)``
and a model is ``(1, ..., 1, ...)``. A difference of nearly equal models is a difference of
coordinates: it loses nothing, and angles between them come from it, never from ``1 - cos``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from breadcrumbs.errors import RecipeError

#: A combination this much shorter than its terms together is their rounding, and counts as 0.
NOISE = 1e-7


def task_vectors(count: int) -> np.ndarray:
    """Return the coordinates (T, 1 + T) of the task vectors."""
    return np.eye(count, 1 + count, 1)


def models(count: int) -> np.ndarray:
    """Return the coordinates (T, 1 + T) of the models themselves, the base and a task vector."""
    rows = task_vectors(count)
    rows[:, 0] = 1
    return rows


def lengths(gram: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the lengths (...) of vectors (..., 1 + T); 0 for what is below `NOISE`.

    gram: (..., 1 + T, 1 + T), of one tensor, or of several.
    """
    squares = (np.einsum("...i,...ij->...j", vectors, gram) * vectors).sum(-1)
    terms = (np.abs(vectors) * np.sqrt(np.einsum("...ii->...i", gram))).sum(-1)
    return np.sqrt(np.where(squares > (NOISE * terms) ** 2, squares, 0))


def units(vectors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return ``vector / length``; 0 where the length is 0, since 0 has no direction."""
    safe = np.where(lengths == 0, 1, lengths)[..., None]
    return np.where(lengths[..., None] == 0, 0, vectors / safe)


def arc(gram: np.ndarray, a: np.ndarray, b: np.ndarray, t: float, straight: float) -> np.ndarray:
    """Return ``slerp(a, b, t) - a``, which is 0 at t = 0 and ``b - a`` at t = 1, exactly.

    ``sin((1 - t) w) / sin w * a + sin(t w) / sin w * b`` with the angle ``w`` between a and b; pi/2
    if one of them is 0. ``t (b - a)``, a straight line, where they are parallel or opposite, or
    ``|cos w| > straight``. (..., 1 + T), for each of the gram (..., 1 + T, 1 + T).
    """
    chord = b - a
    length, other = lengths(gram, a), lengths(gram, b)
    known = (length > 0) & (other > 0)
    along = np.einsum("i,...ij,j->...", a, gram, chord)
    shift = along / np.where(length > 0, length, 1) ** 2
    sine = lengths(gram, chord - shift[..., None] * a)
    angle = np.where(known, np.arctan2(sine, length * (1 + shift)), math.pi / 2)
    line = known & ((sine == 0) | (np.abs(np.cos(angle)) > straight))
    angle = np.where(line, math.pi / 2, angle)
    # The shares of a and b add up to 1 + outward.
    outward = 2 * np.sin((1 - t) * angle / 2) * np.sin(t * angle / 2) / np.cos(angle / 2)
    curve = outward[..., None] * a + (np.sin(t * angle) / np.sin(angle))[..., None] * chord
    return np.where(line[..., None], t * chord, curve)


def unweighted(method: str, weights: Sequence[float], instead: str) -> None:
    """Raise RecipeError if a model has a weight, which the method has no place for."""
    for weight in weights:
        if weight != 1:
            raise RecipeError(
                f"{method}: a model has the weight {weight:g}, but {method} takes no weights."
                f" {instead}"
            )
