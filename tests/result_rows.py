"""Rows of results, as evaluations keep them."""

from __future__ import annotations

import numpy as np

from breadcrumbs.evaluate.results.results import Row

GOOD = [1, 1, 0, 1, 1, 0, 0, 1, 1, 1]


def row(model: str = "m", task: str = "spam", right: list[int] = GOOD, **more) -> Row:
    """Return a row of 10 answers of which 7 are right, unless told otherwise."""
    given = {
        "model": model * (64 // len(model)),
        "base": "b" * 64,
        "foundation": "f" * 64,
        "head": "e" * 64,
        "task": task,
        "rows": task.encode().hex(),
        "split": "test",
        "metric": "accuracy",
        "precision": "float32",
        "suite": "text8",
        "label": f"models/{model}",
        "value": sum(right) / len(right),
        "stderr": (sum(right) * (len(right) - sum(right)) / len(right) ** 3) ** 0.5,
        "correct": sum(right),
        "items": len(right),
        "hits": np.packbits(right).tobytes(),
        "when": "2026-01-02T03:04:05Z",
    }
    return Row(**{**given, **more})
