"""Quantised weights: codes with scales, as the tensors in floating point that they stand for.

    view(checkpoint, folder)        a checkpoint under logical names, dtype F32, read range by range

What is quantised is found by what the config beside the weights says *and* by the names of tensors:
codes without their scale, scales without codes and layouts that are not known are CheckpointErrors.
`layouts` knows those that are read, `refusing` those that are not, `unknown` finds what neither
names, `blocks` makes FP8 again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from breadcrumbs.checkpoint.quantised import config, refusing, unknown
from breadcrumbs.checkpoint.quantised.finding import Finding
from breadcrumbs.checkpoint.quantised.layouts import FP8
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import CheckpointError

#: Dtypes that codes may have.
_CODES = {*FP8, "F4", "F6_E2M3", "F6_E3M2", "I8", "U8", "I16", "U16", "I32", "U32"}
#: What the metadata have of our files that are no models: task files, archives, statistics.
_OURS = ("breadcrumbs.task", "breadcrumbs.archive", "breadcrumbs.statistics")


def view(checkpoint: Checkpoint, folder: Path | None = None) -> Checkpoint:
    """Return a checkpoint with what its quantised tensors stand for in their place.

    folder: where a config may lie. The same checkpoint where nothing is quantised; it is closed
    where that is an error.
    """
    try:
        return _view(checkpoint, folder)
    except BaseException:
        checkpoint.close()
        raise


def _view(checkpoint: Checkpoint, folder: Path | None) -> Checkpoint:
    if any(key in _OURS for key in checkpoint.metadata):
        return checkpoint
    tensors, said = checkpoint.tensors, config.read(folder)
    if said is None and not any(_is_suspect(name, tensor) for name, tensor in tensors.items()):
        return checkpoint
    refusing.check(checkpoint.label, tensors, said)
    found = Finding(checkpoint.label, tensors, said)
    pair = unknown.found(tensors, [*found.found, *found.scales, *found.beside])
    if pair is not None:
        names = " with ".join(map(shown, pair))
        raise refusing.refused(checkpoint.label, f"in an unknown layout: {names}")
    if not found.found:
        return checkpoint
    companions = tuple(tensors[name] for name in tensors if name in found.beside)
    logical = {tensor.name: tensor for tensor in found.logical()}
    return replace(checkpoint, tensors=logical, companions=companions)


def refuse(checkpoint: Checkpoint, what: str) -> None:
    """Raise CheckpointError if a checkpoint is quantised. what: needs one that is not."""
    layouts = {tensor.layout: 0 for tensor in checkpoint.tensors.values() if tensor.layout}
    if layouts:
        raise CheckpointError(
            f"{checkpoint.label}: has quantised weights ({'; '.join(layouts)}), and {what}"
            " needs floating-point ones. Convert it first: `breadcrumbs merge"
            f" {checkpoint.label} -m task_arithmetic --dtype bfloat16 -o OUT`."
        )


def _is_suspect(name: str, tensor: Tensor) -> bool:
    return tensor.dtype in _CODES or name.endswith(("_scale_inv", "scale_weight", ".SCB"))
