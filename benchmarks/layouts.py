"""Write models of the layouts of real ones, of which files hold headers and holes for weights.

    python -m benchmarks.layouts FOLDER --layout deepseek-v3 --models 4
    breadcrumbs merge FOLDER/base FOLDER/ft* --dry-run

Files have their real sizes and take a few hundred megabytes: of each tensor some bytes are there,
others in every model, so that tensors are told apart. ``experts`` is whole and small: weights of
98,304 experts' matrices of 64 entries, and others, to see what a tensor costs besides its weights.

Shapes are those of the models' configurations: Llama-3.1-405B, DeepSeek-V3 (in bfloat16, and in
FP8 as it is published).
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1}
#: Bytes of a file at most.
SHARD = 5 * 10**9
#: Bytes at the start of a tensor that are no hole.
START = 16
Tensor = tuple[str, str, tuple[int, ...]]

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_attention_heads": 128,
    "num_key_value_heads": 8,
    "num_hidden_layers": 126,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "first_k_dense_replace": 3,
    "vocab_size": 129280,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}


def llama(config: dict) -> Iterator[Tensor]:
    """Yield the tensors of Llama-3.1-405B."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", "BF16", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", "BF16", (hidden,)
        for name, shape in (
            ("mlp.down_proj", (hidden, inner)),
            ("mlp.gate_proj", (inner, hidden)),
            ("mlp.up_proj", (inner, hidden)),
        ):
            yield f"{at}{name}.weight", "BF16", shape
        yield at + "post_attention_layernorm.weight", "BF16", (hidden,)
        for name, rows in (("k", keys), ("o", hidden), ("q", hidden), ("v", keys)):
            yield f"{at}self_attn.{name}_proj.weight", "BF16", (rows, hidden)
    yield "model.norm.weight", "BF16", (hidden,)
    yield "lm_head.weight", "BF16", (config["vocab_size"], hidden)


