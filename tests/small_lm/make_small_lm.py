"""Make the family of small causal language models that the floor of defaults is tested on.

    python tests/small_lm/make_small_lm.py

writes ``base.safetensors``, a fine-tuning for each task, and ``heldout.safetensors`` (tokens, and
the logits of the base on some of them) beside this script. Llama's shapes, 88 thousand weights, an
untied head, a base that is hardly trained and short fine-tunings with Adam: the embeddings and the
head have nearly all of the norm, and entries move by like amounts, so a step is easily too long.
The texts are Python's: its sources, its manual, and its tables of character sets. One thread,
fixed seeds; other versions of Torch round differently, so their files differ a little.
"""

from __future__ import annotations

import copy
import pydoc_data.topics
import sysconfig
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
VOCABULARY, LENGTH, BATCH = 1024, 64, 8
HELD_OUT = 8  # rows of each task
BASE, TUNED = (150, 3e-3), (8, 3e-3)  # steps and rate

CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=LENGTH,
    tie_word_embeddings=False,
)


def texts() -> dict[str, str]:
    """Return the texts of the tasks, and of the base: a little of other sources and pages."""
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = {path.name: path.read_text("utf-8") for path in sorted(library.glob("[a-z]*.py"))}
    pages = sorted(pydoc_data.topics.topics.items())
    tables = [path.read_text("utf-8") for path in sorted(library.glob("encodings/cp1*.py"))]
    return {
        "base": "".join(v for k, v in sources.items() if k < "d")[:150_000]
        + "".join(text for _, text in pages[::3])[:150_000],
        "sources": "".join(v for k, v in sources.items() if k > "h")[:200_000],
        "manual": "".join(text for _, text in pages[1::3])[:200_000],
        "tables": "".join(tables)[:200_000],
    }


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = texts()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(found["base"].split("\n"), trainer)

    def rows(name: str) -> torch.Tensor:
        ids = tokenizer.encode(found[name]).ids
        return torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).reshape(-1, LENGTH)

    def train(model: LlamaForCausalLM, mine: torch.Tensor, steps: int, rate: float) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / steps)
            batch = mine[torch.randint(len(mine), (BATCH,))]
            optimizer.zero_grad()
            model(input_ids=batch, labels=batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    def save(model: LlamaForCausalLM, name: str) -> None:
        weights = {n: p.detach().to(torch.bfloat16) for n, p in model.named_parameters()}
        save_file(weights, HERE / f"{name}.safetensors")

    base = LlamaForCausalLM(CONFIG)
    train(base, rows("base"), *BASE)
    save(base, "base")
    held = {}
    with torch.no_grad():  # fine-tunings start from what is stored
        for parameter in base.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    for task in ("sources", "manual", "tables"):
        mine = rows(task)
        held[task] = mine[-HELD_OUT:].to(torch.int32)
        tuned = copy.deepcopy(base)
        train(tuned, mine[:-HELD_OUT], *TUNED)
        save(tuned, task)
        with torch.no_grad():
            both = [
                float(m(input_ids=mine[-HELD_OUT:], labels=mine[-HELD_OUT:]).loss)
                for m in (base, tuned)
            ]
        print(f"{task}: {both[0]:.3f} -> {both[1]:.3f}")
    with torch.no_grad():
        held["logits"] = base(input_ids=held["sources"][:1].long()).logits[0, -4:]
    save_file(held, HERE / "heldout.safetensors")


if __name__ == "__main__":
    main()
