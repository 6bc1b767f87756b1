"""How a model computes while it is trained: in which precision, with which attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Up to so many tokens, Torch's plain attention trains faster on a CPU than its fused one.
SHORT = 128


class precise:
    """A context in which products are in the precision that is asked for, and attention is fast."""

    def __init__(self, precision: str, device: torch.device):
        import torch

        narrow = precision == "bfloat16"
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=narrow)
        self._attention = _short_attention() if device.type == "cpu" else None

    def __enter__(self) -> None:
        self._autocast.__enter__()
        if self._attention is not None:
            self._attention.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._attention is not None:
            self._attention.__exit__(*error)
        self._autocast.__exit__(*error)


def _short_attention() -> Any:
    """Return a context in which attention over few tokens is Torch's plain one.

    On a CPU the fused one's backward pass costs a third as much as all matrix products together.
    """
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
