"""Texts as tokens, in batches in which little is padded."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
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
    if not len(labels):
        return []
    tokens = tokenizer(*texts, truncation=True, max_length=most, padding=False)
    pads = {
        "input_ids": tokenizer.pad_token_id or 0,
        "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
    }
    return padded(tokens, pads, labels, size)


def padded(
    tokens: Mapping[str, Sequence[Sequence[int]]],
    pads: Mapping[str, int],
    labels: np.ndarray,
    size: int,
) -> list[Batch]:
    """Return batches of rows of tokens, padded on the right. tokens: rows, by name of the input.

    pads: what each input is padded with, 0 unless told.
    """
    import torch

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


def template(task: Task, width: int) -> str:
    """Return the template of a task's inputs of so many texts; SuiteError if it does not fit."""
    known = [str(number) for number in range(width)]
    where = f"task {task.name!r}: head: template"
    if width > 1 and "template" not in task.head:
        raise SuiteError(
            f"{where}: is not given, and the inputs are pairs. Give one, such as"
            f" '{task.name} sentence1: {{0}} sentence2: {{1}}'."
        )
    template = task.head.get("template", "{0}")
    try:
        found = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except (TypeError, ValueError):
        found = []
    if sorted(set(found)) != known:
        wanted = " and ".join(f"{{{name}}}" for name in known)
        raise SuiteError(f"{where}: {template!r} has to hold {wanted} once or more, and no others.")
    return template


def check_distinct(task: Task, words: Sequence[str], tokens: Sequence[Sequence[int]]) -> None:
    """Raise SuiteError for two words of classes that are the same tokens."""
    found: dict[tuple[int, ...], str] = {}
    for word, mine in zip(words, map(tuple, tokens), strict=True):
        if mine in found:
            raise SuiteError(
                f"task {task.name!r}: words {found[mine]!r} and {word!r} are the same to the"
                " tokenizer. Give others: head: {words: [...]}."
            )
        found[mine] = word
