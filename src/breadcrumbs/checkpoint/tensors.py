"""Named tensors: what every checkpoint is to the rest of the program.

A checkpoint is an ordered set of named tensors whose bytes can be read in ranges, from any thread.
Nothing above this module knows whether the bytes lie in a file, a pickle or an array in memory.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from breadcrumbs.checkpoint import kinds
from breadcrumbs.checkpoint.files import FileRange
from breadcrumbs.checkpoint.layout import Layout
from breadcrumbs.errors import CheckpointError

if sys.byteorder != "little":
    raise ImportError("breadcrumbs reads weights as they lie in files, which is little-endian")

#: Weights: the dtypes that are merged, by their name in the safetensors format.
WEIGHT_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
#: Dtypes whose entries are no whole bytes: bits of an entry. They are copied, as bytes.
SUBBYTE: dict[str, int] = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
#: All dtypes that can be read and copied. Those of `SUBBYTE` are bytes here.
DTYPES: dict[str, np.dtype] = WEIGHT_DTYPES | {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "C64": np.dtype(np.complex64),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    **dict.fromkeys(SUBBYTE, np.dtype(np.uint8)),
}
_BITS: dict[str, int] = {name: 8 * dtype.itemsize for name, dtype in DTYPES.items()} | SUBBYTE
NAMES: dict[np.dtype, str] = {dtype: name for name, dtype in DTYPES.items() if name not in SUBBYTE}


def bits(dtype: str) -> int:
    """Return how many bits an entry of a dtype takes."""
    return _BITS[dtype]


def items(dtype: str, n: int) -> int:
    """Return how many items of ``DTYPES[dtype]`` hold n entries: n, or fewer bytes."""
    return n * SUBBYTE[dtype] // 8 if dtype in SUBBYTE else n


def array_shape(dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an array that holds a tensor: its own, or that of the bytes of it.

    Bytes lie along the last axis where a row is whole bytes, and else along the only one.
    """
    if dtype not in SUBBYTE:
        return shape
    whole = bool(shape) and shape[-1] * SUBBYTE[dtype] % 8 == 0
    return (*shape[:-1], items(dtype, shape[-1])) if whole else (items(dtype, math.prod(shape)),)


