"""Float64 to the dtype of the output, rounded once."""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.errors import MismatchError
from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.plan import TensorPlan

#: Dtypes of outputs that the fused kernels write, as they write them.
RAW = {"BF16": np.dtype(np.uint16), "F32": np.dtype(np.float32)}


def rounded(merged: np.ndarray, tensor: TensorPlan, kernels: Kernels) -> np.ndarray:
    """Return ``merged`` in the dtype of the output; MismatchError if a value does not fit it."""
    values = kernels.round_to(merged, tensor.dtype)
    if tensor.dtype in RAW:
        fits = math.isfinite(kernels.extent(values.view(RAW[tensor.dtype]))[1])
    else:
        narrow = values.astype(np.float32) if values.itemsize < 4 else values
        fits = bool(np.isfinite(narrow).all())
    if not fits:
        lost = ~np.isfinite(values.astype(np.float32) if values.itemsize < 4 else values)
        worst = float(merged[np.flatnonzero(lost)[0]])
        value = f"the merged value {worst:g}" if math.isfinite(worst) else "a merged value"
        raise MismatchError(
            f"tensor {tensor.name!r}: {value} does not fit {tensor.dtype}."
            " Give a wider output dtype, such as --dtype float64, or a smaller alpha."
        )
    return values


def widened(values: np.ndarray) -> np.ndarray:
    """View bfloat16 as its bits; widen other narrow floats to float32."""
    if values.dtype == DTYPES["BF16"]:
        return values.view(np.uint16)
    return values if values.dtype.itemsize >= 4 else values.astype(np.float32)
