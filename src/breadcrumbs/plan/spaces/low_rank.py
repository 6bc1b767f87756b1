"""What a model changes of a tensor, where that is known as a product of two thin matrices."""

from __future__ import annotations

from breadcrumbs.checkpoint.adapters.inserted import DoraBytes, ProductBytes
from breadcrumbs.checkpoint.files import FileRange
from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.taskfile.view import KeptBytes


def same(tensor: Tensor, base: Tensor) -> bool:
    """Return whether a tensor is the base's, as far as that is known without reading."""
    one, other = tensor.source, base.source
    if one is other:
        return True
    if isinstance(one, FileRange) and isinstance(other, FileRange):
        there = one.file.path, one.offset, one.nbytes
        return there == (other.file.path, other.offset, other.nbytes)
    return False


def change(tensor: Tensor, base: Tensor) -> Factors | None:
    """Return the product that a model adds to the base's tensor; None if it is none.

    Of one matrix: a stack of them, as of experts, is none.
    """
    source, found = tensor.source, None
    if isinstance(source, ProductBytes) and same(source.base, base):
        found = source.factors
    elif isinstance(source, KeptBytes) and same(source.base, base):
        found = source.task.product(source.base.name)
    return found if isinstance(found, Factors) and found.stack == 1 else None


def is_dora(tensor: Tensor) -> bool:
    """Return whether a model brings the rows of a tensor to lengths of their own."""
    return isinstance(tensor.source, DoraBytes)
