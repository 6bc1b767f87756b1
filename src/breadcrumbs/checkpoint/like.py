"""Arrays as what they came as: Torch tensors on their devices, or NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def like(base: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return ``arrays`` as what ``base`` is made of: Torch tensors on their devices, or NumPy."""
    if not isinstance(base, Mapping) or not any(_is_torch(value) for value in base.values()):
        return arrays
    import torch

    result: dict[str, Any] = {}
    first = next(value.device for value in base.values() if _is_torch(value))
    for name, array in arrays.items():
        flat = torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        dtype = getattr(torch, array.dtype.name)
        tensor = flat.view(dtype) if flat.numel() else torch.empty(0, dtype=dtype)
        result[name] = tensor.reshape(array.shape).to(base[name].device if name in base else first)
    return result


def _is_torch(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"
