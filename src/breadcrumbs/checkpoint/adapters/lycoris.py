"""LoHa and LoKr, adapters whose products are of other kinds than ``B A``, as PEFT saves them.

    MODULE.hada_w1_a (out, r), .hada_w1_b (r, in), .hada_w2_a, .hada_w2_b                      LoHa
    MODULE.lokr_w1 (a, c), or .lokr_w1_a (a, r), .lokr_w1_b (r, c); .lokr_w2 (b, d) or such    LoKr

LoHa (FedPara, Hyeon-Woo et al., ICLR 2022, arXiv:2108.06098) multiplies two products entry by
entry; LoKr (LyCORIS, Yeh et al., ICLR 2024, arXiv:2309.14859) is the Kronecker product of w1 and
w2. Of convolutions there may be a third matrix ``t (r, r, k, k)`` between a and b (Tucker), which
are turned then. The scale is ``alpha / r``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from breadcrumbs.checkpoint.adapters.adapter import ADVICE
from breadcrumbs.checkpoint.products import EXACT, Factors, Hadamard, Kronecker
from breadcrumbs.checkpoint.tensors import Tensor, shown
from breadcrumbs.errors import CheckpointError, listing

PART = re.compile(r"(.+)\.((?:hada|lokr)_(?:w[12](?:_[ab])?|t[12]))")
_HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_W1 = ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
_W2 = ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"}, {"lokr_w2_a", "lokr_w2_b", "lokr_t2"})
#: The sets of matrices that a module may have.
_KNOWN = ({*_HADA}, {*_HADA, "hada_t1", "hada_t2"}, *(one | two for one in _W1 for two in _W2))


def check(label: str, name: str, parts: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless the matrices of a module are all there and can be multiplied."""
    shapes = {part: tensor.shape for part, tensor in parts.items()}
    if set(parts) not in _KNOWN:
        raise CheckpointError(f"{label}: {name} has only {listing(sorted(parts), 8)}. {ADVICE}")
    dtypes = {tensor.dtype for tensor in parts.values()}
    if dtypes - set(EXACT):
        raise CheckpointError(
            f"{label}: {shown(name)} has matrices in {listing(sorted(dtypes))}, and only"
            f" {listing(EXACT)} are read. Save the adapter in float32."
        )
    try:
        found = product(parts, 1.0, {part: np.zeros(shape) for part, shape in shapes.items()})
        odd = isinstance(found, Hadamard) and found.shape != (
            len(found.second.left),
            found.second.right.shape[1],
        )
    except (ValueError, IndexError):
        odd = True
    if odd or not all(size for shape in shapes.values() for size in shape):
        raise CheckpointError(
            f"{label}: {shown(name)} has matrices of {listing(map(str, shapes.values()), 8)}, which"
            " cannot be multiplied. Copy it again."
        )


def rank(parts: Mapping[str, Tensor]) -> int | None:
    """Return the rank of the thin matrices of a module; None where there are none."""
    for name in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if name in parts:
            return parts[name].shape[0]
    return None


def shape(parts: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return rows and columns of the product of a module, of convolutions as a matrix."""
    return product(parts, 1.0, {n: np.zeros(tensor.shape) for n, tensor in parts.items()}).shape


def product(
    parts: Mapping[str, Tensor], scale: float, given: Mapping[str, np.ndarray] | None = None
) -> Hadamard | Kronecker:
    """Return the product of the matrices of a module. given: these, if they have been read."""
    read = given or {name: tensor.read().astype(np.float64) for name, tensor in parts.items()}
    if "hada_w1_a" in read:
        names = [(f"hada_w{i}_a", f"hada_w{i}_b", f"hada_t{i}") for i in (1, 2)]
        first, second = (_pair(read[a], read[b], read.get(t)) for a, b, t in names)
        return Hadamard(Factors(*first), Factors(*second), scale)
    left, right = (_whole(read, f"lokr_w{i}", read.get(f"lokr_t{i}")) for i in (1, 2))
    return Kronecker(left, right.reshape(len(right), -1), scale)


def _pair(a: np.ndarray, b: np.ndarray, core: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return two matrices whose product is that of a, the core if there is one, and b."""
    if core is None:
        left, right = a, b
    else:
        left, right = a.T, np.einsum("ijkl,jp->ipkl", core, b).reshape(len(core), -1)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ValueError
    return np.ascontiguousarray(left, np.float32), np.ascontiguousarray(right, np.float32)


def _whole(read: Mapping[str, np.ndarray], name: str, core: np.ndarray | None) -> np.ndarray:
    if name in read:
        return read[name]
    left, right = _pair(read[f"{name}_a"], read[f"{name}_b"], core)
    return left.astype(np.float64) @ right
