"""RegMean, RegMean++ and LOT Merging: linear layers solved in closed form, a block at a time.

    W = R + sum_t (W_t - R) G_t (sum_t G_t + ridge m I)^-1

for weights of shape (out, in), the Gram matrices G_t (in, in) of what the layer of expert t takes
in, their entries off the diagonal times ``off_diagonal``, m the mean of the diagonal of their sum.
Of all W it is the one whose outputs are nearest to those of all experts; R is what is kept where
inputs say nothing. A ridge of 0 is a pseudo-inverse.

regmean     Jin et al., ICLR 2023, arXiv:2212.09849: inputs are the expert's own. R is the start
regmean++   Nguyen et al., 2025, arXiv:2508.03121: a block of the expert takes in what the merged
            blocks before it give. R is the start
lot         Sun et al., "Towards Minimizing Feature Drift in Model Merging", NeurIPS 2025: the
            experts' own inputs, no shrinking, R is the base; scales of normalisations are solved
            too: w = r + sum_t E[x_t^2] (w_t - r) / sum_t E[x_t^2] with normalised inputs x_t
lot++       the same, on inputs as of regmean++

What is not solved (embeddings, biases, ...) is the start's; the papers take the mean of the
experts, so give a merge by ``average``. Gram matrices are means over places that are no padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from breadcrumbs.errors import SuiteError
from breadcrumbs.modules.statistics.batches import counted

if TYPE_CHECKING:
    import torch

    from breadcrumbs.tune.learn.blocks.block import Block, Weights

OFF_DIAGONAL, RIDGE = 0.95, 1e-6
#: Eigenvalues below this part of the largest are none, where there is no ridge.
NONE = 1e-10


class RegMean:
    """`kinds.Kind`. merged: whether experts take in what merged blocks gave. lot: see above."""

    keeps = False

    def __init__(
        self,
        name: str = "regmean",
        off_diagonal: float = OFF_DIAGONAL,
        ridge: float = RIDGE,
        *,
        merged: bool = False,
        lot: bool = False,
    ) -> None:
        if off_diagonal > 1:
            raise SuiteError(f"{name}: off_diagonal: {off_diagonal:g} is above 1.")
        self.name, self.off_diagonal, self.ridge = name, off_diagonal, ridge
        self.follows, self._lot = not merged, lot
        self._total: dict[str, torch.Tensor] = {}
        self._right: dict[str, torch.Tensor] = {}

    @property
    def settings(self) -> dict[str, float]:
        """What it depends on."""
        return {"off_diagonal": self.off_diagonal, "ridge": self.ridge}

    def begin(self, block: Block) -> None:
        """Forget the block before."""
        self._total, self._right = {}, {}

    @contextmanager
    def expert(self, block: Block, task: str, weights: Weights) -> Iterator[None]:
        """Gather Gram matrices of what the layers of the expert's block take in."""
        sums: dict[str, Any] = {}
        rows: dict[str, int] = {}
        layers = dict(_layers(block, self._lot))

        def gather(name: str, normal: bool) -> Any:
            def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                x = args[0] if args else next(iter(kwargs.values()))
                x = _normalised(layer, x) if normal else x
                x = counted(x, block.module.counts).double()
                sums[name] = sums.get(name, 0) + (x.square().sum(0) if normal else x.T @ x)
                rows[name] = rows.get(name, 0) + len(x)

            return hook

        hooks = [
            layer.register_forward_pre_hook(gather(name, normal), with_kwargs=True)
            for name, (layer, normal) in layers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        reference = self._reference(block)
        for name, total in sums.items():
            gram = total / max(rows[name], 1)
            step = (weights[name] - reference[name]).double().to(gram.device)
            if gram.ndim == 2:
                diagonal = gram.diagonal().clone()
                gram = gram * self.off_diagonal
                gram.diagonal().copy_(diagonal)
                right = gram @ step if _is_turned(layers[name][0]) else step @ gram
            else:
                right = gram * step
            self._total[name] = self._total.get(name, 0) + gram
            self._right[name] = self._right.get(name, 0) + right

    def fit(self, block: Block) -> Weights:
        """Return the weights of the block."""
        found, reference = dict(block.start), self._reference(block)
        turned = {name: _is_turned(layer) for name, (layer, _) in _layers(block, self._lot)}
        for name, total in self._total.items():
            right = self._right[name]
            if total.ndim == 1:
                step = right / total.clamp(min=1e-300)
            elif turned[name]:
                step = _solved(total, right.T, self.ridge).T
            else:
                step = _solved(total, right, self.ridge)
            found[name] = (reference[name].double().to(step.device) + step).float().cpu()
        return found

    def _reference(self, block: Block) -> Weights:
        return block.base if self._lot else block.start


def _solved(total: torch.Tensor, right: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return ``right (total + ridge m I)^-1`` for a symmetric matrix, or its pseudo-inverse."""
    import torch

    values, vectors = torch.linalg.eigh((total + total.T) / 2)
    wide = values + ridge * float(total.diagonal().mean())
    known = wide > (NONE * float(wide.max()) if not ridge else 0)
    inverse = torch.where(known, 1 / torch.where(known, wide, 1), 0)
    return (right @ vectors) * inverse @ vectors.T


def _layers(block: Block, lot: bool) -> Iterator[tuple[str, tuple[Any, bool]]]:
    """Yield the layers that are solved, by the names of their weights; whether they normalise."""
    import torch

    names = {id(t): name for name, t in block.module.places[block.number].items()}
    for layer in block.module.stack.blocks[block.number].modules():
        name = names.get(id(getattr(layer, "weight", None)))
        if name is None:
            continue
        if isinstance(layer, torch.nn.Linear) or _is_turned(layer):
            yield name, (layer, False)
        elif lot and _epsilon(layer) is not None:
            yield name, (layer, True)


def _is_turned(layer: Any) -> bool:
    return type(layer).__name__ == "Conv1D"


def _epsilon(layer: Any) -> float | None:
    """Return what a normalisation of the last axis adds to the variance; None of another layer."""
    import torch

    if isinstance(layer, torch.nn.LayerNorm):
        return layer.eps
    kind = type(layer).__name__
    if kind.endswith("RMSNorm") and not kind.startswith("Gemma"):  # these scale by 1 + w
        return getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
    return None


def _normalised(layer: Any, x: torch.Tensor) -> torch.Tensor:
    import torch

    x, epsilon = x.double(), _epsilon(layer)
    assert epsilon is not None
    if isinstance(layer, torch.nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    return x * (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
