"""What the methods with data take of a model: measured by Torch, kept in a safetensors file.

>>> from breadcrumbs import statistics
>>> statistics.fisher(model, batches).save("ft1-fisher.safetensors")  # doctest: +SKIP
>>> statistics.gram(model, batches).save("ft1-gram.safetensors")  # doctest: +SKIP

Both take a Torch module and batches of inputs: some hundred examples of the model's own training or
validation data, never of its test data. A batch is what the module takes: a mapping, for
``model(**batch)``, or a tensor; for anything else say with ``forward`` how it goes through the
module. The module is measured as it is for use (dropout off) and left as it was; batches must be on
its device. Names are those of its `state_dict`, so merge the checkpoint that it came from.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.tensors import NAMES
from breadcrumbs.errors import MismatchError, OutputError, RecipeError
from breadcrumbs.modules.statistics.batches import (
    Forward,
    counted,
    examples,
    mask_of,
    measured,
    several,
    size,
    through,
    torch_or_error,
)
from breadcrumbs.plan.statistics import KEY
from breadcrumbs.version import __version__

Progress = Callable[[int], None]
#: Entries that are squared at once, which stay in a processor's cache.
_PART = 1 << 16


class Gathered(dict[str, np.ndarray]):
    """Arrays by the names of weights, and metadata that say what they are.

    `breadcrumbs.merge(..., statistics=[...])` takes it, and the files that it is saved to.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], **said: Any):
        super().__init__(arrays)
        self.metadata = {"format": "pt", KEY: json.dumps({"version": __version__, **said})}

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write one safetensors file, which takes its name when it is whole.

        force: replace a file of that name. Raises OutputError.
        """
        from breadcrumbs.checkpoint.outfile import Entry
        from breadcrumbs.checkpoint.writer import Writer

        if Path(path).suffix != ".safetensors":
            raise OutputError(f"{path}: statistics are one file. Give a name in .safetensors.")
        entries = [Entry(name, NAMES[a.dtype], a.shape) for name, a in self.items()]
        writer = Writer(
            Path(path), entries, self.metadata, shard_size=None, key="", force=force, resume=False
        )
        try:
            for number, array in enumerate(self.values()):
                writer.write(number, 0, np.ascontiguousarray(array).reshape(-1))
            writer.close(lambda folder: None)
        except BaseException:
            writer.discard()
            raise


def fisher(
    model: Any,
    batches: Iterable[Any],
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    forward: Forward | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress = lambda examples: None,
) -> Gathered:
    """Return the diagonal Fisher information: the mean over examples of squared gradients.

    ``F = mean over x of E_y (d log p(y | x) / d theta)^2``, one gradient for each EXAMPLE: the
    square of a batch's gradient is something else. Examples go through the module one at a time,
    which takes as long as training with batches of one.

    loss: (output, batch of one example) -> its negative log-likelihood, a number: the *empirical*
        Fisher information of given labels, such as ``lambda output, batch: output.loss``.
        Without it, labels are the module's own: its output, or the ``logits`` of it, are logits
        (1, classes), and the expected value is over all classes, with a backward pass for each.
    samples: draw so many labels of each example instead, for many classes, or for logits
        (1, positions, classes), where a label is one of the classes at each position, but for
        those where an ``attention_mask`` of the batch is 0. seed: of the draws.
    forward: (module, batch of one example) -> output.
    progress: called with numbers of examples done.

    float32, from float64 sums (8 bytes a parameter, beside the gradients), for every parameter,
    frozen ones too, and 0 for other weights. The metadata note its length over the whole model as
    ``norm``.
    """
    torch = torch_or_error()
    if samples is not None and (loss is not None or samples < 1):
        raise RecipeError(
            "fisher: samples: give a number of 1 or more, and no loss of given labels."
        )
    state = _state(model)
    parameters = {id(p): p for p in state.values() if isinstance(p, torch.nn.Parameter)}
    wide = torch.float64
    sums = {k: torch.zeros(p.numel(), dtype=wide, device=p.device) for k, p in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    number = 0
    with measured(model, parameters.values()), torch.enable_grad():
        for batch in several(batches):
            for example in examples(batch):
                output = through(model, example, forward)
                if loss is not None:
                    terms = iter([(1.0, loss(output, example))])
                else:
                    terms = _own_labels(output, example, samples, generator)
                for weight, value in terms:
                    _add_squares(value, weight, parameters, sums)
                number += 1
                progress(1)
    if not number:
        raise RecipeError("fisher: there are no batches. Give some examples.")
    arrays = {}
    for name, value in state.items():
        total = sums.get(id(value))
        mean = torch.zeros_like(value) if total is None else (total / number).view(value.shape)
        arrays[name] = mean.to(torch.float32).cpu().numpy()
        if not np.isfinite(arrays[name]).all():
            raise _not_finite("fisher: the gradient", name)
    labels = "given" if loss is not None else "of the model"
    norm = math.hypot(*(float(np.linalg.norm(a.astype(np.float64))) for a in arrays.values()))
    return Gathered(arrays, kind="fisher", examples=number, labels=labels, norm=norm)


def gram(
    model: Any,
    batches: Iterable[Any],
    *,
    forward: Forward | None = None,
    mask: Callable[[Any], Any] | None = None,
    progress: Progress = lambda examples: None,
) -> Gathered:
    """Return for each linear layer the mean of ``x x^T`` over the rows ``x`` that it takes in.

    float32 (in, in), from float64 sums. The mean, not the sum, so that models count alike however
    many examples they have.

    mask: batch -> which rows count, a tensor of booleans of the shape of the layers' inputs but for
        the last axis, or of their product. Without it, the ``attention_mask`` of the batch if it
        has one, so that padding does not count. Inputs of other shapes count whole.
    forward: (module, batch) -> anything. progress: called with numbers of examples done.

    Layers are Torch's Linear and the Conv1D of transformers, whose weights are turned, which the
    metadata say. Left out, and so averaged: layers that no batch reached (Torch's own attention
    does not call its layers), and weights that several layers share, such as a head tied to an
    embedding.
    """
    torch = torch_or_error()
    layers = _layers(model)
    sums: dict[int, Any] = {}
    rows: dict[int, int] = {}
    counts: list[Any] = [None]

    def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        x = counted(x.detach(), counts[0]).to(torch.float64)
        key = id(layer)
        sums[key] = x.T @ x if key not in sums else sums[key].addmm_(x.T, x)
        rows[key] = rows.get(key, 0) + len(x)

    hooks = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
    try:
        with measured(model, ()), torch.no_grad():
            for batch in several(batches):
                counts[0] = mask_of(batch, mask)
                through(model, batch, forward)
                progress(size(batch))
    finally:
        for handle in hooks:
            handle.remove()
    arrays, seen, turned = {}, {}, []
    for layer, names in layers.items():
        if not rows.get(id(layer)):
            continue
        mean = (sums[id(layer)] / rows[id(layer)]).to(torch.float32)
        for name in names:
            arrays[name] = ((mean + mean.T) / 2).cpu().numpy()
            seen[name] = rows[id(layer)]
            turned += [name] if _is_conv1d(layer) else []
            if not np.isfinite(arrays[name]).all():
                raise _not_finite("gram: the input", name)
    if not arrays:
        raise RecipeError("gram: no batch reached a linear layer. Give some examples.")
    return Gathered(arrays, kind="gram", turned=turned, rows=seen)


def _not_finite(what: str, name: str) -> MismatchError:
    return MismatchError(f"{what} of {name!r} is not finite. Look at the model and the examples.")


def _state(model: Any) -> dict[str, Any]:
    """Return the weights of the module by their names in its state dict."""
    state = model.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if value.is_floating_point()}


def _own_labels(
    output: Any, example: Any, samples: int | None, generator: Any
) -> Iterator[tuple[float, Any]]:
    """Yield (probability, log-likelihood) of labels that the module itself expects."""
    torch = torch_or_error()
    logits = getattr(output, "logits", output)
    if not torch.is_tensor(logits) or logits.ndim < 2 or len(logits) != 1:
        raise RecipeError(
            "fisher: the output is neither logits (1, classes) nor has any. Give a loss, or a"
            " forward that returns logits."
        )
    logs = torch.log_softmax(logits, -1).reshape(-1, logits.shape[-1])
    mask = mask_of(example, None)
    if mask is not None and mask.numel() == len(logs) > 1:
        logs = logs[mask.reshape(-1)]
    chances = logs.detach().exp()
    if samples is None:
        if logits.ndim > 2:
            raise RecipeError(
                f"fisher: logits of shape {tuple(logits.shape)} have too many labels for the"
                " expected value over all. Give samples=1, or a loss of given labels."
            )
        for label, chance in enumerate(chances[0].tolist()):
            if chance:
                yield chance, logs[0, label]
        return
    for _ in range(samples):
        drawn = torch.multinomial(chances.double().cpu(), 1, generator=generator)
        yield 1 / samples, logs.gather(1, drawn.to(logs.device)).sum()


def _add_squares(value: Any, weight: float, parameters: dict[int, Any], sums: dict) -> None:
    torch = torch_or_error()
    if not torch.is_tensor(value) or value.ndim or not value.requires_grad:
        raise RecipeError("fisher: the loss of an example is not a number with a gradient.")
    gradients = torch.autograd.grad(
        value, list(parameters.values()), retain_graph=True, allow_unused=True
    )
    for key, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        n = _PART if gradient.device.type == "cpu" else gradient.numel()
        totals, parts = sums[key].split(n), gradient.reshape(-1).split(n)
        for total, part in zip(totals, parts, strict=True):
            wide = part.to(torch.float64)
            total.addcmul_(wide, wide, value=weight)


def _layers(model: Any) -> dict[Any, list[str]]:
    """Return the linear layers and the names of their weights, without weights that are shared."""
    linear = torch_or_error().nn.Linear
    names: dict[int, list[str]] = {}
    for name, value in _state(model).items():
        names.setdefault(id(value), []).append(name)
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in {id(p) for p in module.parameters(recurse=False)}:
            owners[parameter] = owners.get(parameter, 0) + 1
    return {
        module: names[id(module.weight)]
        for module in model.modules()
        if (isinstance(module, linear) or _is_conv1d(module))
        and id(module.weight) in names
        and owners[id(module.weight)] == 1
    }


def _is_conv1d(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return type(module).__name__ == "Conv1D" and weight is not None and weight.ndim == 2
