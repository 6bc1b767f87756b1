"""The model of one task, computed from the base and an archive as it is read.

The same bits as the merges by `tall_mask` and `emr` of the models that the archive was made from:

* ``tall`` stores the multi-task *model*, base + vector, rounded to the base's dtype as the merge
  rounds it, so an entry of a task is the stored one where its bit is set, and else the base's.
* ``emr`` stores the model whose task vector is the unified one: each of its entries is a weight of
  one of the models, so nothing is rounded, and the task vector is found again exactly.
* ``tsv`` adds a product of two thin matrices to the base.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from breadcrumbs import machine
from breadcrumbs.archives.archive import Archive
from breadcrumbs.checkpoint import composite
from breadcrumbs.checkpoint.tensors import DTYPES, Bytes, Checkpoint, Tensor
from breadcrumbs.engine.workspace import one_blas_thread
from breadcrumbs.kernels import choose

PIECE = 1 << 18
#: Entries of a product that are made at once; it does not depend on what is asked for, since the
#: last bits of a product may depend on how it is cut.
BLOCK = 1 << 18


def rebuilt(archive: Archive, base: Checkpoint, task: str) -> Checkpoint:
    """Return the model of a task; archive and base must stay open as long as it is used.

    The base has been checked (`Archive.check_base`), and what the archive has of the task verified.
    """
    number = archive.number(task)
    tensors = dict(base.tensors)

    @functools.lru_cache(maxsize=machine.available_cores() + 1)  # threads read in pieces
    def made(name: str) -> np.ndarray:
        left, right = archive.lefts[number, name], archive.rights[number, name]
        return product(base.tensors[name], left, right)

    for name in archive.names(number):
        if whole := archive.wholes.get((number, name)):
            tensors[name] = replace(whole, name=name)
            continue
        under = base.tensors[name]
        if archive.method == "tsv":
            source: Bytes = Made(functools.partial(made, name))
        else:
            factor = archive.parameters["rescale"][number] if archive.method == "emr" else None
            if isinstance(factor, dict):
                factor = factor.get(composite.component(base, name), 1.0)
            source = Masked(under, archive.values[name], archive.masks[number, name], factor)
        tensors[name] = Tensor(name, under.dtype, under.shape, source)
    return Checkpoint(
        f"{archive.path}: {task}", tensors, folder=base.folder, layout=composite.of(base)
    )


@dataclass(frozen=True, slots=True)
class Masked:
    """The bytes of a tensor of one task: ``value`` where the mask holds, else ``base``.

    factor: of EMR: there ``base + factor * (value - base)``, rounded to the base's dtype.
    """

    base: Tensor
    value: Tensor
    mask: Tensor
    factor: float | None

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the tensor's bytes from ``start`` on."""
        itemsize = DTYPES[self.base.dtype].itemsize
        for at in range(start, start + len(out), PIECE * itemsize):
            piece = out[at - start : at - start + PIECE * itemsize]
            first, last = at // itemsize, -(-(at + len(piece)) // itemsize)
            found = self._entries(first, last).view(np.uint8)
            skip = at - first * itemsize
            piece[:] = found.data[skip : skip + len(piece)]

    def _entries(self, first: int, last: int) -> np.ndarray:
        base, value = (_part(tensor, first, last) for tensor in (self.base, self.value))
        packed = _part(self.mask, first // 8, -(-last // 8))
        held = np.unpackbits(packed)[first % 8 :][: last - first].view(np.bool_)
        if self.factor is not None:
            value = rescaled(base, value, self.factor, self.base.dtype)
        bits = f"u{base.dtype.itemsize}"
        return np.where(held, value.view(bits), base.view(bits))


def rescaled(base: np.ndarray, value: np.ndarray, factor: float, dtype: str) -> np.ndarray:
    """Return ``base + factor * (value - base)``, rounded once to the base's dtype."""
    wide, kernels = base.astype(np.float64), choose()
    with np.errstate(over="ignore", invalid="ignore"):
        step = factor * (value.astype(np.float64) - wide)
        return kernels.round_to(kernels.add_step(wide, step), dtype)


@dataclass(frozen=True, slots=True)
class Made:
    """The bytes of an array that is made when it is first asked for."""

    make: Callable[[], np.ndarray]

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the array's bytes from ``start`` on."""
        out[:] = self.make().view(np.uint8).data[start : start + len(out)]


def product(base: Tensor, left: Tensor, right: Tensor) -> np.ndarray:
    """Return ``base + left @ right``, rounded once, flat."""
    rows, columns = base.shape
    u, v = (tensor.read().astype(np.float64) for tensor in (left, right))
    result = np.empty(base.size, DTYPES[base.dtype])
    step, kernels = max(1, BLOCK // max(1, columns)), choose()
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        for row in range(0, rows, step):
            first, last = row * columns, min(rows, row + step) * columns
            wide = _part(base, first, last).astype(np.float64)
            more = (u[row : row + step] @ v).reshape(-1)
            result[first:last] = kernels.round_to(kernels.add_step(wide, more), base.dtype)
    return result


def _part(tensor: Tensor, first: int, last: int) -> np.ndarray:
    values = np.empty(last - first, DTYPES[tensor.dtype])
    tensor.read_into(first, values)
    return values
