"""Codes in layouts that are not known: matrices of few bits beside what can only be their scale."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from breadcrumbs.checkpoint import kinds
from breadcrumbs.checkpoint.tensors import Tensor

_INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32")
_FLOAT8 = ("F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "F6_E3M2")
#: Dtypes that a scale may have.
_SCALES = ("F64", "F32", "F16", "BF16", "F8_E8M0")
#: What the names of scales say, zero points and largest magnitudes included.
_SCALE = re.compile(r"scal(e|ing)|amax|absmax|max_?val|zero|(^|_)zp|step_?size|(^|_)s$|quant")
#: How matrices are called that have the name of a module.
_WEIGHT = re.compile(r"weight|packed|kernel|^(w|w_?q|qw|q|codes)$", re.IGNORECASE)
#: What stands at the end of the names of codes, and not of their scales.
_CODED = re.compile(r"_(blocks|packed|codes?|q|q?data|quant\w*|u?int\d*|fp\d\w*)$")
#: What is called so and goes with weights in floating point.
_NONE = ("logit_scale", "layer_scale", "bias")
#: Integers that are no codes.
_PLACES = re.compile(r"mask|index|(^|_)ids?$|position|table|count")


def found(tensors: Mapping[str, Tensor], known: Iterable[str]) -> tuple[str, str] | None:
    """Return the name of codes that are not read, and that of their scale; None if there are none.

    known: the names of what is read, and of what goes with it.
    """
    taken = set(known)
    codes = [n for n, t in tensors.items() if n not in taken and _may_be_codes(n, t)]
    if not codes:
        return None
    parts: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        if name not in taken and tensor.dtype in _SCALES:
            parts.setdefault(_start(name), []).append(name)
    for name in codes:
        for other in _near(name, parts):
            if _is_scale_of(name, tensors[name], other):
                return name, other
    return None


def are_called_codes(name: str, tensor: Tensor) -> bool:
    """Return whether a tensor is a matrix of integers that is called like weights or codes."""
    whole = tensor.dtype in _INTEGERS and len(tensor.shape) > 1
    return whole and bool(_WEIGHT.search(_leaf(name)) or _CODED.search(name))


def _may_be_codes(name: str, tensor: Tensor) -> bool:
    if len(tensor.shape) < 2 or tensor.size < 2:
        return False
    if tensor.dtype in _FLOAT8:
        return True
    if tensor.dtype not in _INTEGERS or kinds.of(name, tensor.shape, False) != kinds.OTHER:
        return False
    return not _PLACES.search(_leaf(name))


def _near(name: str, parts: Mapping[str, list[str]]) -> list[str]:
    """Return the tensors of the same module, those below a name, and of the module's own name."""
    start = _start(name)
    beside = [*parts.get(start, ()), *parts.get(name + ".", ())]
    if not start:
        return beside
    above = start[:-1] + "_"
    return beside + [
        other for other in parts.get(_start(start[:-1]), ()) if other.startswith(above)
    ]


def _is_scale_of(name: str, code: Tensor, other: str) -> bool:
    """Return whether a tensor in floating point is the scale of codes, by both names."""
    leaf, start = _leaf(name), _start(name)
    if other.startswith((name + "_", name + ".")):
        return bool(_SCALE.search(other[len(name) + 1 :]))
    stem = _CODED.sub("_", name)
    if stem != name and other.startswith(stem):
        return bool(_SCALE.search(other[len(stem) :]))
    if not other.startswith(start):
        return leaf.endswith("weight") and bool(_SCALE.search(other[len(start) :]))
    mine = other[len(start) :]
    if mine in _NONE:
        return False
    if leaf == "weight" and code.dtype in _INTEGERS:
        return True  # what else is there beside them is about them
    return bool((start or leaf == "weight") and _WEIGHT.search(leaf) and _SCALE.search(mine))


def _start(name: str) -> str:
    return name[: name.rfind(".") + 1]


def _leaf(name: str) -> str:
    return name[name.rfind(".") + 1 :]
