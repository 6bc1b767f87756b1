"""A causal language model of Llama's shapes in NumPy, and its loss on rows of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

import breadcrumbs

HERE = Path(__file__).parent
TASKS = ("sources", "manual", "tables")
HEADS, GROUPS, LAYERS, EPSILON, THETA = 4, 2, 2, 1e-6, 10_000.0

State = Mapping[str, np.ndarray]


def read(name: str) -> dict[str, np.ndarray]:
    """Return the tensors of a file beside this one."""
    return dict(breadcrumbs.open(HERE / f"{name}.safetensors"))


def loss(weights: State, rows: np.ndarray) -> float:
    """Return the mean of -log p of every token of ``rows`` (n, length) but the first of each."""
    found = logits(weights, rows[:, :-1])
    found = found - found.max(axis=-1, keepdims=True)
    right = np.take_along_axis(found, rows[:, 1:, None].astype(np.int64), axis=-1)[..., 0]
    return float(np.mean(np.log(np.exp(found).sum(axis=-1)) - right))


def logits(weights: State, rows: np.ndarray) -> np.ndarray:
    """Return the logits of what follows each token, (n, length, vocabulary)."""
    wide = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    x = wide["model.embed_tokens.weight"][rows]
    for layer in range(LAYERS):
        mine = {n.split(".", 3)[3]: v for n, v in wide.items() if f"layers.{layer}." in n}
        x = x + _attend(_norm(x, mine["input_layernorm.weight"]), mine)
        y = _norm(x, mine["post_attention_layernorm.weight"])
        gate = y @ mine["mlp.gate_proj.weight"].T
        gate = gate / (1 + np.exp(-gate)) * (y @ mine["mlp.up_proj.weight"].T)
        x = x + gate @ mine["mlp.down_proj.weight"].T
    return _norm(x, wide["model.norm.weight"]) @ wide["lm_head.weight"].T


def _norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPSILON) * scale


def _attend(x: np.ndarray, weights: State) -> np.ndarray:
    n, length, width = x.shape

    def heads(name: str, number: int) -> np.ndarray:
        made = x @ weights[f"self_attn.{name}_proj.weight"].T
        return made.reshape(n, length, number, width // HEADS).transpose(0, 2, 1, 3)

    queries, keys = _turn(heads("q", HEADS)), _turn(heads("k", GROUPS))
    keys, values = (np.repeat(a, HEADS // GROUPS, axis=1) for a in (keys, heads("v", GROUPS)))
    scores = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(width // HEADS)
    scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ values
    return (
        mixed.transpose(0, 2, 1, 3).reshape(n, length, width) @ weights["self_attn.o_proj.weight"].T
    )


def _turn(x: np.ndarray) -> np.ndarray:
    """Return (n, heads, length, d) with each half of d turned by the position."""
    length, d = x.shape[-2:]
    angles = np.arange(length)[:, None] * THETA ** (-np.arange(0, d, 2) / d)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
