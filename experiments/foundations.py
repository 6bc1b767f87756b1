"""Smaller foundations out of a larger one: `python -m experiments.foundations --layers 3 --out F`.

Layers of a BERT-like encoder, evenly spaced, are trained to give the hidden states that all of them
give, on training texts of a suite (their labels are not looked at). Fig. 5 of the paper asks what
size does to merging; sizes of one family are wanted, and packages have but one.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from breadcrumbs.evaluate import suite as suites
from breadcrumbs.modules import devices
from breadcrumbs.modules.precise import precise

BATCH, TOKENS, RATE, WARMUP = 32, 32, 5e-4, 0.05


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write one foundation; say how near it came."""
    parser = argparse.ArgumentParser(prog="python -m experiments.foundations", description=__doc__)
    parser.add_argument("--suite", required=True, help="its base is the teacher, its texts serve")
    parser.add_argument("--layers", type=int, required=True, help="how many are kept")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    given = parser.parse_args(arguments)
    suite = suites.load(given.suite).tuning()
    texts = sorted({text for task in suite.tasks for text in task.rows("train").inputs})
    distil(Path(suite.base), texts, given.layers, given.epochs, given.threads, given.out)


def kept(of: int, layers: int) -> list[int]:
    """Return the numbers of the layers that are kept: evenly spaced, the last among them.

    >>> kept(6, 3)
    [1, 3, 5]
    """
    return [round((number + 1) * of / layers) - 1 for number in range(layers)]


def distil(
    base: Path, texts: Sequence[str], layers: int, epochs: int, threads: int, out: Path
) -> None:
    """Write the foundation that ``layers`` layers of ``base`` make, trained on ``texts``."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(base)
    teacher = AutoModel.from_pretrained(base).eval()
    student = AutoModel.from_pretrained(base)
    encoder = student.encoder
    chosen = kept(len(encoder.layer), layers)
    encoder.layer = torch.nn.ModuleList([encoder.layer[number] for number in chosen])
    student.config.num_hidden_layers = layers
    student.embeddings.word_embeddings.requires_grad_(False)
    moving = [one for one in student.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=RATE, weight_decay=0.01)
    steps = epochs * (len(texts) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / (WARMUP * steps), (steps - step) / (steps * (1 - WARMUP))),
    )
    where = torch.device("cpu")
    narrow = devices.precision("auto", where)
    began, losses = time.monotonic(), []
    for step, batch in enumerate(batches(texts, epochs)):
        inputs = tokenizer(
            batch, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        with torch.no_grad(), precise(narrow, where):
            wanted = teacher(**inputs).last_hidden_state.float()
        with precise(narrow, where):
            found = student(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        error = ((found.float() - wanted) ** 2 * mask).sum() / (mask.sum() * wanted.shape[-1])
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(error.detach() / wanted.var()))
        if step % 100 == 99 or step == steps - 1:
            mean = sum(losses[-100:]) / len(losses[-100:])
            seconds = time.monotonic() - began
            print(f"{step + 1} of {steps}: {mean:.4f} of the variance, {seconds:.0f} s", flush=True)
    write(base, student, out)


def batches(texts: Sequence[str], epochs: int) -> Iterator[list[str]]:
    """Yield batches of texts in an order drawn for each epoch; what is left over waits."""
    for epoch in range(epochs):
        order = random.Random(epoch).sample(list(texts), len(texts))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            yield order[start : start + BATCH]


def write(base: Path, student: Any, out: Path) -> None:
    """Write a checkpoint: files of the base, its config with fewer layers, and the weights."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(base, partial, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.h5"))
    config = json.loads((partial / "config.json").read_text())
    config["num_hidden_layers"] = student.config.num_hidden_layers
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    from safetensors.torch import save_file

    state = {name: value.contiguous() for name, value in student.state_dict().items()}
    save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


if __name__ == "__main__":
    main()
