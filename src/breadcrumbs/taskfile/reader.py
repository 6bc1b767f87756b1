"""Read a task file: any block of any tensor, from any thread, in bounded memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.checkpoint.sparse import Kept
from breadcrumbs.checkpoint.tensors import DTYPES, WEIGHT_DTYPES, Checkpoint, Tensor, shown
from breadcrumbs.errors import CheckpointError, MismatchError, printable
from breadcrumbs.kernels import choose
from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.taskfile import about, encodings, factors
from breadcrumbs.taskfile import positions as codes
from breadcrumbs.taskfile.about import COLUMNS, About, BaseReference, TaskTensor
from breadcrumbs.taskfile.encodings import Encoding, exact
from breadcrumbs.taskfile.encodings.exact import EXACT
from breadcrumbs.taskfile.factors import LEFT, RIGHT, Stored
from breadcrumbs.taskfile.writing import BLOCKS, DATA


@dataclass(frozen=True)
class Block:
    """A row of the table of blocks, and where its bytes begin."""

    kept: int
    codes: tuple[int, int]
    sizes: tuple[int, int]
    digest: bytes
    start: int


@dataclass(frozen=True)
class TaskFile:
    """An open task file, all tables checked; blocks are checked as they are read.

    label: what the user called it. about: what it says of itself. hash: of all that it holds.
    """

    label: str
    about: About
    hash: str
    encoding: Encoding
    source: Checkpoint = field(repr=False)
    _blocks: Mapping[str, list[Block]] = field(repr=False)
    _products: Mapping[str, Stored] = field(repr=False)
    _checked: set[str] = field(default_factory=set, repr=False)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> TaskFile:
        """Return the task file at ``path``; CheckpointError if it is none, or not whole."""
        source = checkpoint.open(path)
        try:
            if not is_task(source):
                what = "an adapter, not a task file" if source.adapter else "not a task file"
                how = "task import" if source.adapter else "task pack"
                raise CheckpointError(
                    f"{source.label}: is {what}. Make one with `breadcrumbs {how}`."
                )
            return of(source)
        except BaseException:
            source.close()
            raise

    @property
    def name(self) -> str:
        return self.about.name

    @property
    def base(self) -> BaseReference:
        return self.about.base

    @property
    def transform(self) -> str:
        return self.about.transform

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.about.parameters

    @property
    def density(self) -> float:
        return self.about.density

    @property
    def tensors(self) -> Mapping[str, TaskTensor]:
        return self.about.tensors

    def kept(
        self,
        name: str,
        block: int,
        base: np.ndarray | None = None,
        kernels: Kernels | None = None,
        room: Kept | None = None,
    ) -> Kept:
        """Return what block number ``block`` of a tensor keeps; CheckpointError if it is damaged.

        base: the base's weights of the block, which encodings with ``needs_base`` take. room: where
        to write as many positions, and values of that dtype where that saves a copy.
        """
        if base is None and self.encoding.needs_base and self.tensors[name].dtype in WEIGHT_DTYPES:
            raise MismatchError(
                f"{self.label}: values of encoding {self.encoding.name} are read with the base's"
                " weights of the block. Give these, or read the task with `tasks.opened`."
            )
        if name in self._products:
            assert base is not None
            return self._product(name, block, base, room)
        row = self._blocks[name][block]
        data = memoryview(np.empty(sum(row.sizes), np.uint8).data)
        tensor = self.tensors[name]
        at = np.empty(row.kept, np.uint32) if room is None else room.positions
        try:
            if len(data):
                self.source.tensors[DATA + name].source.read_into(row.start, data)
            if blake3(data).digest(16) != row.digest:
                raise CheckpointError("does not match its hash")
            if not row.kept:
                return Kept(at, np.empty(0, DTYPES[tensor.dtype]))
            first, second = data[: row.sizes[0]], data[row.sizes[0] :]
            n = tensor.entries(block)
            codes.decode(row.codes[0], first, at, n, kernels or choose())
            mine = None if base is None else base[at]
            dtype = DTYPES[tensor.dtype]
            coded = tensor.dtype in WEIGHT_DTYPES and not tensor.exact
            encoding = self.encoding if coded else EXACT
            if encoding is EXACT:
                out = room.values if room is not None and room.values.dtype == dtype else None
                values = exact.decode(row.codes[1], second, row.kept, dtype, out)
            else:
                values = encoding.decode(row.codes[1], second, row.kept, dtype, mine)
        except CheckpointError as error:
            raise self._damaged(error, f"tensor {shown(name)}, block {block}") from None
        return Kept(at, values)

    def _product(
        self,
        name: str,
        block: int,
        base: np.ndarray,
        room: Kept | None,
    ) -> Kept:
        try:
            values = self._sound(name).weights(block, base)
        except CheckpointError as error:
            raise self._damaged(error, f"tensor {shown(name)}") from None
        at = np.empty(base.size, np.uint32) if room is None else room.positions
        at[:] = np.arange(base.size, dtype=np.uint32)
        return Kept(at, values)

    def _sound(self, name: str) -> Stored:
        """Return a product whose bytes were compared with their hash, once."""
        found = self._products[name]
        if name not in self._checked:
            found.check()
            self._checked.add(name)
        return found

    def change(self, name: str, start: int, out: np.ndarray) -> bool:
        """Fill the float64 ``out`` with a product's entries from ``start`` on, and return True.

        False for a tensor that is kept otherwise.
        """
        if name not in self._products:
            return False
        try:
            self._sound(name).change(start, out)
        except CheckpointError as error:
            raise self._damaged(error, f"tensor {shown(name)}") from None
        return True

    def product(self, name: str) -> Factors | None:
        """Return the factors of a tensor; None of one that is kept otherwise."""
        if name not in self._products:
            return None
        try:
            found = self._sound(name)
        except CheckpointError as error:
            raise self._damaged(error, f"tensor {shown(name)}") from None
        it = found.tensor
        return Factors(found.left.read(), found.right.read(), it.scale, it.stack)

    def _damaged(self, error: CheckpointError, where: str) -> CheckpointError:
        if str(error).startswith(str(self.source.label)):  # it could not be read at all
            return error
        return CheckpointError(
            f"{self.label}: {where} {error}. The file is damaged; copy or pack it again."
        )

    def number(self, name: str, block: int) -> int:
        """Return how many entries a block keeps."""
        if name in self._products:
            return self.tensors[name].entries(block)
        return self._blocks[name][block].kept

    def codes(self, name: str) -> dict[str, int]:
        """Return how many blocks of a tensor have positions of which code."""
        if name in self._products:
            return {f"rank {self.tensors[name].rank}": self.tensors[name].blocks}
        rows = [row for row in self._blocks[name] if row.kept]
        return dict(Counter(codes.NAMES.get(row.codes[0], "unknown") for row in rows))

    def verify(self) -> None:
        """Read every block; CheckpointError names the first that is damaged."""
        for name, tensor in self.tensors.items():
            if name in self._products:
                self._product(name, 0, np.zeros(0), None)
                continue
            for block in range(tensor.blocks):
                base = np.zeros(tensor.entries(block)) if self.encoding.needs_base else None
                self.kept(name, block, base)

    def close(self) -> None:
        self.source.close()

    def __enter__(self) -> TaskFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def is_task(source: Checkpoint) -> bool:
    """Return whether an open checkpoint is a task file."""
    return about.KEY in source.metadata


def of(source: Checkpoint) -> TaskFile:
    """Return the task file that an open checkpoint is; CheckpointError if it is not whole."""
    where = printable(source.label)
    text = source.metadata[about.KEY]
    said = about.parse(text, where)
    tables: dict[str, bytes] = {}
    known = {
        prefix + tensor.name
        for tensor in said.tensors.values()
        for prefix in ((LEFT, RIGHT) if tensor.rank else (BLOCKS, DATA))
    }
    for name in source.tensors:
        if name not in known:
            raise CheckpointError(f"{where}: holds {shown(name)}, which its metadata do not name.")
    blocks, products = {}, {}
    for name, tensor in said.tensors.items():
        if tensor.rank:
            found = factors.stored(tensor, source.tensors)
            if found is None:
                raise CheckpointError(
                    f"{where}: tensor {shown(name)} has no two matrices of rank {tensor.rank}."
                    " It is damaged."
                )
            products[name] = found
            continue
        tables[name], blocks[name] = _table(source, tensor, where)
    wanted = about.digest(text, tables)
    if source.metadata.get(about.HASH) != wanted:
        raise CheckpointError(
            f"{where}: its hash is not that of what it holds. It was altered or is damaged; copy"
            " or pack it again."
        )
    try:
        encoding = encodings.get(said.encoding)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    return TaskFile(source.label, said, wanted, encoding, source, blocks, products)


def _table(source: Checkpoint, tensor: TaskTensor, where: str) -> tuple[bytes, list[Block]]:
    """Return the bytes of the table of blocks of a tensor, and its rows; CheckpointError."""
    where = f"{where}: tensor {shown(tensor.name)}"
    found = source.tensors.get(BLOCKS + tensor.name)
    data = source.tensors.get(DATA + tensor.name)
    shape = (tensor.blocks, COLUMNS)
    if found is None or data is None or data.dtype != "U8" or len(data.shape) != 1:
        raise CheckpointError(f"{where} has no table of blocks, or no bytes. It is damaged.")
    if found.dtype != "U32" or found.shape != shape:
        raise CheckpointError(
            f"{where} has a table of shape {shown(found.shape)}, not {shown(shape)}. It is damaged."
        )
    table = found.read()
    rows, start = [], 0
    for number, (kept, a, first, b, second, *digest) in enumerate(table.tolist()):
        if kept > tensor.entries(number):
            raise CheckpointError(
                f"{where}, block {number} keeps {kept} of {tensor.entries(number)} entries."
                " It is damaged."
            )
        rows.append(Block(kept, (a, b), (first, second), np.array(digest, "<u4").tobytes(), start))
        start += first + second
    if start != data.size or sum(row.kept for row in rows) != tensor.kept:
        raise CheckpointError(f"{where} has a table that does not fit its bytes. It is damaged.")
    return table.tobytes(), rows


def common_dtype(base: Tensor, tensor: TaskTensor) -> str:
    """Return the dtype that holds the weights of both exactly; a name of the format."""
    if tensor.dtype == base.dtype or not base.is_float:
        return tensor.dtype
    wide = {"F64": 3, "F32": 2, "F16": 1, "BF16": 1, "F8_E4M3": 0, "F8_E5M2": 0}
    first, second = sorted((base.dtype, tensor.dtype), key=lambda name: -wide[name])
    if wide[first] > wide[second] and wide[first] >= 2:
        return first
    return "F32"
