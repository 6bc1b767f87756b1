"""The dtypes that are written."""

from __future__ import annotations

from collections.abc import Sequence

from breadcrumbs.checkpoint.quantised.blocks import is_block_fp8
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.errors import RecipeError
from breadcrumbs.plan.plan import TensorPlan
from breadcrumbs.plan.recipe import OUTPUT_DTYPES, SAME, Recipe


def output_dtype(recipe: Recipe, tensor: Tensor) -> str:
    """Return the dtype of what is made of ``tensor``, to which steps are added.

    Quantised weights become bfloat16, or float32 where they are quantised again after that.
    """
    if not tensor.is_float:
        return tensor.dtype
    if recipe.dtype not in (None, SAME):
        return OUTPUT_DTYPES[recipe.dtype]
    return "BF16" if tensor.layout and recipe.dtype is None else tensor.dtype


def check_same(recipe: Recipe, target: Checkpoint, tensors: Sequence[TensorPlan]) -> None:
    """Raise RecipeError if weights are to be quantised again in a way that is not written."""
    if recipe.dtype != SAME:
        return
    if target.layers and target.quantised:
        raise RecipeError(
            f"{target.label}: dtype same does not write stacks of quantised weights. Leave it out"
            " to write bfloat16."
        )
    tied = [tensor for tensor in tensors if tensor.tied and tensor.target.layout]
    if tied:
        raise RecipeError(
            f"{target.label}: dtype same does not write tied copies of quantised weights, such as"
            f" {tied[0].name!r}. Leave it out to write bfloat16."
        )
    other = [t for t in target.tensors.values() if t.layout and not is_block_fp8(t)]
    if other:
        scale = getattr(other[0].source, "scale", None)
        scales = f" with scales of {scale.dtype}" if scale is not None else ""
        raise RecipeError(
            f"{target.label}: dtype same writes FP8 in blocks with scales of F32, BF16 or F8_E8M0,"
            f" and {other[0].name!r} is {other[0].layout}{scales}. Leave it out to write bfloat16."
        )
