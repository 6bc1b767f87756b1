"""Arrays that are in memory already, as a checkpoint: NumPy arrays or Torch tensors.

Nothing is copied when the checkpoint is made. Arrays and CPU tensors are read through a view, so a
change to them shows; a tensor on another device is moved piece by piece as it is read. Torch is
recognised without importing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.tensors import (
    DTYPES,
    NAMES,
    Bytes,
    Checkpoint,
    Tensor,
    check_name,
    shown,
)
from breadcrumbs.errors import CheckpointError

#: Torch's names of `DTYPES`.
_TORCH = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "complex64": "C64",
    "float8_e8m0fnu": "F8_E8M0",
    "float4_e2m1fn_x2": "F4",
}


#: Torch's dtypes of codes that bear their scales.
_QUANTISED = {"torch.qint8", "torch.quint8", "torch.qint32", "torch.quint4x2", "torch.quint2x4"}
#: Libraries whose tensors are codes with scales.
_QUANTISERS = {"bitsandbytes", "torchao", "optimum", "quanto", "hqq", "gptqmodel", "auto_gptq"}


def open_mapping(mapping: Mapping[Any, Any], label: str) -> Checkpoint:
    """Return a checkpoint of the arrays in ``mapping``.

    label: how messages call it. Raises CheckpointError for a value that is neither a NumPy array
    nor a strided Torch tensor, for a dtype not in `DTYPES`, and for an empty mapping.
    """
    if not mapping:
        raise CheckpointError(f"{label}: holds no tensors.")
    tensors = {name: _tensor(name, mapping[name], label) for name in mapping}
    said = getattr(mapping, "metadata", None)
    return Checkpoint(label, tensors, metadata=said if isinstance(said, Mapping) else {})


def is_torch(value: object) -> bool:
    """Whether ``value`` is a Torch tensor or parameter."""
    kind = type(value)
    return kind.__module__.split(".")[0] == "torch" and kind.__name__ in (
        "Tensor",
        "Parameter",
        "Buffer",
    )


@dataclass(frozen=True, slots=True)
class ArrayBytes:
    """The bytes of a NumPy array, of any strides, in C order."""

    array: np.ndarray

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the array's bytes from ``start`` on."""
        if self.array.flags.c_contiguous:
            flat = self.array.reshape(-1).view(np.uint8)
            np.frombuffer(out, np.uint8)[:] = flat[start : start + len(out)]
        else:
            first, last, skip = _items(start, len(out), self.array.itemsize)
            flat = self.array.flat[first:last].view(np.uint8)
            np.frombuffer(out, np.uint8)[:] = flat[skip : skip + len(out)]


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """The bytes of a Torch tensor that is not in this machine's main memory."""

    tensor: Any

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the tensor's bytes from ``start`` on, moving no others."""
        first, last, skip = _items(start, len(out), self.tensor.element_size())
        piece = self.tensor.reshape(-1)[first:last].cpu()
        ArrayBytes(_array(piece)).read_into(skip, out)


def _items(start: int, nbytes: int, itemsize: int) -> tuple[int, int, int]:
    """Return the items ``[first, last)`` that hold the bytes, and the bytes to skip in them."""
    return start // itemsize, -(-(start + nbytes) // itemsize), start % itemsize


def _tensor(name: object, value: Any, label: str) -> Tensor:
    name = check_name(name, label)
    where = f"{label}: {shown(name)}"
    if is_torch(value):
        return _from_torch(name, value, where)
    if type(value) not in (np.ndarray, np.memmap):
        library = type(value).__module__.partition(".")[0]
        if library in _QUANTISERS:
            raise CheckpointError(
                f"{where} is quantised (a {type(value).__name__} of {library}), which cannot be"
                " merged. Give the model it was made from."
            )
        if isinstance(value, Mapping):
            raise CheckpointError(
                f"{where} is a mapping itself. Give the one that has the tensors, such as what lies"
                f" under [{shown(name)}]."
            )
        raise CheckpointError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}. "
            "Give a NumPy array or a Torch tensor."
        )
    if value.dtype.byteorder == ">":
        raise CheckpointError(
            f"{where} is big-endian ({value.dtype.str}). Give `array.astype({value.dtype.name!r})`."
        )
    dtype = NAMES.get(value.dtype)
    if dtype is None:
        raise _unsupported(where, value.dtype)
    return Tensor(name, dtype, value.shape, ArrayBytes(value))


def _from_torch(name: str, value: Any, where: str) -> Tensor:
    if value.is_nested:
        raise CheckpointError(
            f"{where} is a nested tensor, of parts of several shapes. Give its parts, or leave it"
            " out."
        )
    value = value.detach()
    if value.is_quantized:
        raise CheckpointError(
            f"{where} has dtype {value.dtype}, quantised by Torch, which is not supported. Give the"
            " model it was made from, or its `dequantize()`."
        )
    dtype = _TORCH.get(str(value.dtype).removeprefix("torch."))
    if dtype is None:
        raise _unsupported(where, value.dtype)
    if str(value.layout) != "torch.strided" or value.device.type == "meta":
        kind = "a tensor without data" if value.device.type == "meta" else f"{value.layout}"
        raise CheckpointError(f"{where} is {kind}. Give a dense tensor with its data.")
    shape = tuple(int(length) for length in value.shape)
    if dtype == "F4" and shape:  # Torch counts pairs
        shape = (*shape[:-1], 2 * shape[-1])
    on_cpu = value.device.type == "cpu"
    source: Bytes = ArrayBytes(_array(value)) if on_cpu else DeviceBytes(value)
    return Tensor(name, dtype, shape, source)


def _array(tensor: Any) -> np.ndarray:
    """Return a CPU tensor as an array on the same memory; NumPy's own bfloat16 has no way there."""
    import torch

    dtype = DTYPES[_TORCH[str(tensor.dtype).removeprefix("torch.")]]
    tensor = tensor.resolve_neg().resolve_conj()  # views that are not what their memory says
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(dtype)
    if tensor.element_size() == 1:
        return tensor.view(torch.uint8).numpy().view(dtype)
    return tensor.numpy()


def _unsupported(where: str, dtype: object) -> CheckpointError:
    if str(dtype) in _QUANTISED:
        return CheckpointError(f"{where} is quantised ({dtype}). Give `tensor.dequantize()`.")
    return CheckpointError(
        f"{where} has dtype {dtype}, which is not supported. Supported: {', '.join(DTYPES)}."
    )
