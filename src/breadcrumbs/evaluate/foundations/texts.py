"""Texts as tokens, in batches in which little is padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data.task import Rows, Task
from breadcrumbs.evaluate.foundations.foundation import Batch


def columns(task: Task, rows: Rows, kind: str) -> tuple[list[str], ...]:
    """Return the texts of the rows, as one list or, for pairs, as two; SuiteError for others."""
    width = 2 if rows.inputs and not isinstance(rows.inputs[0], str) else 1
    for number, row in enumerate(rows.inputs):
        texts = (row,) if isinstance(row, str) else row
        fits = isinstance(texts, tuple | list) and len(texts) == width
        if not fits or not all(isinstance(text, str) for text in texts):
            raise SuiteError(
                f"task {task.name!r}: row {number} is a {type(row).__name__} where foundation"
                f" {kind} takes texts, or pairs of texts, in every row."
            )
    if width == 1:
        return (list(rows.inputs),)
    return [row[0] for row in rows.inputs], [row[1] for row in rows.inputs]


def batches(
    tokenizer: Any, texts: Sequence[list[str]], labels: np.ndarray, size: int, most: int
) -> list[Batch]:
    """Return batches of up to ``size`` rows, of like lengths, padded to the longest in each.

    texts: one list, or two of pairs. most: tokens of a row; what is longer is cut.
    """
    import torch

    if not len(labels):
        return []
    tokens = tokenizer(*texts, truncation=True, max_length=most, padding=False)
    pads = {
        "input_ids": tokenizer.pad_token_id or 0,
        "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
    }
    lengths = np.array([len(row) for row in tokens["input_ids"]])
    order = np.argsort(lengths, kind="stable")
    made = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        inputs = {}
        for name in tokens:
            array = np.full((len(rows), max(lengths[rows].max(), 1)), pads.get(name, 0), np.int64)
            for line, row in zip(array, rows, strict=True):
                line[: lengths[row]] = tokens[name][row]
            inputs[name] = torch.from_numpy(array)
        made.append(Batch(inputs, rows, torch.from_numpy(labels[rows].astype(np.int64))))
    return made
