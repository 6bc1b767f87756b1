"""Quantised checkpoints for tests, and what they stand for, from the definitions alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

E4M3 = np.array(
    [
        (-1) ** (i >> 7)
        * (
            (i & 7) / 8 * 2.0**-6
            if not (i >> 3) & 15
            else (1 + (i & 7) / 8) * 2.0 ** (((i >> 3) & 15) - 7)
        )
        if i & 127 != 127
        else np.nan
        for i in range(256)
    ],
    np.float32,
)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32",
    "int8": "I8", "uint8": "U8", "uint32": "U32", "bool": "BOOL",
}  # fmt: skip


class Raw:
    """Bits that a file calls something else: ``Raw(array, "BF16")``. shape: if not the array's."""

    def __init__(self, bits: Any, dtype: str, shape: tuple[int, ...] | None = None):
        self.bits, self.dtype = np.ascontiguousarray(bits), dtype
        self.shape = tuple(np.shape(bits)) if shape is None else shape


def bf16(values: Any) -> Raw:
    bits = np.asarray(values, np.float32).view(np.uint32)
    return Raw(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16), "BF16")


def widened(raw: Raw) -> np.ndarray:
    """Return what a scale says, as float32: bfloat16 or a power of two."""
    if raw.dtype == "BF16":
        return (raw.bits.astype(np.uint32) << 16).view(np.float32)
    return np.ldexp(np.float32(1), raw.bits.astype(np.int32) - 127).astype(np.float32)


def fp8(values: Any, dtype: str = "F8_E4M3") -> Raw:
    """Return the nearest codes of values within +-448."""
    values = np.asarray(values, np.float32)
    near = np.abs(E4M3[:127] - np.abs(values).reshape(-1, 1)).argmin(1)
    codes = near + 128 * np.signbit(values).reshape(-1)
    return Raw(codes.astype(np.uint8).reshape(values.shape), dtype)


def codes(seed: int, *shape: int) -> np.ndarray:
    """Return any codes of E4M3 but those of NaN."""
    drawn = np.random.default_rng(seed).integers(0, 254, shape).astype(np.uint8)
    return np.where(drawn >= 127, drawn + 1, drawn).astype(np.uint8)


def blocked(code: np.ndarray, scale: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Return what codes and scales of blocks stand for, block by block."""
    result = np.empty(code.shape, np.float32)
    for place in np.ndindex(*code.shape[:-2]):
        for i in range(scale.shape[-2]):
            for j in range(scale.shape[-1]):
                rows = slice(i * block[0], (i + 1) * block[0])
                columns = slice(j * block[1], (j + 1) * block[1])
                mine = E4M3[code[place][rows, columns]].astype(np.float64)
                result[place][rows, columns] = mine * float(scale[place][i, j])
    return result


def halves(values: np.ndarray) -> np.ndarray:
    """Return codes of 4 bits two in a byte, the first one low."""
    return (values[..., ::2] | values[..., 1::2] << 4).astype(np.uint8)


def save(path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> Path:
    head: dict[str, Any] = {"__metadata__": metadata or {"format": "pt"}}
    parts, at = [], 0
    for name, x in tensors.items():
        raw = x if isinstance(x, Raw) else Raw(x, DTYPES[np.asarray(x).dtype.name], np.shape(x))
        data = raw.bits.tobytes()
        end = at + len(data)
        head[name] = {"dtype": raw.dtype, "shape": list(raw.shape), "data_offsets": [at, end]}
        at = end
        parts.append(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    return path


def folder(path: Path, tensors: dict[str, Any], quantised: Any = None, **config: Any) -> Path:
    """Write a model's folder. quantised: what its config says of that."""
    said = {"model_type": "llama", **config}
    if quantised is not None:
        said["quantization_config"] = quantised
    save(path / "model.safetensors", tensors)
    (path / "config.json").write_text(json.dumps(said))
    return path


def shards(path: Path, parts: list[dict[str, Any]], quantised: Any = None) -> Path:
    """Write a model's folder of several files and their index."""
    names = [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        save(path / name, part)
    where = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (path / "config.json").write_text(json.dumps({"quantization_config": quantised}))
    return path


def raw(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return dtype, shape and bytes of all that the files of an output hold."""
    found = {}
    for file in [path] if path.is_file() else sorted(path.glob("*.safetensors")):
        data = file.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        head = json.loads(data[8:start])
        head.pop("__metadata__", None)
        for name, said in head.items():
            begin, end = said["data_offsets"]
            mine = data[start + begin : start + end]
            found[name] = said["dtype"], tuple(said["shape"]), mine
    return found


def normal(seed: int, *shape: int, scale: float = 0.05) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return (drawn * scale).astype(np.float32)


def quantised(values: np.ndarray, block: tuple[int, int] = (128, 128)) -> tuple[Raw, np.ndarray]:
    """Return codes and scales of values, block by block, with the largest at 448."""
    rows, columns = values.shape
    scale = np.ones((-(-rows // block[0]), -(-columns // block[1])), np.float32)
    code = np.zeros(values.shape, np.uint8)
    for i, j in np.ndindex(scale.shape):
        part = (
            slice(i * block[0], (i + 1) * block[0]),
            slice(j * block[1], (j + 1) * block[1]),
        )
        scale[i, j] = max(np.abs(values[part]).max(), 1e-9) / 448
        code[part] = fp8(values[part] / scale[i, j]).bits
    return Raw(code, "F8_E4M3"), scale
