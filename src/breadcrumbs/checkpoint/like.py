"""Arrays as what they came as: Torch tensors on their devices, or NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import MissingExtraError, RecipeError, suggestion

#: What arrays may be asked for as.
KINDS = ("numpy", "torch")


def check(kind: Any) -> Any:
    """Return one of `KINDS`; RecipeError for anything else, MissingExtraError without Torch."""
    if kind not in KINDS:
        near = suggestion(str(kind), KINDS)
        raise RecipeError(f"as_: {kind!r} is not possible. Give one of {', '.join(KINDS)}.{near}")
    if kind == "torch":
        try:
            import torch  # noqa: F401
        except ImportError:
            raise MissingExtraError(
                'as_: torch is not installed. Give "numpy", or `pip install torch`.'
            ) from None
    return kind


def like(base: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return ``arrays`` as what ``base`` is made of: Torch tensors on their devices, or NumPy."""
    if not isinstance(base, Mapping) or isinstance(base, Checkpoint):
        return arrays
    devices = {name: value.device for name, value in base.items() if _is_torch(value)}
    if not devices:
        return arrays
    first = next(iter(devices.values()))
    return {n: torch_of(array).to(devices.get(n, first)) for n, array in arrays.items()}


def torch_of(array: np.ndarray) -> Any:
    """Return an array as a Torch tensor of its dtype and shape, on the same memory if it can be."""
    import torch

    array = np.asarray(array)
    flat = torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    dtype = getattr(torch, array.dtype.name)
    tensor = flat.view(dtype) if flat.numel() else torch.empty(0, dtype=dtype)
    return tensor.reshape(array.shape)


def _is_torch(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"
