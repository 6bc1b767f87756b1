"""The demo's encoder in Torch, as a foundation: what learns from gradients needs them.

`FOUNDATION` gives the logits of `experiments.with_data` to the last digits.
"""

from __future__ import annotations

from typing import Any

import torch
from experiments import with_data
from torch.nn import functional

from breadcrumbs.demo import model as demo

Weights = dict[str, Any]


class Demo(with_data.Demo):
    """The demo's encoder as a foundation with features and gradients."""

    def features(self, module, batch):
        weights = dict(module.named_parameters())
        return encode(weights, batch.inputs["pixels"].float() / demo.LEVELS)

    def loss(self, module, head, batch):
        return functional.cross_entropy(self.logits(module, head, batch), batch.labels)


def encode(weights: Weights, images: torch.Tensor) -> torch.Tensor:
    """Return embeddings of length 1, (n, 80), of images (n, 28, 28) in [0, 1]: `demo.encode`."""
    x = _convolve(images[:, None], weights, "embed.conv1", 2)
    for name in ("fine.0", "fine.1"):
        x = x + _convolve(functional.silu(_of_image(x, weights, name)), weights, f"{name}.conv")
    x = _convolve(functional.silu(x), weights, "embed.conv2", 2)
    name = "coarse.0"
    x = x + _convolve(functional.silu(_of_image(x, weights, name)), weights, f"{name}.conv")
    x = x.flatten(2).transpose(1, 2) + weights["embed.position"]
    for block in ("blocks.0", "blocks.1"):
        x = x + _attend(_normal(x, weights, f"{block}.norm1"), weights, f"{block}.attention")
        hidden = _project(_normal(x, weights, f"{block}.norm2"), weights, f"{block}.mlp.up")
        x = x + _project(functional.silu(hidden), weights, f"{block}.mlp.down")
    return functional.normalize(_normal(x, weights, "norm").mean(1), dim=-1)


def _convolve(x: torch.Tensor, weights: Weights, name: str, stride: int = 1) -> torch.Tensor:
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return functional.conv2d(x, kernel, bias, stride, 1)


def _project(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _normal(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    given = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return functional.layer_norm(x, x.shape[-1:], *given, demo.EPSILON)


def _of_image(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    given = weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"]
    return functional.group_norm(x, 1, *given, demo.EPSILON)


def _attend(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    n, positions, channels = x.shape
    made = _project(x, weights, f"{name}.qkv").reshape(n, positions, 3, demo.HEADS, -1)
    q, k, v = made.permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q, k, v)
    return _project(mixed.transpose(1, 2).reshape(n, positions, channels), weights, f"{name}.out")


FOUNDATION = Demo()
