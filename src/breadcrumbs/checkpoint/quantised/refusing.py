"""Layouts of quantised weights that are not read, by what configs and tensors are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from breadcrumbs.checkpoint.files import File
from breadcrumbs.checkpoint.quantised.config import Said
from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.errors import CheckpointError

#: What methods are called, by their names in configs.
_NAMES = {
    "bitsandbytes": "bitsandbytes", "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes", "gptq": "GPTQ", "awq": "AWQ", "aqlm": "AQLM",
    "vptq": "VPTQ", "quanto": "quanto", "eetq": "EETQ", "higgs": "HIGGS", "hqq": "HQQ",
    "torchao": "torchao", "gguf": "GGUF", "bitnet": "BitNet", "spqr": "SpQR", "quark": "Quark",
    "fp_quant": "FP-Quant", "auto-round": "AutoRound", "nvfp4": "NVFP4", "mlx": "MLX",
    "unknown": "by an unnamed method",
}  # fmt: skip
#: Methods whose layouts are read, where the tensors are as they should be.
_READ = {"fp8", "fbgemm_fp8", "compressed-tensors", "mxfp4", "mxfp8", "modelopt"}
#: What Model Optimizer calls the layouts of its that are read; empty: only the cache is quantised.
_MODELOPT = {"", "NONE", "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO"}
#: Layouts of compressed-tensors that are not.
_FORMATS = ("nvfp4", "mxfp6", "marlin", "sparse")
_WIDE = ("F64", "F32", "F16", "BF16")
_WORDS = ("U32", "I32", "U8", "I8", "I16", "U16")
#: Names of scales beside a ``weight`` that other rules, or those that read them, know.
_SCALES = (
    "scale", "scales", "weight_scale", "weight_scales", "weight_scale_inv", "weight_scale_2",
    "scale_weight", "qscale_weight",
)  # fmt: skip
_UNKNOWN = "in an unknown layout"


def refused(label: str, what: str) -> CheckpointError:
    """Return the error for weights that are quantised in a way that is not read."""
    return CheckpointError(
        f"{label}: its weights are quantised ({what}), which cannot be merged. Give the"
        " unquantised model."
    )


def check(label: str, tensors: Mapping[str, Tensor], said: Said | None) -> None:
    """Raise CheckpointError if config or names of tensors tell of a layout that is not read."""
    found = _by_names(tensors)
    if found:
        method, bits = found
        if said is not None and said.method not in (*_READ, "unknown"):
            method, bits = _NAMES.get(said.method, said.method), said.bits or bits
        raise refused(label, f"{method}, {bits} bits" if bits else method)
    if said is None:
        return
    what = _NAMES.get(said.method, said.method)
    if said.method == "modelopt" and said.format not in _MODELOPT:
        what = said.format.replace("_", " ")
    elif said.method == "compressed-tensors" and (said.sparse or said.format.startswith(_FORMATS)):
        nvidia = said.format.startswith("nvfp4")
        what = "NVFP4" if nvidia else f"compressed-tensors, {said.format or 'sparse'}"
    elif said.method in _READ:
        return
    if said.bits:
        what += f", {said.bits} bits"
    if _is_plain(tensors):
        raise CheckpointError(
            f"{label}: its config.json says that its weights are quantised ({what}), but all are in"
            " floating point. If that is right, remove quantization_config from config.json."
        )
    raise refused(label, what)


def check_file(path: Path) -> None:
    """Raise CheckpointError if a file is GGUF, whatever it is called."""
    with File(path) as file:
        if file.size >= 4 and file.read(0, 4) == b"GGUF":
            raise CheckpointError(
                f"{path}: is a GGUF file, the format of llama.cpp for quantised weights, which"
                " cannot be merged. Give the unquantised model."
            )


def _is_plain(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether no tensor can be codes."""
    return not any(
        len(tensor.shape) > 1 and tensor.dtype not in (*_WIDE, "BOOL", "I64", "C64")
        for tensor in tensors.values()
    )


def _by_names(tensors: Mapping[str, Tensor]) -> tuple[str, int | None] | None:
    """Return the method that names of tensors tell of, and its bits as far as shapes do."""
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        start = stem + "." if stem else ""
        if leaf == "qweight" and tensor.dtype in _WORDS:
            return _groups(tensors, start)
        find = _BY_LEAF.get(leaf)
        if find is not None and (found := find(tensors, start, tensor)) is not None:
            return found
        if "scale" in leaf and _is_unknown_scale(tensors, start, leaf):
            return _UNKNOWN, None
        if ".quant_state." in name or (leaf == "absmax" and _is_absmax(tensors, start)):
            return "bitsandbytes", 4
    return None


