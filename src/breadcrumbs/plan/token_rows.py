"""What a recipe says of the rows of single tokens, under ``tokens``: which rows they begin as.

    tokens:
      "<|im_start|>": chat                          # the row that this model has for it
      "<|tool|>": {model: chat, token: "<|end|>"}   # that of another token, or {..., id: 7}
      "<|spare|>": zero                             # zeros
      "<|im_end|>": {model: chat, force: true}      # for all models, also those that have their own

The row takes the base's place, if that has none of its own, and stands for the model's in models
that lack the token; a token that no model has is added. With ``force`` it is what all have, so that
it is in the output as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from breadcrumbs.errors import RecipeError
from breadcrumbs.plan.declared import RECIPE

ZERO = "zero"
_KEYS = ("model", "token", "id", "zero", "force")


def parsed(given: Any, where: str) -> dict[str, dict[str, Any]]:
    """Return by token what is said of its row, as mappings of `_KEYS`; RecipeError for else."""
    found = RECIPE.mapping(given, where)
    return {token: _one(said, f"{where}: {token!r}") for token, said in found.items()}


def _one(said: Any, where: str) -> dict[str, Any]:
    if isinstance(said, str) and said:
        return {"zero": True} if said == ZERO else {"model": said}
    if not isinstance(said, Mapping):
        raise RecipeError(f"{where}: give the model whose row it is, or zero.")
    row = RECIPE.mapping(said, where, _KEYS)
    for key in ("model", "token"):
        if key in row:
            RECIPE.text(row[key], f"{where}: {key}")
    if "id" in row:
        RECIPE.whole(row["id"], f"{where}: id")
    for key in ("zero", "force"):
        if not isinstance(row.get(key, False), bool):
            raise RecipeError(f"{where}: {key}: {row[key]!r} is neither true nor false.")
    if bool(row.get("zero")) == ("model" in row):
        raise RecipeError(f"{where}: give a model, or zero.")
    if "token" in row and "id" in row:
        raise RecipeError(f"{where}: token and id are two ways to say one thing. Give one.")
    if ("token" in row or "id" in row) and "model" not in row:
        raise RecipeError(f"{where}: a token or an id is one of a model. Give the model.")
    return row


def renamed(
    rows: Mapping[str, Mapping[str, Any]], rename: Callable[[str], str]
) -> dict[str, dict[str, Any]]:
    """Return what is said of rows with the models under other paths."""
    return {
        token: dict(row) | ({"model": rename(row["model"])} if "model" in row else {})
        for token, row in rows.items()
    }
