"""The matrices of an adapter as products for the base's tensors: which way they lie, by shapes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from breadcrumbs.checkpoint.adapters import lycoris
from breadcrumbs.checkpoint.adapters.adapter import ADVICE, Adapter
from breadcrumbs.checkpoint.adapters.changes import Magnitude
from breadcrumbs.checkpoint.products import EXACT, Factors, Hadamard, Kronecker
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import MismatchError, listing


def shape(adapter: Adapter, name: str) -> tuple[int, ...]:
    """Return the shape of the weight that a product is for, but for the order of its axes."""
    a, b = adapter.products[name]
    return (*b.shape[:1], *a.shape[1:])


def shape_of_other(adapter: Adapter, base: Checkpoint, name: str) -> tuple[int, ...]:
    """Return the shape of the weight that a product of another kind is for.

    It is that of a matrix, so that of a convolution is looked for in the base.
    """
    matrix = lycoris.shape(adapter.others[name])
    last = ".".join(name.split(".")[-2:])
    for known, tensor in base.tensors.items():
        if f".{known}".endswith(f".{last}") and _is_matrix(tensor, matrix):
            return tensor.shape
    return matrix


def _is_matrix(tensor: Tensor, shape: tuple[int, int]) -> bool:
    return tensor.shape[:1] == shape[:1] and tensor.size == shape[0] * shape[1]


def others(
    adapter: Adapter, names: Mapping[str, str], base: Checkpoint
) -> dict[str, Hadamard | Kronecker]:
    """Return the products of other kinds; MismatchError where the shapes do not fit."""
    result = {}
    for name, parts in adapter.others.items():
        if name not in names:
            continue
        made, tensor = lycoris.product(parts, adapter.scales[name]), base.tensors[names[name]]
        if not _is_matrix(tensor, made.shape):
            raise MismatchError(
                f"{adapter.label}: {shown(name)} is a product of shape {made.shape}, but the base's"
                f" tensor has shape {tensor.shape}."
            )
        if not all(np.isfinite(part.read().astype(np.float32)).all() for part in parts.values()):
            raise MismatchError(
                f"{adapter.label}: {shown(name)} is not finite. Train or copy it again."
            )
        result[names[name]] = made
    return result


def factors(
    adapter: Adapter,
    names: Mapping[str, str],
    base: Checkpoint,
    magnitudes: dict[str, Magnitude],
) -> dict[str, Factors]:
    """Return the factors of the base's tensors; MismatchError where the shapes do not fit.

    magnitudes: gets those of DoRA.
    """
    lies = {
        n: _lie(*pair, base.tensors[names[n]]) for n, pair in adapter.products.items() if n in names
    }
    for name, found in lies.items():
        if not found:
            a, b = adapter.products[name]
            dtypes = {a.dtype, b.dtype}
            if dtypes - set(EXACT):
                raise MismatchError(
                    f"{adapter.label}: {shown(name)} has matrices in {listing(sorted(dtypes))},"
                    f" and only {listing(EXACT)} are read. Save the adapter in float32."
                )
            raise MismatchError(
                f"{adapter.label}: {shown(name)} is a product of {b.shape} and {a.shape}, but"
                f" the base's tensor has shape {base.tensors[names[name]].shape}."
            )
    turned = bool(adapter.config.get("fan_in_fan_out"))
    plain = [name for name, found in lies.items() if found <= {"plain", "turned"}]
    odd = [n for n in plain if lies[n] == {"plain" if turned else "turned"}]
    unknown = [n for n in plain if len(lies[n]) == 2]
    if odd and unknown:
        raise MismatchError(
            f"{adapter.label}: fan_in_fan_out is {turned}, but {shown(odd[0])} lies the other way,"
            f" so {shown(unknown[0])} may lie either way. {ADVICE}"
        )
    result = {}
    for name, ways in lies.items():
        way = next(iter(ways)) if len(ways) == 1 else ("turned" if turned else "plain")
        a, b = (tensor.read() for tensor in adapter.products[name])
        made = Factors(b.reshape(len(b), -1), a.reshape(len(a), -1), adapter.scales[name])
        if way in ("turned", "embedding"):
            made = Factors(np.ascontiguousarray(a.T), np.ascontiguousarray(b.T), made.scale)
        _check_finite(adapter, name, made)
        result[names[name]] = made
        if name in adapter.magnitudes:
            by_column = way in ("turned", "embedding")
            values = adapter.magnitudes[name].read().astype(np.float64).reshape(-1)
            shape = base.tensors[names[name]].shape
            if values.size != shape[-1 if by_column else 0] or not np.isfinite(values).all():
                raise MismatchError(
                    f"{adapter.label}: {shown(name)} has {values.size} magnitudes of DoRA for the"
                    f" base's tensor of shape {shape}, or some that are not finite. Copy it again."
                )
            magnitudes[names[name]] = Magnitude(values, by_column)
    return result


def _check_finite(adapter: Adapter, name: str, made: Factors) -> None:
    """Raise MismatchError for factors that are not finite."""
    if not all(np.isfinite(x.astype(np.float32)).all() for x in (made.left, made.right)):
        raise MismatchError(
            f"{adapter.label}: {shown(name)} is not finite. Train or copy it again."
        )


def _lie(a: Tensor, b: Tensor, base: Tensor) -> set[str]:
    """Return how B A may lie in the base's tensor: plain, turned, embedding, convolution."""
    if {a.dtype, b.dtype} - set(EXACT) or not a.shape or not a.shape[0] or len(base.shape) < 2:
        return set()
    rank, ends = a.shape[0], (b.shape[0], *a.shape[1:]) if b.shape else ()
    if len(a.shape) == len(b.shape) == 2 and b.shape[1] == rank:
        if ".lora_embedding_" in a.name:
            return {"embedding"} if base.shape == ends[::-1] else set()
        ways = (("plain", ends), ("turned", ends[::-1]))
        shape = base.shape[:2] if set(base.shape[2:]) == {1} else base.shape
        return {way for way, found in ways if shape == found}
    ones = (1,) * (len(a.shape) - 2)
    flat = ends[:2] if set(ends[2:]) == {1} else ends
    return {"convolution"} if b.shape[1:] == (rank, *ones) and base.shape in (ends, flat) else set()
