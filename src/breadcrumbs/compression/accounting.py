"""What compressed models take: by the accounting of the TALL-masks paper, in bits.

Weights are 32 bits each there. Of a model, P weights are trained and F frozen; frozen ones are
stored once.
"""

from __future__ import annotations

BITS = 32


def of_models(tasks: int, trained: int, frozen: int) -> int:
    """Return the bits of all fine-tuned models, ``32 (T P + F)``."""
    return BITS * (tasks * trained + frozen)


def of_masks(tasks: int, trained: int, frozen: int) -> int:
    """Return the bits of the base, one vector, and a mask for each task, ``32 (2 P + F) + T P``.

    Of EMR too, but for one number for each task.
    """
    return BITS * (2 * trained + frozen) + tasks * trained
