"""A small Torch module with a tied weight and buffers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")


class Tiny(torch.nn.Module):
    """An embedding tied to the last layer, a norm with buffers, and a layer between."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = torch.nn.Embedding(5, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.inner = torch.nn.Linear(4, 4)
        self.last = torch.nn.Linear(4, 5, bias=False)
        self.last.weight = self.embed.weight
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_()

    def forward(self, x):
        return self.last(self.inner(self.norm(self.embed(x))))


def state_of(module, tied=False):
    """Return a module's weights as arrays, as a safetensors file has them: tied ones once."""
    state = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
    if not tied:
        del state["last.weight"]
    return state
