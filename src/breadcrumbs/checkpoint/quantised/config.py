"""What files beside the weights say of how these are quantised, and those files without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "config.json"
#: Of NVIDIA's Model Optimizer.
MODELOPT = "hf_quant_config.json"
#: Files that say how the weights beside them are quantised, and nothing else.
SIDE = (MODELOPT, "quantize_config.json", "quant_config.json")
#: Keys of configs under which it is said.
KEYS = ("quantization_config", "compression_config")
_LARGEST = 32 << 20
_BITS = ("bits", "num_bits", "nbits", "w_bit", "wbits")


@dataclass(frozen=True)
class Said:
    """What is said: the method, in small letters; bits of a weight; rows and columns of a block.

    group: columns of a group. format: how compressed-tensors or Model Optimizer call the layout.
    sparse: whether zeros are left out besides.
    """

    method: str
    bits: int | None = None
    block: tuple[int, int] | None = None
    group: int | None = None
    format: str = ""
    sparse: bool = False


def read(folder: Path | None) -> Said | None:
    """Return what is said in a folder; None if nothing."""
    if folder is None:
        return None
    found = next(_stated(_parsed(folder / CONFIG)), None)
    if found is not None:
        return _said(found)
    other = _parsed(folder / MODELOPT).get("quantization")
    return _modelopt(other) if isinstance(other, dict) else None


def without(text: bytes) -> bytes:
    """Return the text of a config without what it says of quantisation; the same if nothing."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return (json.dumps(data, indent=2) + "\n").encode() if _remove(data) else text


def strip(config: Path) -> None:
    """Take what a config says of quantisation out of it, if it says anything."""
    before = config.read_bytes()
    after = without(before)
    if after != before:
        config.write_bytes(after)


def _parsed(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is none."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return {}
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _stated(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a config, and the configs in it, say of quantisation."""
    for key in KEYS:
        if isinstance(data.get(key), dict) and data[key]:
            yield data[key]
    mlx = data.get("quantization")
    if isinstance(mlx, dict) and "bits" in mlx:
        yield {"quant_method": "mlx", **mlx}
    for key, value in data.items():
        if isinstance(value, dict) and key not in (*KEYS, "quantization"):
            yield from _stated(value)


def _remove(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    found = [key for key in KEYS if key in data]
    for key in found:
        del data[key]
    return any([_remove(value) for value in data.values()]) or bool(found)


def _said(stated: dict[str, Any]) -> Said:
    method = str(stated.get("quant_method") or _by_keys(stated)).lower()
    if method == "modelopt":
        return _modelopt(stated)
    weights = _weights(stated)
    bits = next((v for d in (stated, weights) for k in _BITS if _whole(v := d.get(k))), None)
    for key in ("load_in_4bit", "load_in_8bit"):
        if stated.get(key) is True or stated.get(f"_{key}") is True:
            bits = 4 if "4" in key else 8
    sparsity = stated.get("sparsity_config")
    dense = not isinstance(sparsity, dict) or sparsity.get("format", "dense") == "dense"
    block = stated.get("weight_block_size") or weights.get("block_structure")
    group = next((n for d in (stated, weights) if _whole(n := d.get("group_size"))), None)
    group = group if group and group > 0 else None
    return Said(method, bits, _block(block), group, str(stated.get("format") or ""), not dense)


def _modelopt(stated: dict[str, Any]) -> Said:
    return Said("modelopt", format=str(stated.get("quant_algo") or "").upper())


def _by_keys(stated: dict[str, Any]) -> str:
    """Return the method that a config without a name of one means."""
    if "load_in_8bit" in stated or "load_in_4bit" in stated:
        return "bitsandbytes"
    if "config_groups" in stated:
        return "compressed-tensors"
    return "mlx" if "group_size" in stated and "bits" in stated else "unknown"


def _weights(stated: dict[str, Any]) -> dict[str, Any]:
    """Return what compressed-tensors says of the weights of its first group."""
    groups = stated.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        if isinstance(group, dict) and isinstance(group.get("weights"), dict):
            return group["weights"]
    return {}


def _block(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(_whole(n) and n > 0 for n in value):
        return value[0], value[1]
    return None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
