"""A tiny real family of models: letters are counted, times a matrix, against means of classes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

#: A module of one matrix: how often each letter occurs, times it; heads of class means.
FOUNDATION = """
import numpy as np
import torch
import breadcrumbs
from breadcrumbs.evaluate.foundations.foundation import Batch

LETTERS = "abcdefgh"

class Letters:
    kind, settings, trains_heads = "letters", {"letters": LETTERS}, True

    def load(self, base):
        module = torch.nn.Linear(8, 8, bias=False)
        with torch.no_grad(), breadcrumbs.open(base) as state:
            module.weight.copy_(torch.from_numpy(state["weight"]))
        return module.eval()

    def prepare(self, task, rows, size):
        found = []
        for start in range(0, len(rows), size):
            numbers = np.arange(start, min(start + size, len(rows)))
            counts = [[rows.inputs[i].count(c) for c in LETTERS] for i in numbers]
            labels = torch.from_numpy(rows.labels[numbers])
            found.append(Batch({"counts": torch.tensor(counts).float()}, numbers, labels))
        return found[::-1]  # in no order

    def head(self, module, task):
        (batch,) = self.prepare(task, task.rows("train"), 1000)
        embedded = module(batch.inputs["counts"]).float()
        means = [embedded[batch.labels == k].mean(0) for k in range(len(task.labels))]
        return {"classes": torch.stack(means)}

    def logits(self, module, head, batch):
        return -torch.cdist(module(batch.inputs["counts"]).float(), head["classes"])

    def loss(self, module, head, batch):
        return torch.nn.functional.cross_entropy(self.logits(module, head, batch), batch.labels)

FOUNDATION = Letters()
"""


def rows_of(seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(8, 0.7), 3)
    rows = []
    for number in range(300):
        letters = rng.choice(list("abcdefgh"), 6, p=chances[number % 3])
        rows.append(("".join(letters) + " " + "z" * number, f"class {number % 3}"))
    return rows


def family(folder: Path, names: Sequence[str], splits: Sequence[str] = ()) -> Path:
    """Return the folder, with a base, fine-tunings and a suite.yaml with a task for each.

    splits: names that rows bear by turns; none unless told.
    """
    (folder / "letters.py").write_text(FOUNDATION)
    rng = np.random.default_rng(5)
    base = rng.standard_normal((8, 8)).astype(np.float32)
    tasks = []
    for number, name in enumerate(names):
        turns = itertools.cycle([f",{split}" for split in splits] or [""])
        lines = [f"{text},{label}{next(turns)}\n" for text, label in rows_of(number)]
        head = "text,label,split\n" if splits else "text,label\n"
        (folder / f"{name}.csv").write_text(head + "".join(lines))
        tuned = base + 0.3 * rng.standard_normal((8, 8)).astype(np.float32)
        save({"weight": tuned}, folder / f"{name}.safetensors")
        task = {"task": name, "data": f"{name}.csv", "text": "text"}
        tasks.append({**task, "finetuned": f"{name}.safetensors"})
    save({"weight": base}, folder / "base.safetensors")
    mapping = {"foundation": "letters.py", "base": "base.safetensors", "tasks": tasks}
    (folder / "suite.yaml").write_text(json.dumps(mapping))
    return folder


def save(state: dict[str, np.ndarray], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(state, path)
