"""Small models in Llama's format, the same bits on any machine: whole numbers, divided.

`base` and its fine-tunings `ft1` to `ft3`; `near1`, `near2`, whose task vectors are a hundred times
smaller; `half-*` in bfloat16; `tied-*` without an lm_head. ft3 leaves the MLPs as they are.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

CONFIGS = Path(__file__).parent / "configs"
HIDDEN, INTER, HEADS, LAYERS, VOCABULARY = 16, 24, 4, 4, 40
FAMILIES = ("", "half-", "tied-")


def numbers(key: str, n: int) -> np.ndarray:
    """Return n sums of four uniform numbers from [-1, 1), exact in float32."""
    raw = np.random.Philox(key=zlib.crc32(key.encode())).random_raw(4 * n) >> np.uint64(44)
    return (raw.astype(np.int64) - (1 << 19)).reshape(4, n).sum(axis=0) / 2.0**19


def shapes(*, tied: bool) -> dict[str, tuple[int, ...]]:
    h, i = HIDDEN, INTER
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, h)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name, rows in (("q", h), ("k", h // 2), ("v", h // 2), ("o", h)):
            found[f"{at}self_attn.{name}_proj.weight"] = (rows, h)
        for name, shape in (("gate", (i, h)), ("up", (i, h)), ("down", (h, i))):
            found[f"{at}mlp.{name}_proj.weight"] = shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}{name}.weight"] = (h,)
    found["model.norm.weight"] = (h,)
    if not tied:
        found["lm_head.weight"] = (VOCABULARY, h)
    return found


def weights(name: str, *, tied: bool = False) -> dict[str, np.ndarray]:
    """Return the float32 weights of a model."""
    step = {"base": 0.0, "near1": 2.0**-14, "near2": 2.0**-14}.get(name, 2.0**-7)
    result = {}
    for tensor, shape in shapes(tied=tied).items():
        n = int(np.prod(shape))
        values = 2.0**-4 * numbers(f"base {tensor}", n) + ("norm" in tensor)
        if not (name == "ft3" and "mlp" in tensor):
            tails = numbers(f"{name} {tensor}", n) * numbers(f"{name} {tensor} tails", n)
            values = values + step * tails
        result[tensor] = values.reshape(shape).astype(np.float32)
    return result


def save(folder: Path, family: str = "") -> None:
    """Write the models of a family into subfolders of ``folder``."""
    dtype = np.dtype(ml_dtypes.bfloat16 if family == "half-" else np.float32)
    for name in ("base", "ft1", "ft2", "ft3", "near1", "near2"):
        at = folder / f"{family}{name}"
        at.mkdir()
        arrays = weights(name, tied=family == "tied-")
        save_file(
            {key: values.astype(dtype) for key, values in arrays.items()},
            at / "model.safetensors",
            {"format": "pt"},
        )
        (at / "config.json").write_text(json.dumps(config(family, dtype.name), indent=2))
        save_tokenizer(at)


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer of as many words as there are rows of embeddings."""
    vocabulary = {f"w{i}": i for i in range(VOCABULARY)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
    data = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}}
    (folder / "tokenizer.json").write_text(json.dumps({**data, "model": model}))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def config(family: str, dtype: str) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "num_hidden_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": family == "tied-",
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "torch_dtype": dtype,
    }


def flat(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return all entries in one row, tensors by name, each divided by its largest magnitude."""
    parts = []
    for name in sorted(arrays):
        values = np.asarray(arrays[name], np.float64).reshape(-1)
        parts.append(values / (np.abs(values).max() or 1.0))
    return np.concatenate(parts)
