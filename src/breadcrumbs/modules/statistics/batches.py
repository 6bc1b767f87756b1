"""How batches of examples go through a Torch module that is measured, and come apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from breadcrumbs.errors import MissingExtraError, RecipeError, install

Forward = Callable[[Any, Any], Any]


def torch_or_error() -> Any:
    """Return the module torch; MissingExtraError where it is not installed."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            f"statistics are measured with Torch, which is not installed. {install('torch')}"
        ) from None
    return torch


def several(batches: Any) -> Iterable[Any]:
    """Return batches; RecipeError for what is none, or one alone."""
    if isinstance(batches, Mapping):
        raise RecipeError("batches: found one batch where several are expected. Give [batch].")
    if isinstance(batches, str) or not isinstance(batches, Iterable):
        what = type(batches).__name__
        raise RecipeError(
            f"batches: found {what}. Give a list of batches, or a DataLoader of Torch."
        )
    return batches


@contextmanager
def measured(model: Any, parameters: Iterable[Any]) -> Iterator[None]:
    """Put the module in its state for use, with gradients of ``parameters``, and back again."""
    training = {module: module.training for module in model.modules()}
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    model.eval()
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module, was in training.items():
            module.training = was


def _tensors(batch: Any) -> list[Any]:
    values = batch.values() if isinstance(batch, Mapping) else batch
    values = values if isinstance(batch, Mapping | list | tuple) else [batch]
    return [value for value in values if torch_or_error().is_tensor(value) and value.ndim]


def size(batch: Any) -> int:
    """Return the number of examples: rows of the first tensor."""
    tensors = _tensors(batch)
    if not tensors:
        raise RecipeError("statistics: a batch has no tensors. Give some, examples first.")
    return len(tensors[0])


def examples(batch: Any) -> Iterator[Any]:
    """Yield batches of one; what does not have as many rows as the first tensor stays whole."""
    number = size(batch)

    def one(value: Any, i: int) -> Any:
        mine = torch_or_error().is_tensor(value) and value.ndim and len(value) == number
        return value[i : i + 1] if mine else value

    for i in range(number):
        if isinstance(batch, Mapping):
            yield {key: one(value, i) for key, value in batch.items()}
        elif isinstance(batch, list | tuple):
            yield tuple(one(value, i) for value in batch)
        else:
            yield one(batch, i)


def through(model: Any, batch: Any, forward: Forward | None) -> Any:
    """Return what comes out of the module for a batch."""
    if forward is not None:
        return forward(model, batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, list | tuple):
        raise RecipeError(
            "statistics: a batch is a tuple, which may hold labels. Say how it goes through the"
            " module, such as forward=lambda model, batch: model(batch[0])."
        )
    return model(batch)


def mask_of(batch: Any, mask: Callable[[Any], Any] | None) -> Any:
    """Return which positions of a batch count, as booleans, or None if all do."""
    if mask is not None:
        return mask(batch).bool()
    found = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return found.bool() if found is not None and found.ndim == 2 else None


def counted(x: Any, mask: Any) -> Any:
    """Return the rows (n, in) of a layer's input that count."""
    rows = x.reshape(-1, x.shape[-1])
    if mask is not None and x.shape[:-1] in (mask.shape, (mask.numel(),)):
        return rows[mask.reshape(-1)]
    return rows
