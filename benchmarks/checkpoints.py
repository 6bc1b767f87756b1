"""Seeded checkpoints of Llama shapes for the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from benchmarks import programs

DTYPES = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}


@dataclass(frozen=True)
class Size:
    """A Llama: shapes, dtype of the weights and number of files."""

    hidden: int = 1024
    inter: int = 2816
    layers: int = 24
    vocabulary: int = 32000
    dtype: str = "bfloat16"
    shards: int = 3

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes, in the order of the files."""
        h, i = self.hidden, self.inter
        yield "model.embed_tokens.weight", (self.vocabulary, h)
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            for name in "qkvo":
                yield f"{at}self_attn.{name}_proj.weight", (h, h)
            yield f"{at}mlp.gate_proj.weight", (i, h)
            yield f"{at}mlp.up_proj.weight", (i, h)
            yield f"{at}mlp.down_proj.weight", (h, i)
            yield f"{at}input_layernorm.weight", (h,)
            yield f"{at}post_attention_layernorm.weight", (h,)
        yield "model.norm.weight", (h,)
        yield "lm_head.weight", (self.vocabulary, h)

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(shape)) for _, shape in self.tensors())


def make(folder: Path, size: Size, number: int) -> Path:
    """Write model ``number`` (0: the base) unless it is there; return its folder.

    Base weights are N(0, .03); a fine-tuning adds N(0, .002) to each. A process of its own does
    it, whose memory does not count as that of the programs that are timed then.
    """
    name = "-".join(str(value) for value in asdict(size).values())
    out = folder / name / ("base" if number == 0 else f"ft{number}")
    if (out / "config.json").exists():
        return out
    programs.apart(_write, out, size, number)
    return out


def _write(out: Path, size: Size, number: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    common, own = np.random.default_rng(0), np.random.default_rng(number)
    files: list[dict[str, np.ndarray]] = [{}]
    where: dict[str, int] = {}
    written = 0
    for name, shape in size.tensors():
        values = common.standard_normal(shape, dtype=np.float32) * np.float32(0.03)
        if number:
            values += own.standard_normal(shape, dtype=np.float32) * np.float32(0.002)
        files[-1][name] = values.astype(DTYPES[size.dtype])
        where[name] = len(files)
        written += values.size
        if written >= size.parameters * len(files) / size.shards and len(files) < size.shards:
            _save(out, files[-1], len(files), size.shards)
            files[-1] = {}
            files.append({})
    _save(out, files[-1], len(files), size.shards)
    index = {name: _file(shard, size.shards) for name, shard in where.items()}
    (out / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    (out / "config.json").write_text(json.dumps(_config(size)))


def _save(out: Path, tensors: dict[str, np.ndarray], number: int, of: int) -> None:
    save_file(tensors, out / _file(number, of), metadata={"format": "pt"})


def _file(number: int, of: int) -> str:
    return f"model-{number:05d}-of-{of:05d}.safetensors"


def _config(size: Size) -> dict[str, object]:
    """Return a config that mergekit takes; it will not merge without one."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size.hidden,
        "intermediate_size": size.inter,
        "num_hidden_layers": size.layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": size.vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": size.dtype,
    }
