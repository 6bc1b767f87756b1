"""Quantised weights as the tensors that they stand for: every layout that is read, exactly."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantised_files import (
    E2M1,
    E4M3,
    Raw,
    bf16,
    blocked,
    codes,
    folder,
    fp8,
    halves,
    normal,
    save,
    shards,
    widened,
)

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import hashing
from breadcrumbs.checkpoint.quantised import experts, sources
from breadcrumbs.errors import CheckpointError

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
N = "model.layers.0.mlp.up_proj.weight"


def same(found: Any, expected: np.ndarray) -> bool:
    """Whether an open tensor holds these float32, bit for bit but for the sign of a NaN."""
    a, b = np.asarray(found), np.asarray(expected, np.float32)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def ragged(tensor: checkpoint.Tensor, seed: int = 0) -> None:
    """Check that any range of bytes is that of the whole."""
    whole = tensor.read().tobytes()
    rng = np.random.default_rng(seed)
    for _ in range(60):
        start, stop = sorted(rng.integers(0, len(whole) + 1, 2))
        out = bytearray(int(stop - start))
        tensor.source.read_into(int(start), memoryview(out))
        assert out == whole[start:stop]


SCALES = {
    "float32": lambda x: x.astype(np.float32),
    "bfloat16": bf16,
    "powers of two": lambda x: Raw(
        np.clip(np.round(np.log2(x)) + 127, 0, 254).astype(np.uint8), "F8_E8M0"
    ),
}


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("shape", [(128, 128), (256, 384), (130, 300), (5, 7), (3, 140, 129)])
def test_blocks(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    code = codes(0, *shape)
    grid = (*shape[:-2], -(-shape[-2] // 128), -(-shape[-1] // 128))
    scale = SCALES[kind](np.abs(normal(1, *grid)) + 1e-3)
    value = widened(scale) if isinstance(scale, Raw) else scale
    folder(tmp_path, {N: Raw(code, "F8_E4M3"), N + "_scale_inv": scale}, FP8)
    with checkpoint.open(str(tmp_path)) as model:
        assert list(model) == [N] and model.tensors[N].dtype == "F32"
        assert same(model[N], blocked(code, value, (128, 128)))
        assert model.quantised == "1 quantised (FP8, blocks of 128 x 128)"
        assert model.tensors[N].stored == code.size + np.prod(grid) * (
            {"float32": 4, "bfloat16": 2}.get(kind, 1)
        )
        ragged(model.tensors[N])


def test_a_block_of_zeros_and_codes_that_are_no_numbers(tmp_path: Path) -> None:
    code = codes(2, 256, 256)
    code[:128, :128] = 0
    code[200, 200], code[3, 250] = 0x7F, 0xFF
    scale = np.abs(normal(3, 2, 2)) + 0.01
    folder(tmp_path, {N: Raw(code, "F8_E4M3"), N + "_scale_inv": scale}, FP8)
    found = checkpoint.open(str(tmp_path))[N]
    assert same(found, blocked(code, scale, (128, 128)))
    assert np.isnan(found[200, 200]) and np.isnan(found[3, 250]) and not found[:128, :128].any()


def test_blocks_of_another_size(tmp_path: Path) -> None:
    code, scale = codes(4, 96, 100), np.abs(normal(5, 3, 2)) + 0.01
    tensors = {N: Raw(code, "F8_E4M3"), N + "_scale_inv": scale}
    folder(tmp_path / "a", tensors, {**FP8, "weight_block_size": [32, 64]})
    assert same(checkpoint.open(str(tmp_path / "a"))[N], blocked(code, scale, (32, 64)))
    wide = {N: tensors[N], N + "_scale": scale.astype(np.float64) * np.pi}
    folder(tmp_path / "c", wide, {**FP8, "weight_block_size": [32, 64]})
    expected = blocked(code, wide[N + "_scale"], (32, 64))
    assert same(checkpoint.open(str(tmp_path / "c"))[N], expected)
    folder(tmp_path / "b", tensors, FP8)
    with pytest.raises(CheckpointError, match="does not fit for blocks of 128 x 128"):
        checkpoint.open(str(tmp_path / "b"))


def test_blocks_that_no_config_speaks_of(tmp_path: Path) -> None:
    """Powers of two that leave nothing over are meant; 200 columns of 2 scales may be of 100."""
    for rows, columns, block in ((64, 96, (32, 32)), (256, 128, (64, 128)), (6, 256, (1, 64))):
        shape = (rows // block[0], columns // block[1])
        code, scale = codes(4, rows, columns), np.abs(normal(5, *shape)) + 0.01
        path = save(tmp_path / "x.safetensors", {N: Raw(code, "F8_E4M3"), N + "_scale": scale})
        assert same(checkpoint.open(path)[N], blocked(code, scale, block))
    tensors = {N: Raw(codes(4, 8, 200), "F8_E4M3"), N + "_scale_inv": np.ones((8, 2), np.float32)}
    path = save(tmp_path / "y.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"does not fit. Put its own config\.json"):
        checkpoint.open(path)


def test_companions_in_another_shard(tmp_path: Path) -> None:
    code, scale = codes(6, 130, 20), np.abs(normal(7, 2, 1)) + 0.01
    norm = np.ones(20, np.float32)
    parts = [{N: Raw(code, "F8_E4M3")}, {"norm.weight": norm}, {N + "_scale_inv": scale}]
    shards(tmp_path, parts, FP8)
    with checkpoint.open(str(tmp_path)) as model:
        assert set(model) == {N, "norm.weight"} and len(model.files) == 3
        assert same(model[N], blocked(code, scale, (128, 128)))
    # without a config, by the names alone
    (tmp_path / "config.json").unlink()
    assert checkpoint.open(str(tmp_path)).quantised


@pytest.mark.parametrize("ending", ["_scale", "_scale_inv"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_scale_a_tensor(ending: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    code, scale = codes(8, 150, 9), np.full(shape, 0.0123, np.float32)
    beside = {
        N.replace("weight", "input_scale"): np.float32(3),
        "model.layers.0.self_attn.k_scale": np.float32(1),
    }
    folder(tmp_path, {N: Raw(code, "F8_E4M3"), N + ending: scale, **beside}, FP8)
    model = checkpoint.open(str(tmp_path))
    assert list(model) == [N] and [t.name for t in model.companions] == list(beside)
    assert same(model[N], E4M3[code] * np.float32(0.0123))
    ragged(model.tensors[N])


@pytest.mark.parametrize("shape", [(150, 1), (150,)])
@pytest.mark.parametrize("code", ["F8_E4M3", "I8"])
def test_a_scale_a_row(code: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    raw, scale = codes(9, 150, 9), bf16(np.abs(normal(10, *shape)) + 1e-3)
    values = E4M3[raw] if code == "F8_E4M3" else raw.view(np.int8).astype(np.float32)
    said = {
        "quant_method": "compressed-tensors", "format": "float-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "strategy": "channel"}}},
    }  # fmt: skip
    folder(tmp_path, {N: Raw(raw, code), N + "_scale": scale}, said)
    model = checkpoint.open(str(tmp_path))
    assert same(model[N], values * widened(scale).reshape(150, 1))
    assert "a scale a row" in model.quantised
    ragged(model.tensors[N])


def test_eight_bits_with_zero_points(tmp_path: Path) -> None:
    raw = codes(11, 6, 10).view(np.int8)
    scale, zero = np.abs(normal(12, 6, 1)) + 0.01, np.arange(-3, 3, dtype=np.int8).reshape(6, 1)
    tensors = {N: raw, N + "_scale": scale, N + "_zero_point": zero}
    folder(tmp_path, tensors, {"quant_method": "compressed-tensors"})
    model = checkpoint.open(str(tmp_path))
    assert list(model) == [N]
    assert same(model[N], (raw.astype(np.float32) - zero.astype(np.float32)) * scale)


def test_e5m2(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    code = values.to(torch.float8_e5m2)
    raw = Raw(code.view(torch.uint8).numpy(), "F8_E5M2")
    save(tmp_path / "x.safetensors", {N: raw, N + "_scale": np.float32(0.3)})
    model = checkpoint.open(tmp_path / "x.safetensors")
    assert same(model[N], (code.float() * np.float32(0.3)).numpy())


def test_comfyui(tmp_path: Path) -> None:
    code = codes(13, 12, 8)
    kernel = codes(14, 4, 3, 2, 2)
    tensors = {
        "a.weight": Raw(code, "F8_E4M3"), "a.scale_weight": np.float32(0.02),
        "a.scale_input": np.float32(1), "a.bias": np.ones(12, np.float16),
        "conv.weight": Raw(kernel, "F8_E4M3"), "conv.scale_weight": np.array([0.5], np.float32),
        "scaled_fp8": Raw(np.zeros(0, np.uint8), "F8_E4M3"),
    }  # fmt: skip
    save(tmp_path / "x.safetensors", tensors)
    model = checkpoint.open(tmp_path / "x.safetensors")
    assert list(model) == ["a.weight", "a.bias", "conv.weight"]
    assert same(model["a.weight"], E4M3[code] * np.float32(0.02))
    assert same(model["conv.weight"], E4M3[kernel] * np.float32(0.5))
    assert {t.name for t in model.companions} == {"a.scale_input", "scaled_fp8"}
    marker = {"model.scaled_fp8": Raw(np.zeros(2, np.uint8), "F8_E4M3")}  # of a whole checkpoint
    whole = {f"model.{name}": tensor for name, tensor in list(tensors.items())[:-1]}
    model = checkpoint.open(save(tmp_path / "y.safetensors", whole | marker))
    assert list(model) == ["model.a.weight", "model.a.bias", "model.conv.weight"]
    whole = {name: tensor for name, tensor in whole.items() if "scale" not in name}
    with pytest.raises(CheckpointError, match=r"holds quantised weights, but .* is missing"):
        checkpoint.open(save(tmp_path / "z.safetensors", whole | marker))


def mxfp4(seed: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (*shape, 16)).astype(np.uint8)
    return blocks, rng.integers(100, 140, shape).astype(np.uint8)


def banded(tensor: checkpoint.Tensor, held: int = 16) -> checkpoint.Tensor:
    """Return experts that are decoded in small bands."""
    assert isinstance(tensor.source, experts.Experts)
    return replace(tensor, source=replace(tensor.source, bands=experts.Bands(32 * 64, held)))


@pytest.mark.parametrize("shape", [(2, 6, 3), (1, 5, 1), (3, 300, 9), (2, 4096, 9)])
def test_experts_of_gpt_oss(shape: tuple[int, ...], tmp_path: Path) -> None:
    blocks, scales = mxfp4(15, *shape)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    bias = bf16(normal(16, shape[0], shape[1]))
    tensors = {name + "_blocks": blocks, name + "_scales": scales, name + "_bias": bias}
    folder(tmp_path, tensors, {"quant_method": "mxfp4"})
    model = checkpoint.open(str(tmp_path))
    assert list(model) == [name, name + "_bias"]
    nibbles = np.stack([blocks & 15, blocks >> 4], -1).reshape(*shape, 32)
    expected = E2M1[nibbles] * np.ldexp(np.float32(1), scales.astype(int) - 127)[..., None]
    expected = expected.reshape(shape[0], shape[1], -1).transpose(0, 2, 1)
    assert same(model[name], expected) and model.quantised == "1 quantised (MXFP4)"
    ragged(model.tensors[name])
    ragged(banded(model.tensors[name]))
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers.integrations.mxfp4")
    got = theirs.convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32
    )
    assert same(model[name], got.numpy())


def test_blocks_as_transformers_reads_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers.integrations.finegrained_fp8")
    code = torch.from_numpy(codes(17, 256, 384)).view(torch.float8_e4m3fn)
    scale = torch.rand(2, 3) + 0.01
    model = checkpoint.open({N: code, N + "_scale_inv": scale})
    found = theirs.Fp8Dequantize(None)._dequantize_one(code, scale, torch.float32)
    assert same(model[N], found.numpy())
    packed = torch.randint(-128, 127, (8, 48), dtype=torch.int8)
    powers = torch.randint(110, 130, (8, 3), dtype=torch.uint8).view(torch.float8_e8m0fnu)
    model = checkpoint.open({N: packed, N + "_scale_inv": powers})
    found = theirs.Fp8Dequantize(None)._dequantize_one(packed, powers, torch.float32)
    assert same(model[N], found.numpy())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape, group", [((6, 64), 32), ((5, 13), 13), ((4, 2), 2), ((3, 41), 8)])
def test_words(bits: int, shape: tuple[int, int], group: int, tmp_path: Path) -> None:
    low = 1 << (bits - 1)
    values = np.random.default_rng(18).integers(-low, low, shape).astype(np.int8)
    each = 32 // bits
    words = np.zeros((shape[0], -(-shape[1] // each)), np.uint32)
    for column in range(shape[1]):
        shifted = (values[:, column].astype(np.int64) + low) << (bits * (column % each))
        words[:, column // each] |= shifted.astype(np.uint32)
    scale = bf16(np.abs(normal(19, shape[0], -(-shape[1] // group))) + 0.01)
    tensors = {
        N + "_packed": words.view(np.int32),
        N + "_scale": scale,
        N + "_shape": np.array(shape, np.int64),
    }
    weights = {"num_bits": bits, "group_size": group, "symmetric": True, "type": "int"}
    said = {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": weights}},
    }  # fmt: skip
    folder(tmp_path, tensors, said)
    model = checkpoint.open(str(tmp_path))
    spread = np.repeat(widened(scale), group, axis=1)[:, : shape[1]]
    assert list(model) == [N] and same(model[N], values.astype(np.float32) * spread)
    ragged(model.tensors[N])
    helpers = pytest.importorskip("compressed_tensors.compressors")
    import torch

    theirs = helpers.pack_to_int32(torch.from_numpy(values), bits)
    assert np.array_equal(theirs.numpy(), words.view(np.int32))


def test_deepseek_v4(tmp_path: Path) -> None:
    """Experts of two FP4 in a byte, the rest FP8 in blocks; scales are called just that."""
    rng = np.random.default_rng(20)
    four = rng.integers(0, 16, (6, 64)).astype(np.uint8)
    powers = Raw(rng.integers(115, 125, (6, 2)).astype(np.uint8), "F8_E8M0")
    code, scale = codes(21, 130, 64), Raw(np.array([[120], [121]], np.uint8), "F8_E8M0")
    tensors = {
        "ffn.experts.0.w1.weight": halves(four).view(np.int8), "ffn.experts.0.w1.scale": powers,
        "attn.wq.weight": Raw(code, "F8_E4M3"), "attn.wq.scale": scale,
        "norm.weight": bf16(np.ones(64)),
    }  # fmt: skip
    folder(tmp_path, tensors, {**FP8, "scale_fmt": "ue8m0"}, expert_dtype="fp4")
    model = checkpoint.open(str(tmp_path))
    assert list(model) == ["ffn.experts.0.w1.weight", "attn.wq.weight", "norm.weight"]
    expected = E2M1[four] * np.repeat(widened(powers), 32, axis=1)
    assert same(model["ffn.experts.0.w1.weight"], expected)
    assert same(model["attn.wq.weight"], blocked(code, widened(scale), (128, 128)))


def test_four_bits_of_a_dtype_and_in_bytes(tmp_path: Path) -> None:
    four = np.random.default_rng(22).integers(0, 16, (3, 40)).astype(np.uint8)
    powers = np.array([[120, 127], [1, 130], [126, 128]], np.uint8)
    expected = E2M1[four] * np.repeat(np.ldexp(1.0, powers.astype(int) - 127), 32, 1)[:, :40]
    own = {N: Raw(halves(four), "F4", (3, 40)), N + "_scale": Raw(powers, "F8_E8M0")}
    save(tmp_path / "own.safetensors", own)
    save(tmp_path / "bytes.safetensors", {N + "_packed": halves(four), N + "_scale": powers})
    for name in ("own", "bytes"):
        model = checkpoint.open(tmp_path / f"{name}.safetensors")
        assert same(model[N], expected.astype(np.float32)) and "MXFP4" in model.quantised
        ragged(model.tensors[N])


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    blocks, scales = mxfp4(23, 2, 40, 6)
    code, scale = codes(24, 300, 200), np.abs(normal(25, 3, 2)) + 0.01
    tensors = {"x_blocks": blocks, "x_scales": scales, N: Raw(code, "F8_E4M3")}
    folder(tmp_path, {**tensors, N + "_scale_inv": scale}, FP8)
    model = checkpoint.open(str(tmp_path))
    whole = {name: model[name].tobytes() for name in model}
    tensors = {"x": banded(model.tensors["x"], held=2), N: model.tensors[N]}
    wrong = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            name = ["x", N][int(rng.integers(2))]
            start, stop = sorted(rng.integers(0, len(whole[name]), 2))
            out = bytearray(int(stop - start))
            tensors[name].source.read_into(int(start), memoryview(out))
            if out != whole[name][start:stop]:
                wrong.append(name)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 7), st.integers(1, 9), st.data())
def test_any_grid_and_any_range(rows: int, columns: int, down: int, across: int, data: Any) -> None:
    code = codes(rows, rows, columns)
    scale = np.abs(normal(1, -(-rows // down), -(-columns // across))) + 0.01
    opened = checkpoint.open({"c": code.view(np.int8), "s": scale})
    source = sources.Scaled(
        opened.tensors["c"],
        opened.tensors["s"],
        sources.one_byte("F8_E4M3", columns),
        sources.Grid(rows, columns, (down, across)),
        "",
    )
    expected = blocked(code, scale, (down, across)).reshape(-1)
    start = data.draw(st.integers(0, expected.size))
    stop = data.draw(st.integers(start, expected.size))
    out = np.empty(stop - start, np.float32)
    source.read_into(4 * start, out.view(np.uint8).data)
    assert np.array_equal(out, expected[start:stop])


def test_pieces_of_long_rows() -> None:
    columns = sources.PIECE + 517
    code, scale = codes(26, 3, columns), np.abs(normal(27, 1, -(-columns // 128))) + 0.01
    model = checkpoint.open({N: Raw(code, "").bits.view(_e4m3()), N + "_scale_inv": scale})
    assert same(model[N], blocked(code, scale, (128, 128)))
    ragged(model.tensors[N])


def _e4m3() -> Any:
    import ml_dtypes

    return ml_dtypes.float8_e4m3fn


# --- what is not quantised ---


def test_ordinary_models_stay_as_they_are(tmp_path: Path) -> None:
    tensors = {
        "norm.weight": np.ones(8, np.float32), "norm.weight_scale": np.ones(8, np.float32),
        "norm.scale": bf16(np.ones(8)), "logit_scale": np.float32(2.6),
        "layer_scale.scales": np.ones((2, 4), np.float16),
        "attn.weight": bf16(normal(0, 8, 8)), "attn.scale": np.float32(0.1),
        "attn.scales": np.ones(8, np.float32), "attn.biases": np.zeros(8, np.float32),
        "attn.weight_scale": np.ones((8, 1), np.float32),
        "position_ids": np.arange(8, dtype=np.int64), "position_ids_scale": np.float32(1),
        "vocab.table": np.arange(8, dtype=np.int32), "vocab.scale": np.float32(1),
        "quantizer.codebook": np.arange(8, dtype=np.int8).reshape(2, 4),
        "quantizer.scale": np.float32(1), "mask.weight": np.ones((2, 2), np.uint8),
        "num_blocks": np.array([3], np.uint8), "head.input_scale": np.float32(1),
        "lookup.weight": np.arange(4, dtype=np.int8), "lookup.scale": np.float32(1),
        "text_projection": Raw(np.full((4, 4), 40, np.uint8), "F8_E4M3"),  # beside logit_scale
        "proj.weight": Raw(np.full((4, 4), 40, np.uint8), "F8_E4M3"), "proj.bias": normal(1, 4),
        "window.relative_position_index": np.zeros((4, 4), np.int32),
        "window.scale": np.float32(1), "steps.count": np.ones((2, 2), np.int32),
    }  # fmt: skip
    path = save(tmp_path / "x.safetensors", tensors)
    model = checkpoint.open(path)
    assert list(model) == list(tensors) and not model.quantised
    assert all(not tensor.layout for tensor in model.tensors.values())


def test_float8_without_scales_is_float8(tmp_path: Path) -> None:
    code = codes(28, 8, 8)
    tensors = {"a.weight": Raw(code, "F8_E4M3"), "a.weight_scale": Raw(code[:, :1], "F8_E4M3")}
    tensors |= {"b.weight": Raw(code, "F8_E4M3"), "b.scale": Raw(code[0], "F8_E4M3")}
    model = checkpoint.open(save(tmp_path / "x.safetensors", tensors))
    assert list(model) == list(tensors) and not model.quantised
    assert {t.dtype for t in model.tensors.values()} == {"F8_E4M3"}


def test_a_config_that_outlived_its_codes(tmp_path: Path) -> None:
    path = folder(tmp_path, {N: bf16(normal(0, 8, 8))}, FP8)
    assert not checkpoint.open(str(path)).quantised


def test_the_hash_is_that_of_the_values(tmp_path: Path) -> None:
    code, scale = codes(29, 40, 30), np.abs(normal(30, 1, 1)) + 0.01
    path = folder(tmp_path / "q", {N: Raw(code, "F8_E4M3"), N + "_scale_inv": scale}, FP8)
    plain = save(tmp_path / "x.safetensors", {N: blocked(code, scale, (128, 128))})
    assert hashing.model_hash(path) == hashing.model_hash(plain)
    # And it is kept, by both codes and scales.
    keys = {hashing._key(checkpoint.open(str(path)), -1e9) for _ in range(2)}
    folder(path, {N: Raw(code, "F8_E4M3"), N + "_scale_inv": scale * 2}, FP8)
    keys.add(hashing._key(checkpoint.open(str(path)), -1e9))
    assert len(keys) == 2 and None not in keys
    assert fp8(E4M3[code]).bits.tobytes() == code.tobytes()  # the tests' own rounding
