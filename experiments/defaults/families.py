"""The families: a base and fine-tunings of it, made in seconds to minutes on one core.

A family is a base, its fine-tunings by task, and a function that gives the loss of weights on what
was held out of a task. Which families chose the rule of `alpha: auto` and which only judged it is
said of each.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.defaults import texts
from torch import nn

Weights = dict[str, np.ndarray]
#: Tokens of a row, rows of a step, and rows of each task that are held out.
LENGTH, BATCH, HELD_OUT = 64, 8, 64
#: The share of the base's loss that a fine-tuning must gain on rows held out to be a test. On 64
#: rows a difference of losses has a standard error of .2 to .6 % of it, and where nothing was
#: gained there is no share to lose.
GAINED = 0.01
#: Families of which one set is merged, by few methods.
LARGE = frozenset({"smollm2"})


@dataclass(frozen=True)
class Family:
    """tasks: weights of the fine-tunings. loss: of weights, on held-out rows of a task.

    without: tasks that are left out, with the share of the base's loss that fine-tuning on them
    gains: less than `GAINED`.
    """

    name: str
    base: Weights
    tasks: dict[str, Weights]
    loss: Callable[[Mapping[str, np.ndarray], str], float]
    without: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """How a family is made. chooses: whether it had a part in choosing the rule."""

    name: str
    kind: str = "llama"
    tied: bool = False
    vocabulary: int = 2048
    hidden: int = 64
    layers: int = 2
    pretraining: int = 300
    optimizer: str = "adam"
    rate: float = 1e-3
    steps: int = 40
    tasks: int = 4
    frozen: str = ""
    chooses: bool = False


SETTINGS = {
    one.name: one
    for one in (
        Setting("adam-few", tasks=8, chooses=True),
        Setting("adam-many", rate=3e-4, steps=150, chooses=True),
        Setting("sgd-many", optimizer="sgd", rate=0.3, steps=150, tied=True, chooses=True),
        Setting(
            "raw-base", tasks=8, pretraining=40, vocabulary=4096, hidden=96, steps=30, chooses=True
        ),
        Setting("tied-few", tied=True, hidden=96, layers=3, steps=20, chooses=True),
        Setting("tied-many", tied=True, hidden=96, rate=3e-4, steps=150),
        Setting("bytes", vocabulary=256, hidden=96, layers=4, rate=5e-4, steps=40),
        Setting("sgd-few", optimizer="sgd", rate=0.5, steps=30, hidden=96),
        Setting("frozen-ends", frozen="embed", vocabulary=1024, hidden=96, layers=3, rate=5e-4),
        Setting("one-step", steps=4, rate=1e-3, hidden=96),
        Setting("bert", kind="bert", tied=True, hidden=96, rate=5e-4, steps=150),
        Setting("vit", kind="vit", hidden=64, layers=3, rate=3e-4, steps=80),
    )
}


def make(name: str, cache: Path, log: Callable[[str], None] = print) -> Family:
    """Return a family by its name."""
    torch.manual_seed(0)
    if name == "demo":
        return demo()
    if name == "smollm2":
        from experiments.defaults import smollm2

        return smollm2.family(cache, log)
    setting = SETTINGS[name]
    return images(setting, log) if setting.kind == "vit" else language(setting, cache, log)


def language(setting: Setting, cache: Path, log: Callable[[str], None]) -> Family:
    """Return a family of small language models, of texts of eight kinds."""
    found = texts.texts(cache)
    made = texts.tokenizer(found["base"], setting.vocabulary)
    split = {n: texts.split(texts.rows(made, t, LENGTH)) for n, t in found.items()}
    model = _llama(setting) if setting.kind == "llama" else _bert(setting)
    mask = setting.vocabulary - 1

    def masked(batch: torch.Tensor, seed: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = torch.Generator().manual_seed(seed) if seed is not None else None
        where = torch.rand(batch.shape, generator=drawn) < 0.15
        return torch.where(where, mask, batch), torch.where(where, batch, -100)

    def loss_of(module: nn.Module, batch: torch.Tensor, seed: int | None = None) -> torch.Tensor:
        if setting.kind == "llama":
            return module(input_ids=batch, labels=batch).loss
        inputs, labels = masked(batch, seed)
        return module(input_ids=inputs, labels=labels).loss

    def tune(module: nn.Module, rows: torch.Tensor, how: Setting, steps: int) -> nn.Module:
        def draw() -> torch.Tensor:
            return rows[torch.randint(len(rows), (BATCH,))]

        return train(module, lambda module: loss_of(module, draw()), how, steps)

    start = Setting("", rate=2e-3)
    model = tune(model, split["base"][0], start, setting.pretraining)
    base, scored = weights_of(model), copy.deepcopy(model)
    held = {task: texts.some(split[task][1], HELD_OUT) for task in texts.TASKS}

    @torch.no_grad()
    def loss(weights: Mapping[str, np.ndarray], task: str) -> float:
        load(scored, weights)
        return float(loss_of(scored.eval(), held[task], seed=1))

    tasks: dict[str, Weights] = {}
    without: dict[str, float] = {}
    for task in texts.TASKS:
        if len(tasks) == setting.tasks:
            break
        tuned = weights_of(tune(copy.deepcopy(model), split[task][0], setting, setting.steps))
        gained = 1 - loss(tuned, task) / loss(base, task)
        if gained >= GAINED:
            tasks[task] = tuned
        else:
            without[task] = gained
        log(f"{setting.name}: {task} fine-tuned, gains {gained:.1%} of the loss")
    return Family(setting.name, base, tasks, loss, without)


def _llama(setting: Setting) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=setting.vocabulary,
        hidden_size=setting.hidden,
        intermediate_size=setting.hidden * 5 // 2,
        num_hidden_layers=setting.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=setting.tied,
    )
    return LlamaForCausalLM(config)


def _bert(setting: Setting) -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=setting.vocabulary,
        hidden_size=setting.hidden,
        intermediate_size=setting.hidden * 4,
        num_hidden_layers=setting.layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForMaskedLM(config)


def images(setting: Setting, log: Callable[[str], None]) -> Family:
    """Return a family of small vision transformers of digits that are turned or inverted."""
    from sklearn.datasets import load_digits
    from transformers import ViTConfig, ViTForImageClassification

    data: Any = load_digits()
    pixels = torch.tensor(data.images, dtype=torch.float32) / 16
    labels = torch.tensor(data.target)
    seen, held = slice(0, 1300), slice(1300, None)
    views: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "turned": lambda x: torch.rot90(x, 1, (1, 2)),
        "over": lambda x: torch.rot90(x, 2, (1, 2)),
        "inverted": lambda x: 1 - x,
        "mirrored": lambda x: x.flip(2),
        "shifted": lambda x: torch.roll(x, 2, 2),
        "squared": lambda x: x**3,
        "transposed": lambda x: x.transpose(1, 2),
        "back": lambda x: torch.rot90(x, 3, (1, 2)),
    }
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=setting.hidden,
        intermediate_size=setting.hidden * 4,
        num_hidden_layers=setting.layers,
        num_attention_heads=4,
    )
    config.num_labels = 10
    model: nn.Module = ViTForImageClassification(config)

    def loss_of(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(module(pixel_values=x[:, None]).logits, y)

    def tune(module: nn.Module, x: torch.Tensor, how: Setting, steps: int) -> nn.Module:
        def step(module: nn.Module) -> torch.Tensor:
            rows = torch.randint(1300, (32,))
            return loss_of(module, x[rows], labels[rows])

        return train(module, step, how, steps)

    model = tune(model, pixels[seen], Setting("", rate=1e-3), setting.pretraining)
    base = weights_of(model)
    tasks = {}
    for task, view in list(views.items())[: setting.tasks]:
        tuned = tune(copy.deepcopy(model), view(pixels[seen]), setting, setting.steps)
        tasks[task] = weights_of(tuned)
    log(f"{setting.name}: fine-tuned")

    @torch.no_grad()
    def loss(weights: Mapping[str, np.ndarray], task: str) -> float:
        load(model, weights)
        return float(loss_of(model.eval(), views[task](pixels[held]), labels[held]))

    return Family(setting.name, base, tasks, loss)


def demo() -> Family:
    """Return the family of `breadcrumbs demo`; its loss is the share of wrong answers."""
    import breadcrumbs
    from breadcrumbs.demo import model

    family = model.load_family()
    base = {n: v.astype(np.float32) for n, v in breadcrumbs.load(family.base).items()}
    tasks = {
        task: {n: v.astype(np.float32) for n, v in breadcrumbs.load(path).items()}
        for task, path in family.finetuned.items()
    }

    def loss(weights: Mapping[str, np.ndarray], task: str) -> float:
        return 1 - model.accuracy(weights, task, "validation")

    return Family("demo", base, tasks, loss)


def train(
    module: nn.Module, loss_of: Callable[[nn.Module], torch.Tensor], how: Setting, steps: int
) -> nn.Module:
    """Return the module after some steps of its optimizer, with linear decay."""
    for name, parameter in module.named_parameters():
        ends = "embed" in name or "lm_head" in name
        parameter.requires_grad_(not (how.frozen and ends))
    mine = [p for p in module.parameters() if p.requires_grad]
    if how.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(mine, how.rate, weight_decay=0.01)
    else:
        optimizer = torch.optim.SGD(mine, how.rate, momentum=0.9)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(module).backward()
        nn.utils.clip_grad_norm_(mine, 1.0)
        optimizer.step()
        decay.step()
    return module


def weights_of(module: nn.Module) -> Weights:
    """Return the parameters of a module, tied ones once."""
    return {n: p.detach().numpy().copy() for n, p in module.named_parameters()}


def load(module: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Put parameters into a module."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(np.asarray(weights[name], np.float32)))


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all families."""
    return (*SETTINGS, "demo", "smollm2")
