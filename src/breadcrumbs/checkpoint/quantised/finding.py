"""Which tensors are codes, which scales, and what they are together."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from breadcrumbs.checkpoint.quantised import layouts
from breadcrumbs.checkpoint.quantised.config import Said
from breadcrumbs.checkpoint.quantised.experts import Bands, Experts
from breadcrumbs.checkpoint.quantised.layouts import FP8, WIDE
from breadcrumbs.checkpoint.quantised.refusing import refused
from breadcrumbs.checkpoint.quantised.sources import Scaled
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor, shown
from breadcrumbs.errors import CheckpointError

#: Names of what goes with a ``weight`` of codes and is about activations: it goes with the codes.
_BESIDE = (
    "input_scale", "activation_scale", "scale_input", "input_zero_point", "input_global_scale",
    "qscale_act", "comfy_quant", "weight_shape", "output_scale", "input_scale_ub",
)  # fmt: skip
#: Of attention: scales of a cache of keys and values.
_CACHE = ("k_scale", "v_scale", "q_scale", "kv_scale", "kv_cache_scale", "k_zero_point")
_INTEGERS = ("U8", "I16", "U16", "I32", "U32")
_MARKER = "scaled_fp8"
#: Entries of a matrix in float8 that are looked at, fewer than which tell nothing; a median of
#: magnitudes that no weights have.
_SAMPLE, _FEWEST, _TOO_LARGE = 1 << 14, 1 << 10, 16


class Finding:
    """The tensors of a checkpoint, sorted. label: what messages call it."""

    def __init__(self, label: str, tensors: dict[str, Tensor], said: Said | None):
        self.label, self.tensors, self.said = label, tensors, said
        #: The tensors that quantised ones stand for, by the names of their codes.
        self.found: dict[str, Tensor] = {}
        #: Scales, and what else goes with codes: by name, whether writing codes writes it too.
        self.scales: set[str] = set()
        self.beside: set[str] = set()
        self.bare: list[str] = []
        self._bands = Bands()
        for name, tensor in tensors.items():
            made = self._stands_for(name, tensor)
            if made is not None:
                self.found[name] = made
        self._check()
        if self.found:
            self._drop()

    def logical(self) -> Iterator[Tensor]:
        """Yield what the tensors stand for, in their order."""
        for name, tensor in self.tensors.items():
            if name not in self.scales and name not in self.beside:
                yield self.found.get(name, tensor)

    # --- codes ---

    def _stands_for(self, name: str, tensor: Tensor) -> Tensor | None:
        """Return what the codes of that name stand for; None if it is no codes."""
        if tensor.dtype in FP8 or tensor.dtype == "F4":
            scale = self._scale(name, tensor)
            if scale is not None:
                return self._made(name, name, tensor, scale)
            if tensor.dtype in FP8 and len(tensor.shape) > 1:
                self.bare.append(name)
        elif tensor.dtype == "I8":
            scale = self._scale(name, tensor)
            if scale is not None:
                return self._made(name, name, tensor, scale)
            if name.endswith("weight") and len(tensor.shape) > 1 and self._says_integers():
                self.bare.append(name)
        elif name.endswith("_packed") and tensor.dtype in ("I32", "U8"):
            return self._packed(name, tensor)
        elif name.endswith("_blocks") and tensor.dtype == "U8":
            return self._experts(name, tensor)
        elif tensor.dtype in _INTEGERS and name.endswith("weight") and len(tensor.shape) > 1:
            if name + "_scale" in self.tensors:
                raise refused(self.label, "in an unknown layout")
            return None
        return None

    def _says_integers(self) -> bool:
        return self.said is not None and self.said.method == "compressed-tensors"

    def _scale(self, name: str, code: Tensor) -> Tensor | None:
        """Return the scale of codes, under one of the names that it goes by."""
        stem, _, leaf = name.rpartition(".")
        start = stem + "." if stem else ""
        names = [name + "_scale_inv", name + "_scale"]
        if leaf == "weight":
            names += [start + "scale_weight", start + "qscale_weight", start + "scale"]
        for other in names:
            found = self.tensors.get(other)
            if found is None or found.dtype not in layouts.SCALES:
                continue
            if other != start + "scale" or layouts.is_plain_scale(code, found):
                return found
        return None

    def _made(self, name: str, logical: str, code: Tensor, scale: Tensor) -> Tensor:
        """Return the tensor that codes and a scale stand for, and note what goes with them."""
        zero = self._zero(name, scale)
        source, shape = layouts.of(self.label, code, scale, zero, self.said)
        return self._noted(logical, shape, source, (scale, *((zero,) if zero else ())))

    def _noted(self, logical: str, shape: tuple[int, ...], source, parts) -> Tensor:
        self.scales.update(part.name for part in parts)
        return Tensor(logical, "F32", shape, source)

    def _zero(self, name: str, scale: Tensor) -> Tensor | None:
        """Return zero points to be taken from codes; None if there are none but zeros."""
        zero = self.tensors.get(name + "_zero_point")
        if zero is None:
            return None
        if zero.dtype == "I8" and zero.shape == scale.shape:
            return zero
        if zero.size <= layouts.FEW and not np.any(zero.read().view(np.uint8)):
            self.beside.add(zero.name)
            return None
        raise refused(self.label, "compressed-tensors with packed zero points")

    def _packed(self, name: str, code: Tensor) -> Tensor | None:
        logical = name.removesuffix("_packed")
        scale = self.tensors.get(logical + "_scale")
        if scale is None or scale.dtype not in layouts.SCALES:
            if name.endswith("weight_packed"):
                raise self._lacks(name, logical + "_scale")
            return None
        if logical in self.tensors:
            raise CheckpointError(
                f"{self.label}: has both {shown(logical)} and, quantised, {shown(name)}. Remove"
                " one of them."
            )
        if logical + "_g_idx" in self.tensors:
            raise refused(self.label, "compressed-tensors with activation order")
        if self.tensors.get(logical + "_zero_point") is not None:
            zero = self._zero(logical, scale)
            if zero is not None:
                raise refused(self.label, "compressed-tensors with zero points")
        if code.dtype == "U8":
            source, shape = layouts.of(self.label, code, scale, None, self.said)
            return self._noted(logical, shape, source, (scale,))
        said = self.tensors.get(logical + "_shape")
        if said is None:
            raise self._lacks(name, logical + "_shape")
        source, shape = layouts.of_words(self.label, code, scale, said, self.said)
        self.beside.add(said.name)
        return self._noted(logical, shape, source, (scale,))

    def _experts(self, name: str, blocks: Tensor) -> Tensor | None:
        logical = name.removesuffix("_blocks")
        scales = self.tensors.get(logical + "_scales")
        if scales is None:
            if self.said is None and blocks.shape[-1:] != (16,):
                return None
            raise self._lacks(name, logical + "_scales")
        if scales.dtype != "U8":
            return None
        if len(blocks.shape) != 4 or blocks.shape[3] != 16 or blocks.shape[:3] != scales.shape:
            raise refused(self.label, "MXFP4 in an unknown layout")
        source = Experts(blocks, scales, self._bands)
        return self._noted(logical, source.shape, source, (scales,))

    def _lacks(self, name: str, other: str) -> CheckpointError:
        return CheckpointError(
            f"{self.label}: tensor {shown(name)} holds quantised weights, but {shown(other)}, which"
            " goes with it, is missing. Download or copy the whole model."
        )

    # --- what is left over ---

    def _check(self) -> None:
        """Raise for codes without a scale, and scales without codes."""
        quantised = bool(self.found) or (self.said is not None and self.said.method != "mxfp4")
        quantised = quantised or any(_leaf(name) == _MARKER for name in self.tensors)
        if self.bare and quantised:
            raise self._lacks(self.bare[0], self._expected(self.bare[0]))
        if self.bare and not quantised:
            self._check_plain(max(self.bare, key=lambda name: self.tensors[name].size))
        for name, tensor in self.tensors.items():
            taken = name in self.scales or name in self.beside
            if not taken and self._is_scale(name, tensor, quantised):
                raise CheckpointError(
                    f"{self.label}: {shown(name)} is a scale of quantised weights that are not"
                    " there. Download or copy the whole model."
                )

    def _check_plain(self, name: str) -> None:
        """Raise for float8 without a scale whose entries are so large that it must have had one.

        Weights are far below 1; under a scale, the largest of them is 448 or so.
        """
        tensor = self.tensors[name]
        if tensor.size < _FEWEST:
            return
        part = np.empty(min(tensor.size, _SAMPLE), DTYPES[tensor.dtype])
        tensor.read_into(0, part)
        size = np.abs(part.astype(np.float32))
        size = size[np.isfinite(size)]
        if size.size and np.median(size) > _TOO_LARGE:
            raise self._lacks(name, self._expected(name))

    def _expected(self, name: str) -> str:
        """Return what the scale of codes would be called, as others are."""
        sources = (tensor.source for tensor in self.found.values())
        pairs = ((s.code.name, s.scale.name) for s in sources if isinstance(s, Scaled))
        for code, scale in pairs:
            if scale.startswith(code):
                return name + scale[len(code) :]
            return name.removesuffix("weight") + scale.rpartition(".")[2]
        return name + ("_scale" if self._says_integers() else "_scale_inv")

    def _is_scale(self, name: str, tensor: Tensor, quantised: bool) -> bool:
        """Return whether a tensor that no codes have claimed can only be a scale."""
        stem, _, leaf = name.rpartition(".")
        start = stem + "." if stem else ""
        if name.endswith("_scale_inv") or leaf in ("scale_weight", "qscale_weight", "qzeros"):
            return True
        if leaf.endswith("_scales") and tensor.dtype == "U8":
            return True
        if leaf not in ("weight_scale", "weight_shape") or not quantised:
            return False
        weight = self.tensors.get(start + "weight")
        return weight is None or weight.dtype not in WIDE

    def _drop(self) -> None:
        """Note what says nothing without codes."""
        starts = {name[: name.rfind(".") + 1] for name in self.found}
        for name in starts:
            self.beside.update(n for leaf in _BESIDE if (n := name + leaf) in self.tensors)
        for name in self.found:
            more = (name + "_activation_scale", name + "_input_scale")
            self.beside.update(other for other in more if other in self.tensors)
        for name, tensor in self.tensors.items():
            leaf = _leaf(name)
            small = math.prod(tensor.shape) <= 1 and tensor.dtype in layouts.SCALES
            if leaf == _MARKER or (leaf in (*_CACHE, *_BESIDE) and small):
                self.beside.add(name)
        self.beside -= self.scales


def _leaf(name: str) -> str:
    return name[name.rfind(".") + 1 :]
