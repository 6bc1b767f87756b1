"""Put a task file together: blocks, factors, and what it says of itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint import whole
from breadcrumbs.checkpoint.outfile import Entry, header
from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.checkpoint.tensors import NAMES, WEIGHT_DTYPES
from breadcrumbs.errors import OutputError
from breadcrumbs.kernels import choose
from breadcrumbs.taskfile import about, positions
from breadcrumbs.taskfile.about import About, TaskTensor
from breadcrumbs.taskfile.encodings import Encoding
from breadcrumbs.taskfile.factors import LEFT, RIGHT

BLOCKS, DATA = "blocks/", "data/"
#: A tensor to write, and what yields its bytes.
Part = tuple[Entry, Callable[[], Iterable[bytes | memoryview]]]
#: Entries whose squares are added up at once.
_PART = 1 << 15
#: A row of the table of blocks.
Row = tuple[int, ...]


@dataclass(frozen=True)
class Loss:
    """What encodings lost of task vectors: sums of squares, and the largest difference."""

    lost: float = 0.0
    whole: float = 0.0
    largest: float = 0.0


def loss(values: np.ndarray, decoded: np.ndarray, base: np.ndarray) -> Loss:
    """Return what is lost of fine-tuned weights that come back as others."""
    lost, whole = _less(values, decoded), _square(_less(values, base))
    square = _square(lost)
    return Loss(square, whole, float(np.abs(lost, out=lost).max(initial=0)))


def _less(values: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return the differences of weights in float64."""
    if values.dtype != base.dtype or NAMES[values.dtype] not in ("F32", "BF16"):
        return values.astype(np.float64) - base.astype(np.float64)
    raw = np.uint16 if values.itemsize == 2 else np.float32
    wide, found = np.empty(values.size), np.empty((1, values.size))
    choose().differences(base.view(raw), values.view(raw)[None], wide, found)
    return found[0]


def _square(values: np.ndarray) -> float:
    """Return the sum of squares; not by BLAS, whose threads wait for those that pack."""
    return float(np.einsum("i,i->", values, values))


def error(losses: Sequence[Loss]) -> dict[str, float]:
    """Return the error of a file, to four digits, which are the same on all machines."""
    lost, whole = (sum(getattr(one, key) for one in losses) for key in ("lost", "whole"))
    relative = (lost / whole) ** 0.5 if whole else 0.0
    largest = max((one.largest for one in losses), default=0.0)
    return {"relative": float(f"{relative:.3e}"), "largest": float(f"{largest:.3e}")}


def squares(values: np.ndarray, base: np.ndarray) -> float:
    """Return the squared norm of a task vector, of weights and the base's, (n,) arrays.

    In parts that stay in a processor's cache. What is not finite does not count.
    """
    if values.dtype == base.dtype and NAMES[values.dtype] in ("F32", "BF16"):
        raw = np.uint16 if values.itemsize == 2 else np.float32
        found = choose().squares(base.view(raw), values.view(raw))
        if math.isfinite(found):
            return found
    found = 0.0
    for start in range(0, values.size, _PART):
        part = slice(start, start + _PART)
        tau = _less(values[part], base[part])
        square = _square(tau)
        if not math.isfinite(square):
            tau[~np.isfinite(tau)] = 0
            square = _square(tau)
        found += square
    return found


def share(found: Sequence[tuple[float, float]]) -> float:
    """Return the share of the squared norm that is kept, to four digits as an error is."""
    kept, whole = (math.fsum(column) for column in zip(*found, strict=True))
    return float(f"{kept / whole:.3e}") if whole else 1.0


def differ(base: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return where values are others than the base's, or zeros of another sign."""
    found = base != values
    if NAMES[base.dtype] in WEIGHT_DTYPES and NAMES[values.dtype] in WEIGHT_DTYPES:
        found |= np.signbit(base) != np.signbit(values)
    return found


def block(
    at: np.ndarray, n: int, values: np.ndarray, base: np.ndarray | None, encoding: Encoding
) -> tuple[Row, bytes]:
    """Return the row of the table and the bytes of a block of n entries.

    at: positions of those kept, ascending. values, base: the fine-tuned weights there, the base's.
    """
    if not at.size:
        row, data = (0,) * 5, b""
    else:
        code, first = positions.encode(at, n)
        kind, second = encoding.encode(values, base)
        row, data = (at.size, code, len(first), kind, len(second)), first + second
    return (*row, *np.frombuffer(blake3(data).digest(16), "<u4").tolist()), data


def table(rows: Sequence[Row]) -> bytes:
    """Return the bytes of a table of blocks."""
    return np.array(rows, "<u4").tobytes()


def blocks(
    name: str, rows: Sequence[Row], data: Callable[[], Iterable[bytes | memoryview]]
) -> list[Part]:
    """Return the parts of a tensor that is kept in blocks."""
    size = sum(row[2] + row[4] for row in rows)
    return [
        (Entry(BLOCKS + name, "U32", (len(rows), about.COLUMNS)), lambda: [table(rows)]),
        (Entry(DATA + name, "U8", (size,)), data),
    ]


def factors(name: str, found: Factors) -> list[Part]:
    """Return the parts of a tensor that is kept as a product."""

    def part(prefix: str, factor: np.ndarray) -> Part:
        whole = np.ascontiguousarray(factor)
        entry = Entry(prefix + name, NAMES[factor.dtype], factor.shape)
        return entry, lambda: [whole.reshape(-1).view(np.uint8).data]

    return [part(LEFT, found.left), part(RIGHT, found.right)]


def factored(name: str, dtype: str, shape: tuple[int, ...], found: Factors) -> TaskTensor:
    """Return what a file says of a tensor that is kept as a product."""
    size = TaskTensor(name, dtype, shape, 0).size
    return TaskTensor(
        name, dtype, shape, size, found.rank, found.scale, found.digest, stack=found.stack
    )


def check_output(output: Path, force: bool) -> None:
    """Raise OutputError for what a task file cannot be written to."""
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: a task is written to one file. Give NAME.safetensors.")
    if output.exists() and not force:
        raise OutputError(f"{output}: exists. Give another output, or --force to replace it.")


def write(
    output: Path,
    said: About,
    tables: Mapping[str, bytes],
    parts: Sequence[Part],
    force: bool = True,
) -> None:
    """Write a task file, and give it its name when it is whole. tables: of blocks, by tensor.

    force: replace a file that has been made since.
    """
    text = about.text(said)
    metadata = {about.KEY: text, about.HASH: about.digest(text, tables)}
    parts = sorted(parts, key=lambda part: not part[0].name.startswith(BLOCKS))  # tables first

    def data() -> Iterable[bytes | memoryview]:
        yield header([entry for entry, _ in parts], metadata)
        for _, pieces in parts:
            yield from pieces()

    whole.write(output, data(), force=force)