class Bytes(Protocol):
    """Where the bytes of one tensor lie."""

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the tensor's bytes from ``start`` on; safe from any thread."""
        ...


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint, not yet read.

    name: its key. dtype: safetensors name, a key of `DTYPES`. shape: sizes, () for a scalar.
    source: where the bytes are, little-endian and C-contiguous. told: what it is, if values and not
    the name tell it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: Bytes = field(repr=False, compare=False)
    told: str = field(default="", repr=False, compare=False)

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * bits(self.dtype) // 8

    @property
    def stored(self) -> int:
        """Bytes that hold the tensor where it lies: fewer than its own if it is quantised."""
        return getattr(self.source, "stored", None) or self.nbytes

    @property
    def absent(self) -> int:
        """How many entries are in rows that the model does not have: its task vector is 0 there."""
        return getattr(self.source, "absent", 0)

    @property
    def layout(self) -> str:
        """What a quantised tensor is in its file, as ``FP8, blocks of 128 x 128``; or empty."""
        return getattr(self.source, "layout", "")

    @property
    def is_float(self) -> bool:
        """Whether the tensor holds floating-point numbers that can be computed with."""
        return self.dtype in WEIGHT_DTYPES

    @cached_property
    def kind(self) -> str:
        """What the tensor is (`checkpoint.kinds`)."""
        return self.told or kinds.of(self.name, self.shape, self.is_float)

    @property
    def is_weight(self) -> bool:
        """Whether the tensor is trained, and merged rather than copied."""
        return self.kind == kinds.WEIGHT

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Fill the contiguous ``out`` with the entries from flat position ``start`` on.

        Of a dtype of `SUBBYTE` out is bytes, and start is where one begins.
        """
        if not out.size:
            return
        self.source.read_into(start * bits(self.dtype) // 8, out.view(np.uint8).data.cast("B"))

    def read_runs(self, starts: Sequence[int], out: np.ndarray) -> None:
        """Fill each row of ``out`` with the entries from one of the ``starts`` on."""
        source = self.source
        if isinstance(source, FileRange) and out.size:
            width = out.itemsize
            source.read_runs([start * width for start in starts], out.view(np.uint8))
            return
        for start, row in zip(starts, out, strict=True):
            self.read_into(start, row)

    def read(self) -> np.ndarray:
        """Return the whole tensor as a new array of its own dtype and `array_shape`."""
        flat = np.empty(items(self.dtype, self.size), DTYPES[self.dtype])
        self.read_into(0, flat)
        return flat.reshape(array_shape(self.dtype, self.shape))


@dataclass(frozen=True)
class Cut:
    """What is known of a task of which a file keeps all or a part.

    name, hash: of the task. transform, parameters: what chose the entries that are kept, as a
    recipe has them, ``none`` where all that changed are.
    """

    name: str
    hash: str
    transform: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Inserted:
    """An adapter that is in a model, from its own files or as a task file has it.

    names: of the tensors that it changes. identity: of the model that it was put into, and
    ``under``: what is in that one. folder: where the adapter lies, and ``files``: in which. called:
    what it calls its modules.
    """

    names: frozenset[str]
    identity: tuple[Any, ...]
    under: Inserted | None = None
    folder: Path | None = None
    called: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Checkpoint(Mapping[str, np.ndarray]):
    """An open checkpoint: a mapping of name to array that reads a tensor when it is asked for.

    label: what the user called it (a path, a hub id). tensors: by name, in the order of the files.
    files: every weight file, for hashing and sizes; empty for arrays in memory.
    folder: where the config and tokenizer files lie, if the checkpoint is a folder.
    repo: hub id and resolved commit, ``org/name@revision``, when it came from a hub.
    metadata: what a single safetensors file, or a mapping with such an attribute, says of itself.
    parts, layers: of a stack, what it is made of, and the number that each layer has there.
    cut: what is known of the task, if a task file keeps it or a part of it.
    layout: where its parts lie, if its weights are in several folders.
    untied: names of tensors that are written apart, by name what they were tied to. stored: the
    checkpoint as its files hold it, if some are.
    called: what tensors are called in the files, those that have another name here.
    within: the keys under which its tensors lie in a file of other things too.
    notes, warnings: what was chosen when it was opened, and what the user should look at, a line
    each.
    companions: of quantised weights, what lies beside codes and scales and says nothing without.
    changed: names of tensors that are not what the files hold, as those that an adapter changes.
    adapter: the file of an adapter by itself, whose tensors these are, or were before it was put
    into a base. inserted: what is known of the adapter in a model.
    """

    label: str
    tensors: dict[str, Tensor]
    files: tuple[Path, ...] = ()
    folder: Path | None = None
    repo: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)
    close: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    parts: tuple[Checkpoint, ...] = ()
    layers: tuple[int, ...] = ()
    cut: Cut | None = field(default=None, repr=False, compare=False)
    layout: Layout | None = field(default=None, compare=False)
    untied: Mapping[str, str] = field(default_factory=dict, compare=False)
    stored: Checkpoint | None = field(default=None, repr=False, compare=False)
    called: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    within: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    companions: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)
    changed: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    adapter: Path | None = field(default=None, compare=False)
    inserted: Inserted | None = field(default=None, repr=False, compare=False)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two checkpoints have in common that are one; of arrays in memory, nothing."""
        return self.files, self.layers, self.within

    @property
    def own_files(self) -> tuple[Path, ...]:
        """The files that are its own: of an adapter by itself, without those of the base."""
        return self.inserted.files if self.adapter and self.inserted else self.files

    @property
    def is_bare_adapter(self) -> bool:
        """Whether these are the matrices of an adapter, and no model yet."""
        return self.adapter is not None and self.inserted is None

    def untouched(self, base: Checkpoint) -> frozenset[str] | None:
        """Return the names of the tensors that are the base's for sure, as it has an adapter in it.

        None where that is not known.
        """
        names, inside = frozenset[str](), self.inserted
        while inside is not None:
            names |= inside.names
            if inside.identity == base.identity:
                return frozenset(self.tensors.keys() - names)
            inside = inside.under
        return None

    @cached_property
    def quantised(self) -> str:
        """How many tensors are quantised and how, ``2 quantised (FP8, one scale)``; or empty."""
        counts = Counter(tensor.layout for tensor in self.tensors.values())
        del counts[""]
        return "; ".join(f"{number} quantised ({layout})" for layout, number in counts.items())

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name].read()

    def shown_file(self, path: Path) -> str:
        """Return how a file of it is called: its path in the folder, with ``/`` between."""
        inside = self.folder is not None and self.folder in path.parents
        return path.relative_to(self.folder).as_posix() if inside and self.folder else path.name

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors  # without reading it

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_name(name: object, where: str) -> str:
    """Return ``name`` if a tensor can be called that in a safetensors file, else CheckpointError.

    Half a surrogate pair, which JSON and Python can spell, cannot be written as UTF-8.
    """
    if not isinstance(name, str):
        raise CheckpointError(f"{where}: the name {shown(name)} is not a string.")
    if name == "__metadata__" or not is_unicode(name):
        raise CheckpointError(f"{where}: a tensor cannot be called {shown(name)}. Rename it.")
    return name


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """Return ``value`` as messages quote it: on one line and short, however large it is."""
    return _short.repr(value)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 160
_short.maxlist = _short.maxdict = 8
_short.maxlevel = 3
