"""What a checkpoint, or a recipe, says of the rows that its weights were learned from.

In the metadata (key `META`) as JSON: ``version`` 1, what was learned and how, hashes of the
``model`` that it began as, of the ``base`` and of the ``foundation``, what was drawn (``draw``) and
of each task its ``labels``, the ``expert`` (a hash), ``rows`` (their digest), ``keys`` (16 digits
of each row's) and ``encoder_passes``. Rows of results have it from there. A recipe whose numbers
were learned says it too (`plan.learned`), and so does what is merged by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.safetensors import open_safetensors
from breadcrumbs.errors import BreadcrumbsError, CheckpointError
from breadcrumbs.merging import reproducing
from breadcrumbs.plan.recipe import Recipe

META, VERSION = "breadcrumbs.learned", 1
#: Digits of a row's key that are kept.
DIGITS = 16


def read(file: str, meta: str, missing: str) -> tuple[str, dict[str, np.ndarray]]:
    """Return what a file of learned numbers says of itself, and these.

    CheckpointError, which says ``missing``, for a file without that key in its metadata.
    """
    with open_safetensors(file) as found:
        if said := found.metadata.get(meta):
            return said, {name: np.array(found[name]) for name in found}
    raise CheckpointError(f"{file}: {missing}")


def parsed(said: str, version: int, file: str) -> dict[str, Any]:
    """Return what a file says of itself, without its version; CheckpointError for another one.

    ValueError and its like for what no program of ours wrote.
    """
    about = json.loads(said)
    if (its := about.pop("version")) != version:
        raise CheckpointError(
            f"{file}: is of version {its} of the format, and this breadcrumbs knows {version}."
            " Update breadcrumbs."
        )
    return about


def of(metadata: Mapping[str, str], label: str) -> Mapping[str, Any] | None:
    """Return what the metadata of a checkpoint say, or None if it was not learned.

    CheckpointError where they are damaged or of another version.
    """
    if META not in metadata:
        return None
    try:
        about = json.loads(metadata[META])
        if about["version"] != VERSION:
            raise ValueError
        for one in about["tasks"].values():
            facts(about["draw"], one, "", ())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{label}: what it says of the rows that it was learned from is damaged, or of a later"
            " version. Update breadcrumbs, or learn it again."
        ) from None
    return about


def of_recipe(recipe: Recipe) -> Mapping[str, Any] | None:
    """Return what a recipe says, as `of` does, or None if none of its numbers were learned."""
    told = recipe.learned
    if not told:
        return None
    tasks = told["tasks"].items()
    return {
        "draw": told,
        "tasks": {name: {**task, "keys": task["keys"].split()} for name, task in tasks},
    }


def of_merged(path: str) -> Mapping[str, Any] | None:
    """Return what the recipe in a merged model says, if it is on this machine and has one."""
    place = Path(path)
    if not place.exists():
        return None
    try:
        return of_recipe(reproducing.found(place))
    except BreadcrumbsError:  # it was not merged here
        return None


def facts(
    draw: Mapping[str, Any], task: Mapping[str, Any], split: str, keys: Iterable[bytes]
) -> dict[str, Any]:
    """Return what a row of results says of what was learned for a task.

    draw: `Draw.to_mapping`. task: ``rows``, ``keys`` and ``encoder_passes``. split, keys: of the
    rows that are scored; where one of them was learned from, the row is transductive.
    """
    same = split == ("test" if draw["split"] == "test-inputs" else draw["split"])
    seen = set(task["keys"])
    return {
        "learned_split": draw["split"],
        "learned_rows": len(task["keys"]),
        "learned_from": task["rows"],
        "answers": draw["answers"],
        "transductive": same or any(key.hex()[:DIGITS] in seen for key in keys),
        "encoder_passes": task["encoder_passes"],
    }
