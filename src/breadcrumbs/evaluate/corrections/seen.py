"""What a correction of a task is learned from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from breadcrumbs.evaluate.data.drawn import Draw


@dataclass(frozen=True)
class Seen:
    """What a correction is learned from. merged, expert: features (rows, width), float32.

    head: the frozen head of the task. answer: head, features -> logits, in Torch. labels: -1 where
    they may not be seen.
    """

    task: str
    draw: Draw
    merged: np.ndarray
    expert: np.ndarray
    head: Any
    answer: Callable[[Any, Any], Any]
    labels: np.ndarray
