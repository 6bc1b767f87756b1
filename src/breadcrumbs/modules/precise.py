"""How a model computes: in which precision, and while it is trained with which attention."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Up to so many tokens, Torch's plain attention trains faster on a CPU than its fused one.
SHORT = 128


def precise(precision: str, device: torch.device) -> torch.autocast:
    """Return a context in which products are in the precision that is asked for."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def short_attention(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context to train in, in which attention over few tokens is Torch's plain one.

    On a CPU the fused one's backward pass costs a third as much as all matrix products together.
    """
    if device.type != "cpu":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention
    from torch.overrides import TorchFunctionMode

    class ShortAttention(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if func is scaled_dot_product_attention:
                query = args[0] if args else kwargs["query"]
                if query.shape[-2] <= SHORT:
                    with sdpa_kernel(SDPBackend.MATH):
                        return func(*args, **kwargs)
            return func(*args, **kwargs)

    return ShortAttention()
