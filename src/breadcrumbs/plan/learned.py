"""What a recipe says of the rows that its numbers were learned from, as plain data.

    as: adamerging         # what was learned
    loss: kl
    split: validation      # or train, or test-inputs
    rows: 64               # drawn of each task; null is all
    answers: expert        # none, expert or labels
    seed: 0
    tasks:
      NAME: {rows: DIGEST, keys: "HEX HEX ...", encoder_passes: 3264}

``keys`` are digits of what identifies each row's input, so that a score on one of them is known for
what it is.
"""

from __future__ import annotations

from typing import Any

from breadcrumbs.plan.declared import RECIPE

SPLITS = ("train", "validation", "test-inputs")
_KEYS = ("as", "loss", "split", "rows", "answers", "seed", "tasks")
_TASK = ("rows", "keys", "encoder_passes")


def parsed(data: Any, where: str) -> dict[str, Any]:
    """Return what a recipe says, checked; RecipeError begins with ``where``."""
    data = RECIPE.mapping(data, where, _KEYS)
    if not data:
        return {}
    for key in _KEYS:
        if key not in data:
            raise RECIPE.error(f"{where}: there is no {key!r}. Leave it as it was written.")
    for key in ("as", "loss", "answers"):
        RECIPE.line(data[key], f"{where}: {key}")
    RECIPE.choice(data["split"], f"{where}: split", SPLITS)
    for key in ("rows", "seed"):
        if key != "rows" or data[key] is not None:
            RECIPE.whole(data[key], f"{where}: {key}")
    tasks = RECIPE.mapping(data["tasks"], f"{where}: tasks")
    for name, entry in tasks.items():
        here = f"{where}: tasks: {name}"
        entry = RECIPE.mapping(entry, here, _TASK)
        for key in ("rows", "keys"):
            RECIPE.line(entry.get(key), f"{here}: {key}")
        RECIPE.whole(entry.get("encoder_passes"), f"{here}: encoder_passes")
    return {**data, "tasks": tasks}
