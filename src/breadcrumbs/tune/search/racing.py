"""Racing: trials are scored on a few rows first, and the best of them on all.

The few are *anchors*: rows are parted by whether the base and the task's fine-tuned model answer
them right. Where the two disagree a merge decides; where they agree most merges answer alike. So a
part gets as many anchors as its size times `WEIGHT` asks for, and every anchor counts for the rows
of its part that it stands for: what is estimated is the share of right answers on all rows.

All trials see the same anchors, so differences between them are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3

#: Anchors of a row on which base and fine-tuned model disagree, for one on which they agree.
WEIGHT = 4.0
#: The share of trials that is scored on all rows, and standard errors of a paired difference to the
#: best by which a trial is surely worse.
KEPT, SURELY = 1 / 3, 2.0


@dataclass(frozen=True)
class Anchors:
    """Rows of a split. places: their numbers, ascending. weights: of each, 1 in all."""

    places: tuple[int, ...]
    weights: tuple[float, ...]

    def mean(self, right: np.ndarray) -> float:
        """Return the estimate of the share of right answers. right: of each anchor."""
        return float(np.dot(self.weights, right))


def anchors(
    base: np.ndarray, own: np.ndarray, share: float, seed: int, task: str, keys: Sequence[bytes]
) -> Anchors:
    """Return about that share of the rows of a task, at least one of each part, drawn by hash.

    base, own: which rows the base and the fine-tuned model answer right, (rows,) bool. keys: what
    identifies the rows' inputs, so that their order does not matter.
    """
    salt = f"{seed}\0{task}\0race\0".encode("utf-8", "surrogatepass")
    ranks = {n: blake3(salt + key).digest() for n, key in enumerate(keys)}
    parts = [np.flatnonzero(part) for part in (base & own, ~base & ~own, base != own)]
    parts = [part for part in parts if part.size]
    loads = [len(p) * (WEIGHT if base[p[0]] != own[p[0]] else 1.0) for p in parts]
    wanted = max(share * len(base), 1.0)
    found: list[tuple[int, float]] = []
    for part, load in zip(parts, loads, strict=True):
        number = min(max(round(wanted * load / sum(loads)), 1), len(part))
        chosen = sorted(part.tolist(), key=ranks.__getitem__)[:number]
        found += [(row, len(part) / len(base) / number) for row in chosen]
    places, weights = zip(*sorted(found), strict=True)
    return Anchors(tuple(places), tuple(weights))


@dataclass(frozen=True)
class Raced:
    """What a trial scored on anchors. right: of each anchor by task, (anchors,) bool."""

    values: Mapping[str, float]
    normalised: Mapping[str, float | None]
    right: Mapping[str, np.ndarray]

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain data."""
        right = {task: np.packbits(mine).tobytes().hex() for task, mine in self.right.items()}
        return {"values": dict(self.values), "normalised": dict(self.normalised), "right": right}

    @staticmethod
    def of(data: Mapping[str, Any], rows: Mapping[str, Anchors]) -> Raced:
        """Return what `to_mapping` made. rows: the anchors by task."""
        right = {
            task: np.unpackbits(
                np.frombuffer(bytes.fromhex(mine), np.uint8), count=len(rows[task].places)
            ).astype(bool)
            for task, mine in data["right"].items()
        }
        return Raced(data["values"], data["normalised"], right)


def kept(
    scores: Mapping[int, float],
    raced: Mapping[int, Raced],
    batch: Iterable[int],
    rows: Mapping[str, Anchors],
    paired: bool,
) -> set[int]:
    """Return the trials of a batch that are to be scored on all rows.

    They are among the best third of all that have raced so far, by score, and, where ``paired``,
    not surely worse than the best. scores, raced: by the numbers of trials.
    """
    order = sorted(scores, key=lambda number: (-scores[number], number))
    first = set(order[: math.ceil(KEPT * len(order))])
    mine = first & set(batch)
    if not paired:
        return mine
    best = raced[order[0]]
    return {number for number in mine if not surely_worse(raced[number], best, rows)}


def surely_worse(one: Raced, best: Raced, rows: Mapping[str, Anchors]) -> bool:
    """Return whether the mean over tasks of right answers is less by `SURELY` standard errors."""
    total, variance = 0.0, 0.0
    for task, anchors in rows.items():
        difference = one.right[task].astype(float) - best.right[task]
        weights = np.asarray(anchors.weights)
        mean = float(weights @ difference)
        total += mean / len(rows)
        variance += float(np.square(weights * (difference - mean)).sum()) / len(rows) ** 2
    return total < 0 and -total > SURELY * math.sqrt(variance)
