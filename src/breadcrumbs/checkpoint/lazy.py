"""A model's tensors for Python: a mapping that reads what is asked for, and nothing else."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

import numpy as np

from breadcrumbs.checkpoint import like, notebook
from breadcrumbs.checkpoint.tensors import DTYPES, SUBBYTE, Checkpoint, Tensor
from breadcrumbs.errors import CheckpointError, counted, listing, suggestion

if TYPE_CHECKING:
    import pandas

#: What a tensor is read as.
Array = TypeVar("Array", bound=Any)
Kind = Literal["numpy", "torch"]


class UnknownTensorError(CheckpointError, KeyError):
    """A model has no tensor of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Weights(Mapping[str, Array], Generic[Array]):
    """The named tensors of a model, not yet read. A context manager, which closes the files.

    ``weights["name"]`` is the whole tensor, ``weights["name", 10:20]`` its rows 10 to 19, of which
    no other bytes are read; more indices are as NumPy's. `shapes` and `dtypes` read nothing.

    checkpoint: where the tensors are. as_: ``numpy`` arrays, or ``torch`` tensors (on the CPU).
    """

    def __init__(self, checkpoint: Checkpoint, as_: Kind = "numpy"):
        self.checkpoint = checkpoint
        self.as_ = like.check(as_)

    @property
    def label(self) -> str:
        """What messages call the model."""
        return self.checkpoint.label

    @property
    def metadata(self) -> Mapping[str, str]:
        """What a safetensors file says of itself."""
        return self.checkpoint.metadata

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {name: tensor.shape for name, tensor in self.checkpoint.tensors.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtype of each tensor, by NumPy's names (``float32``, ``bfloat16``)."""
        return {name: _dtype(tensor) for name, tensor in self.checkpoint.tensors.items()}

    @property
    def size(self) -> int:
        """The number of entries of all tensors."""
        return sum(tensor.size for tensor in self.checkpoint.tensors.values())

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.checkpoint.tensors.values())

    @overload
    def __getitem__(self, key: str) -> Array: ...
    @overload
    def __getitem__(self, key: tuple[Any, ...]) -> Array: ...
    def __getitem__(self, key: Any) -> Array:
        name, *index = key if isinstance(key, tuple) and key else (key,)
        tensor = self.checkpoint.tensors.get(name) if isinstance(name, str) else None
        if tensor is None:
            known = list(self.checkpoint.tensors)
            raise UnknownTensorError(
                f"{self.label}: has no tensor {name!r}.{suggestion(str(name), known)} It has"
                f" {listing(known, 3)}."
            )
        array: Any = _part(tensor, index) if index else tensor.read()
        return like.torch_of(array) if self.as_ == "torch" else array

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoint.tensors)

    def __len__(self) -> int:
        return len(self.checkpoint.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.checkpoint.tensors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; nothing can be read after that."""
        self.checkpoint.close()

    def __repr__(self) -> str:
        found = ", ".join(dict.fromkeys(self.dtypes.values()))
        tensors = counted(len(self), "tensor")
        return f"<Weights of {self.label}: {tensors}, {self.size:,} entries, {found}>"

    def to_frame(self) -> pandas.DataFrame:
        """Return `rows` as a frame of pandas."""
        return notebook.frame(self.rows())

    def _repr_html_(self) -> str:
        return notebook.table(self.label, self.rows(), {"entries": self.size})

    def rows(self) -> list[dict[str, Any]]:
        """Return of each tensor its name, dtype, shape and bytes, as plain data."""
        return [
            {"tensor": name, "dtype": _dtype(it), "shape": it.shape, "bytes": it.nbytes}
            for name, it in self.checkpoint.tensors.items()
        ]


def _dtype(tensor: Tensor) -> str:
    return tensor.dtype.lower() if tensor.dtype in SUBBYTE else DTYPES[tensor.dtype].name


def _part(tensor: Tensor, index: list[Any]) -> np.ndarray:
    """Return what NumPy's index of the whole tensor is, reading the rows that it touches."""
    first, rest = index[0], tuple(index[1:])
    if not tensor.shape or tensor.dtype in SUBBYTE:
        return tensor.read()[tuple(index)]
    count, row = tensor.shape[0], math.prod(tensor.shape[1:])
    if isinstance(first, slice):
        rows = range(count)[first]
    elif hasattr(first, "__index__") and not isinstance(first, bool | np.ndarray):
        at = operator.index(first)
        if not -count <= at < count:
            raise IndexError(f"{tensor.name!r} has {count} rows, and no row {at}")
        rows = range(at % count, at % count + 1)
    else:
        return tensor.read()[tuple(index)]
    low, high = (min(rows[0], rows[-1]), max(rows[0], rows[-1]) + 1) if rows else (0, 0)
    flat = np.empty((high - low) * row, DTYPES[tensor.dtype])
    tensor.read_into(low * row, flat)
    found = flat.reshape(high - low, *tensor.shape[1:])
    if not isinstance(first, slice):
        return found[(0, *rest)]
    found = found[:: rows.step] if rows.step > 0 else found[::-1][:: -rows.step]
    return found[(slice(None), *rest)]