def _groups(tensors: Mapping[str, Tensor], start: str) -> tuple[str, int | None]:
    """Return which of GPTQ, AWQ, EETQ and HIGGS it is, whose tensors are called alike."""
    codes, zeros = tensors[start + "qweight"], tensors.get(start + "qzeros")
    if codes.dtype == "I8":
        return "EETQ", 8
    if start + "tables" in tensors or start + "tables2" in tensors:
        return "HIGGS", None
    scales = tensors.get(start + "scales")
    if scales is None or len(scales.shape) != 2 or len(codes.shape) != 2:
        return "GPTQ or AWQ", None
    outputs, bits = scales.shape[1], None
    if zeros is not None and len(zeros.shape) == 2 and outputs:
        bits = 32 * zeros.shape[1] // outputs
    indexed = start + "g_idx" in tensors
    return "GPTQ" if indexed or codes.shape[1] == outputs else "AWQ", bits


def _is_absmax(tensors: Mapping[str, Tensor], start: str) -> bool:
    """Return whether ``absmax`` is beside a table of values, or of a tensor of bytes."""
    code = tensors.get(start[:-1])
    return start + "quant_map" in tensors or (code is not None and code.dtype in _WORDS)


def _eight_bits(tensors: Mapping[str, Tensor], start: str, tensor: Tensor) -> tuple[str, int]:
    return "bitsandbytes", 8


def _mlx(tensors: Mapping[str, Tensor], start: str, tensor: Tensor) -> tuple[str, None] | None:
    """``scales`` of a ``weight`` of words, with ``biases`` or without; or of something else."""
    weight = tensors.get(start + "weight")
    if weight is None or weight.dtype in _WIDE or len(weight.shape) < 2:
        return None
    if weight.dtype == "U32":
        return "MLX", None
    return (_UNKNOWN, None) if weight.dtype in _WORDS else None


def _is_unknown_scale(tensors: Mapping[str, Tensor], start: str, leaf: str) -> bool:
    """Return whether a scale that is not known is beside a ``weight`` of integers, and no other."""
    weight = tensors.get(start + "weight")
    if weight is None or weight.dtype not in _WORDS or len(weight.shape) < 2:
        return False
    return not any(start + known in tensors for known in _SCALES)


def _one_scale(
    tensors: Mapping[str, Tensor], start: str, tensor: Tensor
) -> tuple[str, None] | None:
    """``scale`` of a ``weight`` of integers, unless it is powers of two (DeepSeek's FP4)."""
    weight = tensors.get(start + "weight")
    if weight is None or weight.dtype not in _WORDS or len(weight.shape) < 2:
        return None
    return None if tensor.dtype == "F8_E8M0" else (_UNKNOWN, None)


def _nvfp4(tensors: Mapping[str, Tensor], start: str, tensor: Tensor) -> tuple[str, int] | None:
    names = (start + "weight", start + "weight_packed")
    found = [tensors[name].dtype for name in names if name in tensors]
    return ("NVFP4", 4) if any(dtype not in _WIDE for dtype in found) else None


def _pair(method: str, bits: int | None, *others: str):
    """Return a rule: the method, where all other tensors of those names are there too."""

    def find(tensors: Mapping[str, Tensor], start: str, tensor: Tensor):
        return (method, bits) if all(start + other in tensors for other in others) else None

    return find


def _of_integers(method: str, bits: int | None, code: str):
    """Return a rule: the method, where the tensor ``code`` is integers."""

    def find(tensors: Mapping[str, Tensor], start: str, tensor: Tensor):
        weight = tensors.get(start + code)
        return (method, bits) if weight is not None and weight.dtype in _WORDS else None

    return find


#: By the last part of a name, what finds out whether it tells of a method.
_BY_LEAF = {
    "SCB": _eight_bits,
    "scales": _mlx,
    "W_q": _pair("HQQ", None),
    "codebooks": _pair("AQLM", None, "codes", "scales"),
    "indices": _pair("VPTQ", None, "centroids.weight"),
    "dense_weights": _pair("SpQR", None, "row_offsets", "col_vals"),
    "s": _of_integers("Marlin", 4, "B"),
    "weight_scales": _of_integers("EETQ", 8, "weight"),
    "_data": _pair("quanto", None, "_scale"),
    "_weight_qdata": _pair("torchao", None),
    "weight_qdata": _pair("torchao", None),
    "weight_scale_2": _nvfp4,
    "weight_global_scale": _nvfp4,
    "scale": _one_scale,
    "zero_point": _of_integers(_UNKNOWN, None, "weight"),
    "zeros": _of_integers(_UNKNOWN, None, "weight"),
}
