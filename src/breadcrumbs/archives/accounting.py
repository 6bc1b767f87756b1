"""What compressed models take: by the accounting of the TALL-masks paper, in bits.

Weights are 32 bits each there. Of a model, P weights are trained and F frozen; frozen ones are
stored once.
"""

from __future__ import annotations

from collections.abc import Sequence

from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.plan import equal

BITS = 32


def weights(base: Checkpoint, models: Sequence[Checkpoint]) -> tuple[int, int]:
    """Return the number of weights in tensors that some model changed, and of the others."""
    trained = frozen = 0
    for name, tensor in base.tensors.items():
        if tensor.is_weight:
            others = (model.tensors.get(name) for model in models)
            changed = any(other is not None and not equal(tensor, other) for other in others)
            trained += changed * tensor.size
            frozen += (not changed) * tensor.size
    return trained, frozen


def of_models(tasks: int, trained: int, frozen: int) -> int:
    """Return the bits of all fine-tuned models, ``32 (T P + F)``."""
    return BITS * (tasks * trained + frozen)


def of_masks(tasks: int, trained: int, frozen: int) -> int:
    """Return the bits of the base, one vector, and a mask for each task, ``32 (2 P + F) + T P``.

    Of EMR too, but for one number for each task.
    """
    return BITS * (2 * trained + frozen) + tasks * trained
