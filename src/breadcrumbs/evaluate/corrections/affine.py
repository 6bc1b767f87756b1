"""The affine map of features that is nearest the expert's: closed form, ridge, leave-one-out.

    z' = (z + z W + b) / s
    s  = <e, z> / <e, e>,    b = mean(s e - z) - mean(z) W
    W  = argmin |Zc W - Rc|^2 + lambda |W|^2         (Zc, Rc: features and s e - z, both centred)

What is written is the map (I + W) / s - I and the shift b / s, which are 0 where nothing is done.

s: how much of the expert's features is left in the merged model's, z = s e + what the merge put in.
Without it, W, which is drawn towards 0, leaves features nearer their mean than e has them while b
moves that mean the whole way: with few rows, all classes but the nearest to the mean lose by it.

lambda is one of `PENALTIES` times the mean squared singular value of Zc: the one with the least
squared error of rows left out one by one, exactly (s is that of all rows), from one decomposition:
the residual of row i divided by 1 - 1/n - |u_i|^2 weighted by s^2 / (s^2 + lambda). Shift alone
(W = 0) and neither (W and b 0) compete too. Of neither, s is 1 unless that makes it worse: where
nothing is better than no correction, there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from breadcrumbs.evaluate.corrections.seen import Seen

PENALTIES = tuple(10.0**k for k in np.arange(-4, 4.5, 0.5))
#: Rows at least: of fewer, none can be left out.
LEAST = 3


class Affine:
    """`kinds.Kind`: width^2 + width numbers."""

    least = LEAST
    answers = ("expert",)

    def __init__(self) -> None:
        self.name = "affine"

    def fit(self, seen: Seen) -> dict[str, np.ndarray]:
        """Return ``map`` (width, width) and ``shift`` (width,), float32."""
        weight, shift, _ = solve(seen.merged, seen.expert)
        return {"map": weight.astype(np.float32), "shift": shift.astype(np.float32)}

    def features(self, numbers: Mapping[str, Any], features: Any) -> Any:
        """Return corrected features (rows, width)."""
        return features + (features @ numbers["map"] + numbers["shift"])

    def head(self, numbers: Mapping[str, Any], head: Any) -> Any:
        """Return the head as it is."""
        return head


def solve(merged: np.ndarray, expert: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return map (width, width), shift (width,), float64, and lambda (infinite without W).

    merged, expert: features (rows, width) of the same rows.
    """
    z, e = np.asarray(merged, np.float64), np.asarray(expert, np.float64)
    n, width = z.shape
    left_in = np.vdot(e, z) / (np.vdot(e, e) or 1.0)
    share = float(left_in) if left_in > 0 else 1.0
    wanted = share * e - z
    mean, step = z.mean(0), wanted.mean(0)
    u, s, vt = np.linalg.svd(z - mean, full_matrices=False)
    target = wanted - step
    projected, squares = u.T @ target, s**2
    nothing = np.square(wanted).sum()
    best, penalty, shrink = np.square(target / (1 - 1 / n)).sum(), np.inf, None
    scale = float(squares.sum() / max(len(s), 1))
    for factor in PENALTIES if scale else ():
        weights = squares / (squares + factor * scale)
        left = 1 - 1 / n - np.square(u) @ weights
        error = np.square((target - u @ (weights[:, None] * projected)) / left[:, None]).sum()
        if error < best:
            best, penalty, shrink = error, factor * scale, s / (squares + factor * scale)
    weight, shift = np.zeros((width, width)), step
    if nothing <= best:
        if np.square(e - z).sum() <= np.square(e - z / share).sum():
            return weight, np.zeros(width), np.inf
        shift, penalty = np.zeros(width), np.inf
    elif shrink is not None:
        weight = vt.T @ (shrink[:, None] * projected)
        shift = step - mean @ weight
    return (np.eye(width) + weight) / share - np.eye(width), shift / share, penalty
