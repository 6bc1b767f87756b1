"""Where models run, in which precision, and what they take in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from breadcrumbs.errors import MissingExtraError, SuiteError, install, suggestion

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16")


def require_torch() -> None:
    """Raise MissingExtraError where Torch or transformers are not installed."""
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"evaluation needs {error.name}, which is not installed. {install('evaluate')}"
        ) from None


def device(wanted: str = "auto") -> torch.device:
    """Return the device to use: a GPU where there is one, unless told."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(wanted)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SuiteError(f"--device {wanted}: {reason}. Give cpu, or cuda.") from None
    return found


def precision(wanted: str, where: torch.device) -> str:
    """Return ``float32`` or ``bfloat16``: the narrow one where the device has it, unless told."""
    import torch

    if wanted not in PRECISIONS:
        raise SuiteError(
            f"--precision {wanted!r}: give one of {', '.join(PRECISIONS)}."
            f"{suggestion(wanted, PRECISIONS)}"
        )
    if wanted != "auto":
        return wanted
    if where.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 by itself: elsewhere it is slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
