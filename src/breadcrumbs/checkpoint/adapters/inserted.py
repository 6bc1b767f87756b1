"""A model with an adapter in it, read like any checkpoint: ``BASE+ADAPTER``, or the adapter alone
in the base of a merge.

Nothing is written: the weights are the base's plus the scaled product, in float32 (float64 on a
base of float64), made as they are read. Of a base of a merge they are rounded to the dtype that the
base without the adapter has (`narrow`), so that the merged model has it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs.checkpoint.adapters import reading
from breadcrumbs.checkpoint.products import Product
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Inserted, Tensor, shown
from breadcrumbs.errors import BreadcrumbsError, MismatchError, listing

if TYPE_CHECKING:
    from breadcrumbs.checkpoint.adapters.adapter import Adapter
    from breadcrumbs.checkpoint.adapters.changes import Changes, Magnitude


#: Entries that are looked at once.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Changed:
    """The bytes of a tensor of the base in which something is changed. dtype: as they are read."""

    base: Tensor
    dtype: str

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``start`` on."""
        dtype = DTYPES[self.dtype]
        first, last = start // dtype.itemsize, -(-(start + len(out)) // dtype.itemsize)
        values = np.empty(last - first, DTYPES[self.base.dtype])
        self.base.read_into(first, values)
        found = self.changed(first, values).astype(dtype).view(np.uint8)
        skip = start - first * dtype.itemsize
        np.frombuffer(out, np.uint8)[:] = found[skip : skip + len(out)]

    def changed(self, start: int, values: np.ndarray) -> np.ndarray:
        """Return the base's entries from ``start`` on with the change."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ProductBytes(_Changed):
    """With a product added."""

    factors: Product

    def changed(self, start: int, values: np.ndarray) -> np.ndarray:
        found = np.empty(values.size)
        self.factors.change(start, found)
        return np.add(found, values.astype(np.float64), out=found)

    def change(self, start: int, out: np.ndarray) -> bool:
        """Fill the float64 ``out`` with what is added from entry ``start`` on."""
        self.factors.change(start, out)
        return True


@dataclass(frozen=True)
class DoraBytes(_Changed):
    """With a product added, and each row of the sum brought to a length of its own.

    Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024, arXiv:2402.09353, Eq. 5:
    ``m (W + B A) / |W + B A|``. (The paper's columns are rows of weights as PyTorch has them.) All
    of the tensor is read once for the lengths, when they are first needed.
    """

    factors: Product
    magnitude: Magnitude

    @cached_property
    def ratios(self) -> np.ndarray:
        """What each row, or column, of the sum is multiplied by."""
        by_column, shape = self.magnitude.by_column, self.base.shape
        width = shape[-1] if by_column else max(1, self.base.size // shape[0])
        squares = np.zeros(self.magnitude.values.size)
        step = max(1, _AT_ONCE // width)
        for row in range(0, self.base.size // width, step):
            n = min(step * width, self.base.size - row * width)
            values = np.empty(n, DTYPES[self.base.dtype])
            self.base.read_into(row * width, values)
            total = self._sum(row * width, values).reshape(-1, width)
            if by_column:
                squares += np.einsum("ij,ij->j", total, total)
            else:
                squares[row : row + len(total)] = np.einsum("ij,ij->i", total, total)
        with np.errstate(divide="ignore", invalid="ignore"):  # a NaN is told where it is merged
            return self.magnitude.values / np.sqrt(squares)

    def _sum(self, start: int, values: np.ndarray) -> np.ndarray:
        found = np.empty(values.size)
        self.factors.change(start, found)
        return np.add(found, values.astype(np.float64), out=found)

    def changed(self, start: int, values: np.ndarray) -> np.ndarray:
        found, shape = self._sum(start, values), self.base.shape
        at = np.arange(start, start + values.size)
        if self.magnitude.by_column:
            at %= shape[-1]
        else:
            at //= max(1, self.base.size // shape[0])
        found *= self.ratios[at]
        return found

    def change(self, start: int, out: np.ndarray) -> bool:
        """Fill the float64 ``out`` with what is added from entry ``start`` on."""
        values = np.empty(out.size, DTYPES[self.base.dtype])
        self.base.read_into(start, values)
        np.subtract(self.changed(start, values), values.astype(np.float64), out=out)
        return True


@dataclass(frozen=True, slots=True)
class RowBytes(_Changed):
    """With other rows in place of some. indices: which, ascending."""

    indices: np.ndarray
    rows: np.ndarray

    def changed(self, start: int, values: np.ndarray) -> np.ndarray:
        width, found = self.base.shape[1], values.astype(DTYPES[self.dtype])
        stop = start + values.size
        first, last = np.searchsorted(self.indices, [start // width, -(-stop // width)])
        for index, row in zip(self.indices[first:last], self.rows[first:last], strict=True):
            begin, end = max(start, index * width), min(stop, (index + 1) * width)
            found[begin - start : end - start] = row[begin - index * width : end - index * width]
        return found


def opened(
    text: str, base: str, adapter: str, open_base: Callable[[str], Checkpoint]
) -> Checkpoint:
    """Return a base with an adapter in it, opened.

    text: what the user called both. open_base: opens a model.
    """
    source = reading.alone(adapter)
    try:
        under = open_base(base)
        try:
            refuse_base(under)
            made = put_into(under, source)
        except BaseException:
            under.close()
            raise
    except BaseException:
        source.close()
        raise

    def close() -> None:
        source.close()
        under.close()

    return replace(
        made,
        label=text,
        repo=f"{under.repo}+{adapter}" if under.repo else None,
        notes=(*under.notes, *made.notes),
        warnings=(*under.warnings, *made.warnings),
        adapter=None,
        close=close,
    )


def put_into(
    base: Checkpoint,
    source: Checkpoint,
    rename: Sequence[str] = (),
    refused: Callable[[list[str]], list[str]] = list,
) -> Checkpoint:
    """Return an adapter by itself as the model that it makes of a base.

    rename: rules, of which those count that match a name of the adapter. refused: which of the
    names that the base lacks are an error; the others are left out.
    """
    from breadcrumbs.checkpoint.adapters import placing, trained_on

    found = reading.of(source)
    made = placing.changes(found, base, rules(rename, found))
    placing.check_whole(made, found, refused)
    told = list(trained_on.another(found, base, made.names))
    if made.lacking:
        told.append(f"{source.label}: left out what the base lacks: {listing(made.lacking)}")
    apart = placing.said(base, made.base.untied)
    own = (*source.files, *reading.config(source))
    return replace(
        view(made),
        label=source.label,
        files=(*base.files, *own),
        repo=source.repo,
        notes=(*source.notes, *(note for note in made.notes if note != apart)),
        warnings=(*source.warnings, *told),
        close=source.close,
        adapter=source.adapter,
        inserted=Inserted(
            frozenset(made.names),
            base.identity,
            base.inserted,
            source.folder,
            tuple(found.names),
            own,
        ),
    )


def rules(rename: Sequence[str], adapter: Adapter) -> list[str]:
    """Return the rules that match a name of an adapter."""
    from breadcrumbs.checkpoint import renaming

    return [r for r in rename if any(renaming.parse(r).of(name) for name in adapter.names)]


def refuse_base(model: Checkpoint) -> None:
    """Raise MismatchError for an adapter by itself where a base belongs."""
    if not model.is_bare_adapter:
        return
    try:
        named = reading.of(model).trained_on
    except BreadcrumbsError:  # of a kind that is not read
        named = ""
    first = f" {shown(named)}, which it was trained on," if named else " that it was trained on"
    raise MismatchError(
        f"{model.label}: is an adapter, not a base model. Give the model{first} first, then the"
        " adapters."
    )


def view(made: Changes) -> Checkpoint:
    """Return the base with what an adapter changes."""
    tensors = dict(made.base.tensors)
    for name, factors in made.products.items():
        base = tensors[name]
        dtype = "F64" if base.dtype == "F64" else "F32"
        source = ProductBytes(base, dtype, factors)
        if name in made.magnitudes:
            source = DoraBytes(base, dtype, factors, made.magnitudes[name])
        tensors[name] = replace(base, dtype=dtype, source=source)
    for name, tensor in made.whole.items():
        tensors[name] = replace(tensor, name=name)
    for name, (indices, rows) in made.rows.items():
        base = tensors[name]
        dtype = base.dtype if base.dtype in ("F64", "F32") else "F32"
        tensors[name] = replace(base, dtype=dtype, source=RowBytes(base, dtype, indices, rows))
    changed = made.base.changed.union(made.names)
    return replace(made.base, tensors=tensors, stored=None, changed=changed)


def own_dtype(tensor: Tensor) -> str:
    """Return the dtype of a tensor without an adapter."""
    source = tensor.source
    return own_dtype(source.base) if isinstance(source, _Changed) else tensor.dtype


def narrow(base: Checkpoint) -> Checkpoint:
    """Return a base of a merge whose tensors have the dtypes that they have without an adapter."""
    tensors = {}
    for name, tensor in base.tensors.items():
        source, dtype = tensor.source, own_dtype(tensor)
        if isinstance(source, _Changed) and dtype != tensor.dtype:
            tensor = replace(tensor, dtype=dtype, source=replace(source, dtype=dtype))
        tensors[name] = tensor
    return replace(base, tensors=tensors)
