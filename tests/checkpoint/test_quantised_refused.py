"""Quantised weights that are not read are refused by name, and codes go with their scales."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantised_files import Raw, bf16, codes, folder, normal, save, shards

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, MismatchError
from breadcrumbs.store.store import Store
from breadcrumbs.tasks import packing

N = "model.layers.0.self_attn.q_proj"
WAY_OUT = "Give the unquantised model."
ONE = np.float32(1)


def ints(*shape: int, dtype: Any = np.int32) -> np.ndarray:
    return np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)


def gptq(outputs: int, inputs: int, bits: int) -> dict[str, Any]:
    each = 32 // bits
    return {
        N + ".qweight": ints(inputs // each, outputs),
        N + ".qzeros": ints(2, outputs // each),
        N + ".scales": np.ones((2, outputs), np.float16),
    }


def awq(outputs: int, inputs: int) -> dict[str, Any]:
    return {
        N + ".qweight": ints(inputs, outputs // 8),
        N + ".qzeros": ints(2, outputs // 8),
        N + ".scales": np.ones((2, outputs), np.float16),
    }


def byte(*shape: int) -> np.ndarray:
    return ints(*shape, dtype=np.uint8)


def nf4(nested: bool) -> dict[str, Any]:
    return {
        N + ".weight": byte(32, 1),
        N + ".weight.absmax": byte(1) if nested else np.ones(1, np.float32),
        N + ".weight.quant_map": np.ones(16, np.float32),
        N + ".weight.quant_state.bitsandbytes__nf4": byte(20),
    }


#: Tensors and what the config says -> what the message must say.
REFUSED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "bitsandbytes, 8 bits": (
        {N + ".weight": ints(8, 8, dtype=np.int8), N + ".SCB": np.ones(8, np.float32)},
        None,
        "bitsandbytes, 8 bits",
    ),
    "bitsandbytes, 4 bits": (nf4(False), None, "bitsandbytes, 4 bits"),
    "bitsandbytes, 4 bits nested": (
        nf4(True),
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "bitsandbytes, 4 bits",
    ),
    "bitsandbytes by config": (
        {N + ".weight": byte(8, 8)},
        {"_load_in_8bit": True, "load_in_8bit": True},
        "bitsandbytes, 8 bits",
    ),
    "GPTQ, 4 bits": (gptq(16, 64, 4), None, "GPTQ, 4 bits"),
    "GPTQ, 8 bits": (gptq(16, 64, 8) | {N + ".g_idx": ints(64)}, None, "GPTQ, 8 bits"),
    "GPTQ by config": (gptq(16, 64, 4), {"quant_method": "gptq", "bits": 4}, "GPTQ, 4 bits"),
    "AWQ": (awq(16, 64), None, "AWQ, 4 bits"),
    "AWQ by config": (awq(16, 64), {"quant_method": "awq", "bits": 4}, "AWQ, 4 bits"),
    "AutoRound": (gptq(16, 64, 4), {"quant_method": "auto-round", "bits": 4}, "AutoRound, 4 bits"),
    "EETQ, called otherwise": (
        {N + ".qweight": ints(8, 16, dtype=np.int8), N + ".weight_scales": np.ones(16, np.float16)},
        None,
        "EETQ, 8 bits",
    ),
    "EETQ by config": ({N + ".qweight": ints(8, 16)}, {"quant_method": "eetq"}, "(EETQ)"),
    "HIGGS": (
        {N + ".qweight": ints(8, 16), N + ".tables": np.ones((4, 2), np.float16)},
        None,
        "(HIGGS)",
    ),
    "HIGGS by config": (gptq(16, 64, 4), {"quant_method": "higgs", "bits": 4}, "HIGGS, 4 bits"),
    "a new method": (gptq(16, 64, 4), {"quant_method": "newquant", "bits": 3}, "newquant, 3 bits"),
    "no qzeros": ({N + ".qweight": ints(8, 16)}, None, "GPTQ or AWQ"),
    "MLX": (
        {
            N + ".weight": ints(8, 8, dtype=np.uint32),
            N + ".scales": bf16(np.ones((8, 1))),
            N + ".biases": bf16(np.zeros((8, 1))),
        },
        None,
        "MLX",
    ),
    "NVFP4 of Model Optimizer": (
        {
            N + ".weight": byte(8, 8),
            N + ".weight_scale": Raw(byte(8, 1), "F8_E4M3"),
            N + ".weight_scale_2": ONE,
            N + ".input_scale": ONE,
        },
        None,
        "NVFP4, 4 bits",
    ),
    "NVFP4 of compressed-tensors": (
        {
            N + ".weight_packed": byte(8, 8),
            N + ".weight_scale": Raw(byte(8, 1), "F8_E4M3"),
            N + ".weight_global_scale": np.ones(1, np.float32),
        },
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
        "NVFP4",
    ),
    "HQQ": (
        {N + ".W_q": byte(8, 4), N + ".scale": np.ones((8, 1)), N + ".zero": np.ones((8, 1))},
        None,
        "HQQ",
    ),
    "AQLM": (
        {
            N + ".codes": ints(4, 4, 1, dtype=np.int8),
            N + ".codebooks": np.ones((1, 256, 1, 8), np.float16),
            N + ".scales": np.ones((8, 1, 1, 1), np.float16),
        },
        None,
        "AQLM",
    ),
    "EETQ": (
        {N + ".weight": ints(8, 8, dtype=np.int8), N + ".weight_scales": np.ones(8, np.float16)},
        None,
        "EETQ, 8 bits",
    ),
    "quanto": (
        {N + ".weight._data": ints(8, 8, dtype=np.int8), N + ".weight._scale": np.ones((8, 1))},
        None,
        "quanto",
    ),
    "torchao": ({N + "._weight_qdata": byte(8, 8), N + "._weight_scale": ONE}, None, "torchao"),
    "torchao, without an underline": (
        {N + ".weight_qdata": ints(8, 8, dtype=np.int8), N + ".weight_scale": ONE},
        None,
        "torchao",
    ),
    "a scale of another name": (
        {N + ".weight": ints(8, 8, dtype=np.int8), N + ".dequant_scale": np.ones(1, np.float32)},
        None,
        "in an unknown layout",
    ),
    "the scale of activations alone": (
        {N + ".weight": ints(8, 8, dtype=np.int8), N + ".input_scale": np.ones(1, np.float32)},
        None,
        "in an unknown layout",
    ),
    "VPTQ by its names": (
        {N + ".indices": ints(1, 4, 8), N + ".centroids.weight": np.ones((1, 64), np.float32)},
        None,
        "VPTQ",
    ),
    "SpQR by its names": (
        {N + "." + leaf: ints(8) for leaf in ("dense_weights", "row_offsets", "col_vals")},
        None,
        "SpQR",
    ),
    "Marlin by its names": (
        {N + ".B": ints(4, 16), N + ".s": np.ones((2, 8), np.float16)},
        None,
        "Marlin",
    ),
    "MXFP6 of compressed-tensors": (
        {
            "a.weight_packed": np.ones((4, 48), np.uint8),
            "a.weight_scale": np.ones((4, 2), np.uint8),
        },
        {"quant_method": "compressed-tensors", "format": "mxfp6-pack-quantized"},
        "compressed-tensors, mxfp6-pack-quantized",
    ),
    "2:4 sparse": (
        {N + ".weight": Raw(byte(8, 8), "F8_E4M3"), N + ".weight_scale": ONE},
        {"quant_method": "compressed-tensors", "format": "marlin-24"},
        "marlin-24",
    ),
    "BitNet": (
        {N + ".weight": byte(2, 8), N + ".weight_scale": np.ones(1, np.float32)},
        {"quant_method": "bitnet"},
        "BitNet",
    ),
    "a method of next year": (
        {N + ".weight": byte(2, 8)},
        {"quant_method": "zippo", "bits": 3},
        "zippo, 3 bits",
    ),
    "bytes with a scale": (
        {N + ".weight": byte(2, 8), N + ".weight_scale": np.ones(2, np.float32)},
        None,
        "in an unknown layout",
    ),
    "integers with a scale and a zero point": (
        {
            N + ".weight": ints(4, 8, dtype=np.int8),
            N + ".scale": np.ones(4, np.float32),
            N + ".zero_point": ints(4),
        },
        None,
        "in an unknown layout",
    ),
    "words with a scale": (
        {N + ".weight": ints(4, 8), N + ".weight_scale": np.ones(4, np.float32)},
        None,
        "in an unknown layout",
    ),
    "FP8 beside a scale of another name": (
        {N + ".weight": Raw(codes(0, 8, 8), "F8_E4M3"), N + ".weight_scaler": ONE},
        None,
        f"unknown layout: '{N}.weight' with '{N}.weight_scaler'",
    ),
    "FP8 beside a scale below it": (
        {N + ".weight": Raw(codes(0, 8, 8), "F8_E5M2"), N + ".weight.amax": ONE},
        None,
        "in an unknown layout",
    ),
    "FP8 beside a scale of its module": (
        {N + ".weight": Raw(codes(0, 8, 8), "F8_E4M3"), N + "_scale": ONE},
        None,
        "in an unknown layout",
    ),
    "FP8 beside the scale of activations alone": (
        {N + ".weight": Raw(codes(0, 8, 8), "F8_E4M3"), N + ".input_scale": ONE},
        None,
        "in an unknown layout",
    ),
    "integers beside anything that is no bias": (
        {N + ".weight": ints(8, 8, dtype=np.int8), N + ".delta": np.ones(8, np.float32)},
        None,
        "in an unknown layout",
    ),
    "experts of integers": (
        {N + ".experts": byte(2, 8, 8), N + ".experts_scales": np.ones((2, 8), np.float32)},
        None,
        "in an unknown layout",
    ),
    "blocks with scales that are no exponents": (
        {N + "_blocks": byte(2, 3, 1, 16), N + "_scales": np.ones((2, 3, 1), np.float32)},
        None,
        "in an unknown layout",
    ),
    "codes with scales of the same stem": (
        {
            N + ".kernel_int8": ints(8, 8, dtype=np.int8),
            N + ".kernel_scale": np.ones(8, np.float32),
        },
        None,
        "in an unknown layout",
    ),
    "FP6 with exponents": (
        {
            N + ".weight": Raw(byte(6), "F6_E2M3", (2, 4)),
            N + ".weight_scale": bf16(np.ones((2, 1))),
        },
        None,
        "in an unknown layout",
    ),
    "MXFP4 that is no experts": (
        {N + "_blocks": byte(8, 2, 16), N + "_scales": byte(8, 2)},
        {"quant_method": "mxfp4"},
        "MXFP4 in an unknown layout",
    ),
    "packed zero points": (
        {
            N + ".weight_packed": ints(8, 2),
            N + ".weight_scale": np.ones((8, 1), np.float32),
            N + ".weight_shape": np.array([8, 16]),
            N + ".weight_zero_point": ints(1, 1) + 5,
        },
        None,
        "zero points",
    ),
    "in activation order": (
        {
            N + ".weight_packed": ints(8, 2),
            N + ".weight_scale": np.ones((8, 1), np.float32),
            N + ".weight_shape": np.array([8, 16]),
            N + ".weight_g_idx": ints(16),
        },
        None,
        "with activation order",
    ),
}


def refused(source: Any, *words: str) -> None:
    """Check that opening is an error of one line that says that, and what, is quantised."""
    with pytest.raises(CheckpointError) as error:
        checkpoint.open(source)
    text = str(error.value)
    assert "\n" not in text and "quantised" in text and all(word in text for word in words), text


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    tensors, said, words = REFUSED[name]
    path = folder(tmp_path / "model", {"norm.weight": np.ones(8, np.float32), **tensors}, said)
    refused(str(path), words, WAY_OUT, str(path))
    refused(str(path / "model.safetensors"), words)
    if said is None:
        items = {key: x.bits if isinstance(x, Raw) else np.asarray(x) for key, x in tensors.items()}
        if not any(isinstance(x, Raw) for x in tensors.values()):
            refused(items, words)
        first, *rest = tensors
        parts = [{first: tensors[first]}, {key: tensors[key] for key in rest} or {"x": ONE}]
        refused(str(shards(tmp_path / "shards", parts)), words)


@pytest.mark.parametrize("where", ["text_config", "compression_config", "quantization", "modelopt"])
def test_configs_that_say_it_elsewhere(where: str, tmp_path: Path) -> None:
    path = folder(tmp_path, {N + ".weight": byte(8, 8)})
    said = {
        "text_config": {"text_config": {"quantization_config": {"quant_method": "hqq"}}},
        "compression_config": {"compression_config": {"quant_method": "quark", "bits": 8}},
        "quantization": {"quantization": {"group_size": 64, "bits": 4}},
        "modelopt": {},
    }[where]
    (path / "config.json").write_text(json.dumps(said))
    if where == "modelopt":
        text = json.dumps({"quantization": {"quant_algo": "W4A8_AWQ"}})
        (path / "hf_quant_config.json").write_text(text)
    words = {"text_config": "HQQ", "compression_config": "Quark, 8 bits", "modelopt": "W4A8 AWQ"}
    refused(str(path), words.get(where, "MLX, 4 bits"))


def test_floating_point_that_is_said_to_be_quantised(tmp_path: Path) -> None:
    path = folder(tmp_path, {N + ".weight": bf16(normal(0, 8, 8))}, {"load_in_4bit": True})
    refused(str(path), "remove quantization_config from config.json")


@pytest.mark.parametrize("name", ["model.gguf", "model.bin", "weights.safetensors", "a"])
def test_gguf_by_its_first_bytes(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"GGUF" + bytes(100))
    refused(str(tmp_path / name), "GGUF", WAY_OUT)


def test_a_folder_of_gguf(tmp_path: Path) -> None:
    (tmp_path / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
    refused(str(tmp_path), "GGUF", "the model it was made from")


@pytest.mark.filterwarnings("ignore:torch.quantize")
def test_tensors_of_torch_that_are_quantised(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)
    refused({"w": tensor}, "`dequantize()`")
    codes = torch.zeros(8, 8, dtype=torch.int8)
    for name in ("x.bin", "x.pt"):
        torch.save({N + ".weight": codes, N + ".SCB": torch.ones(8)}, tmp_path / name)
        refused(str(tmp_path / name), "bitsandbytes, 8 bits")
    refused({N + ".weight": codes, N + ".SCB": torch.ones(8)}, "bitsandbytes, 8 bits")


# --- one without the other ---

CODE = Raw(codes(0, 8, 8), "F8_E4M3")
PACKED = {N + ".weight_packed": ints(8, 1), N + ".weight_scale": np.ones((8, 1), np.float32)}
BROKEN: dict[str, tuple[dict[str, Any], Any, str]] = {
    "codes without a scale, by the config": (
        {N + ".weight": CODE},
        {"quant_method": "fp8"},
        N + ".weight_scale_inv' which",
    ),
    "codes without a scale, where others have one": (
        {N + ".weight": CODE, "a.weight": CODE, "a.scale_weight": ONE},
        None,
        N + ".scale_weight",
    ),
    "a scale without codes": ({N + ".weight_scale_inv": ONE}, None, "that are not there"),
    "a scale of floats": (
        {N + ".weight": bf16(np.ones((2, 2))), N + ".weight_scale_inv": ONE},
        None,
        "that are not there",
    ),
    "a scale without codes, where others have them": (
        {N + ".weight_scale": ONE, "a.weight": CODE, "a.weight_scale": ONE},
        None,
        N + ".weight_scale",
    ),
    "blocks without scales": ({N + "_blocks": byte(2, 3, 1, 16)}, None, N + "_scales"),
    "scales without blocks": ({N + "_scales": byte(2, 3, 1)}, None, "that are not there"),
    "words without a shape": (PACKED, None, N + ".weight_shape"),
    "words without a scale": ({N + ".weight_packed": ints(8, 1)}, None, N + ".weight_scale"),
    "integers without a scale": (
        {N + ".weight": ints(8, 8, dtype=np.int8)},
        {"quant_method": "compressed-tensors", "format": "int-quantized"},
        N + ".weight_scale",
    ),
    "a shape that is none": (
        PACKED | {N + ".weight_shape": np.array([8])},
        None,
        "cannot be its shape",
    ),
    "a scale of another shape": (
        {N + ".weight": CODE, N + ".weight_scale_inv": np.ones((3, 5), np.float32)},
        None,
        "does not fit",
    ),
    "blocks that no config tells the size of": (  # 128, cut off at the end, or 100
        {
            N + ".weight": Raw(codes(0, 8, 200), "F8_E4M3"),
            N + ".weight_scale": np.ones((8, 2), np.float32),
        },
        None,
        "config.json",
    ),
    "codes whose scale is nowhere": (
        {N + ".weight": Raw(np.full((32, 32), 0x70, np.uint8), "F8_E4M3")},
        None,
        N + ".weight_scale_inv",
    ),
    "the same twice": (
        {
            N + ".weight": bf16(np.ones((8, 8))),
            **PACKED,
            N + ".weight_shape": np.array([8, 8]),
        },
        None,
        "Remove one of them",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_without_the_other(name: str, tmp_path: Path) -> None:
    tensors, said, words = BROKEN[name]
    path = folder(tmp_path, tensors | {"norm.weight": np.ones(8, np.float32)}, said)
    refused(str(path), words.split("' which")[0])


def test_integers_that_differ_and_are_called_weights_are_codes() -> None:
    """Their scale may be nowhere: no merged model would be right. Equal ones are copied."""
    base = {N + ".weight": ints(8, 8, dtype=np.int8), "norm.weight": normal(0, 8)}
    models = [base | {"norm.weight": normal(1, 8)}, base | {N + ".weight": base[N + ".weight"] + 1}]
    assert (breadcrumbs.merge(base, models[:1])[N + ".weight"] == base[N + ".weight"]).all()
    with pytest.raises(MismatchError, match="quantised weights, in an unknown layout"):
        breadcrumbs.merge(base, models)
    kept = breadcrumbs.merge(base, models, exclude=[N + ".weight"])
    assert (kept[N + ".weight"] == base[N + ".weight"]).all()


def test_nothing_is_packed_or_compressed(tmp_path: Path) -> None:
    """Task files and archives give back a model bit for bit, which codes would have to be."""
    quantised = {N + ".weight": CODE, N + ".weight_scale_inv": np.ones((1, 1), np.float32)}
    base = folder(tmp_path / "base", quantised)
    other = Raw(codes(1, 8, 8), "F8_E4M3")
    model = folder(tmp_path / "model", quantised | {N + ".weight": other})
    wide = save(tmp_path / "wide.safetensors", {N + ".weight": bf16(normal(0, 8, 8))})
    for pair in ((base, model), (base, wide), (wide, model)):
        with pytest.raises(BreadcrumbsError, match=r"has quantised weights .* a task file needs"):
            packing.pack(*pair, tmp_path / "t.safetensors")
        with pytest.raises(BreadcrumbsError, match=r"has quantised weights .* an archive needs"):
            breadcrumbs.compress(pair[0], [pair[1]], tmp_path / "a.safetensors")
    match = r"has quantised weights .* a task file needs"
    with (
        Store.create(tmp_path / "store", base) as store,
        pytest.raises(BreadcrumbsError, match=match),
    ):
        store.add("x", model)