def deepseek(config: dict) -> Iterator[Tensor]:
    """Yield the tensors of DeepSeek-V3 in bfloat16, or in blocks of FP8 where the config says so.

    Its layer of multi-token prediction is number 61.
    """
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    quantised = "quantization_config" in config

    def matrix(name: str, *shape: int) -> Iterator[Tensor]:
        yield f"{name}.weight", "F8_E4M3" if quantised else "BF16", shape
        if quantised:
            rows, columns = (-(-side // 128) for side in shape)
            yield f"{name}.weight_scale_inv", "F32", (rows, columns)

    def mlp(name: str, inner: int) -> Iterator[Tensor]:
        yield from matrix(f"{name}.gate_proj", inner, hidden)
        yield from matrix(f"{name}.up_proj", inner, hidden)
        yield from matrix(f"{name}.down_proj", hidden, inner)

    yield "model.embed_tokens.weight", "BF16", (vocabulary, hidden)
    last = config["num_hidden_layers"]
    for layer in range(last + config["num_nextn_predict_layers"]):
        at = f"model.layers.{layer}"
        if layer == last:
            yield f"{at}.embed_tokens.weight", "BF16", (vocabulary, hidden)
            yield f"{at}.enorm.weight", "BF16", (hidden,)
            yield f"{at}.hnorm.weight", "BF16", (hidden,)
            yield f"{at}.eh_proj.weight", "BF16", (hidden, 2 * hidden)
        yield f"{at}.input_layernorm.weight", "BF16", (hidden,)
        yield from matrix(f"{at}.self_attn.q_a_proj", 1536, hidden)
        yield f"{at}.self_attn.q_a_layernorm.weight", "BF16", (1536,)
        yield from matrix(f"{at}.self_attn.q_b_proj", 24576, 1536)
        yield from matrix(f"{at}.self_attn.kv_a_proj_with_mqa", 576, hidden)
        yield f"{at}.self_attn.kv_a_layernorm.weight", "BF16", (512,)
        yield from matrix(f"{at}.self_attn.kv_b_proj", 32768, 512)
        yield from matrix(f"{at}.self_attn.o_proj", hidden, 16384)
        yield f"{at}.post_attention_layernorm.weight", "BF16", (hidden,)
        if layer < config["first_k_dense_replace"]:
            yield from mlp(f"{at}.mlp", config["intermediate_size"])
            continue
        yield f"{at}.mlp.gate.weight", "BF16", (config["n_routed_experts"], hidden)
        yield f"{at}.mlp.gate.e_score_correction_bias", "F32", (config["n_routed_experts"],)
        for expert in range(config["n_routed_experts"]):
            yield from mlp(f"{at}.mlp.experts.{expert}", config["moe_intermediate_size"])
        yield from mlp(f"{at}.mlp.shared_experts", config["moe_intermediate_size"])
        if layer == last:
            yield f"{at}.shared_head.norm.weight", "BF16", (hidden,)
            yield f"{at}.shared_head.head.weight", "BF16", (vocabulary, hidden)
    yield "model.norm.weight", "BF16", (hidden,)
    yield "lm_head.weight", "BF16", (vocabulary, hidden)


def experts(config: dict) -> Iterator[Tensor]:
    """Yield 100,000 small tensors, called as those of a mixture of experts."""
    yield "model.embed_tokens.weight", "F32", (512, 8)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name in ("q", "k", "v", "o"):
            yield f"{at}.self_attn.{name}_proj.weight", "F32", (8, 8)
        for expert in range(config["n_routed_experts"]):
            for name in ("gate", "up", "down"):
                yield f"{at}.mlp.experts.{expert}.{name}_proj.weight", "F32", (8, 8)
        for i in range(config["other_norms"]):
            yield f"{at}.norms.{i}.weight", "F32", (64,)
    yield "lm_head.weight", "F32", (512, 8)


LAYOUTS: dict[str, tuple[Callable[[dict], Iterator[Tensor]], dict]] = {
    "llama-405b": (llama, LLAMA),
    "deepseek-v3": (deepseek, DEEPSEEK),
    "deepseek-v3-fp8": (deepseek, {**DEEPSEEK, "quantization_config": FP8}),
    "experts": (
        experts,
        {
            "model_type": "mixtral",
            "num_hidden_layers": 32,
            "n_routed_experts": 1024,
            "other_norms": 49,
            "vocab_size": 512,
        },
    ),
}


def write(folder: Path, name: str, seed: int) -> None:
    """Write a model of a layout. seed: what its weights are from, 0 for the base."""
    tensors, config = LAYOUTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    files: list[list[Tensor]] = [[]]
    size = total = 0
    for tensor in tensors(config):
        nbytes = BYTES[tensor[1]] * int(np.prod(tensor[2]))
        if size + nbytes > SHARD and files[-1]:
            files.append([])
            size = 0
        files[-1].append(tensor)
        size, total = size + nbytes, total + nbytes
    index = {}
    for number, mine in enumerate(files, 1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors"
        _write(folder / file, mine, seed, whole=name == "experts")
        index.update(dict.fromkeys((tensor[0] for tensor in mine), file))
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


def _write(path: Path, tensors: list[Tensor], seed: int, *, whole: bool) -> None:
    header: dict[str, dict] = {}
    end = 0
    for name, dtype, shape in tensors:
        start, end = end, end + BYTES[dtype] * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, dtype, shape in tensors:
            start, _ = header[name]["data_offsets"]
            file.seek(8 + len(text) + start)
            file.write(_weights(name, dtype, shape, seed) if whole else _some(name, dtype, seed))
        file.truncate(8 + len(text) + end)


def _weights(name: str, dtype: str, shape: tuple[int, ...], seed: int) -> bytes:
    """Return a tensor of a model: that of the base, and a step, small and its own."""
    assert dtype == "F32"
    draw = np.random.default_rng([0, zlib.crc32(name.encode())]).standard_normal(shape) * 0.02
    if seed:
        own = np.random.default_rng([seed, zlib.crc32(name.encode())])
        draw += own.standard_normal(shape) * 0.001
    return draw.astype(np.float32).tobytes()


def _some(name: str, dtype: str, seed: int) -> bytes:
    """Return the first bytes of a tensor: finite small numbers of its dtype."""
    shape = (START // BYTES[dtype],)
    if dtype == "F8_E4M3":
        codes = np.random.default_rng([zlib.crc32(name.encode())]).integers(0, 0x50, START)
        return (codes ^ (seed & 1)).astype(np.uint8).tobytes()
    numbers = np.abs(np.frombuffer(_weights(name, "F32", shape, seed), np.float32))
    if dtype == "BF16":
        return (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return numbers.tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="llama-405b")
    parser.add_argument("--models", type=int, default=4, help="fine-tunings besides the base")
    args = parser.parse_args()
    for seed in range(1 + args.models):
        write(args.folder / (f"ft{seed}" if seed else "base"), args.layout, seed)


if __name__ == "__main__":
    main()
