"""The family of models whose merges are remembered, made of the bits of Philox alone.

The same everywhere and for good: NumPy promises the stream of a bit generator, not those of its
distributions.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8": ml_dtypes.float8_e4m3fn,
}
MODELS = 3
#: One tensor is longer than a chunk (65,536 entries) and ends within one; a row of it is not.
SHAPES = {
    "embed.weight": (290, 240),
    "layers.0.attn.q_proj.weight": (48, 48),
    "layers.0.mlp.up_proj.weight": (64, 48),
    "layers.0.mlp.experts.weight": (3, 24, 16),
    "layers.1.conv.weight": (8, 4, 3, 3),
    "layers.1.norm.weight": (48,),
    "layers.1.norm.bias": (48,),
    "layers.1.bn.running_var": (16,),
    "layers.1.bn.num_batches_tracked": (),
    "scale": (),
    "lm_head.weight": (290, 240),
}
COPY = {"lm_head.weight": "embed.weight"}


def bell(key: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers like normal ones, each a multiple of 2**-16, float64."""
    n = int(np.prod(shape, dtype=np.int64))
    bits = np.random.Philox(key=key).random_raw(max(n, 1))
    parts = [(bits >> np.uint64(16 * i) & np.uint64(0xFFFF)).astype(np.int64) for i in range(4)]
    return ((sum(parts) - 2 * 0xFFFF) / 65536.0)[:n].reshape(shape)


def family(dtype: str) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Return the base and three models, in memory."""
    base: dict[str, np.ndarray] = {}
    models: list[dict[str, np.ndarray]] = [{} for _ in range(MODELS)]
    for key, (name, shape) in enumerate(SHAPES.items()):
        if name in COPY:
            base[name] = base[COPY[name]].copy()
            for model in models:
                model[name] = model[COPY[name]].copy()
        elif name.endswith("tracked"):
            base[name] = np.array(5, np.int64)
            for model in models:
                model[name] = np.array(9, np.int64)
        else:
            weights = bell(100 * key, shape)
            weights = np.abs(weights) + 0.125 if name.endswith("var") else weights
            base[name] = np.asarray(weights, DTYPES[dtype])
            for t, model in enumerate(models):
                step = bell(100 * key + 1 + t, shape) * 2.0**-4
                step = np.where(bell(100 * key + 50 + t, shape) > 0.9, 0, step)  # some stay
                moved = weights + (np.abs(step) if name.endswith("var") else step)
                model[name] = np.asarray(moved, DTYPES[dtype])
    return base, models
