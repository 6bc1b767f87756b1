"""What a row of results says of a merge whose numbers were learned from rows.

A recipe says it (`plan.learned`), and so does every file that it was merged to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.evaluate.corrections.heads import DIGITS
from breadcrumbs.merging import reproducing


def of_file(path: str) -> Mapping[str, Any]:
    """Return what the recipe in a merged model on this machine says, or nothing."""
    place = Path(path)
    if not place.exists():
        return {}
    try:
        return reproducing.found(place).learned
    except BreadcrumbsError:  # it was not merged here
        return {}


def facts(
    learned: Mapping[str, Any], task: str, split: str, keys: Iterable[bytes]
) -> dict[str, Any]:
    """Return the columns of a row. keys: of the rows that are scored. Empty if nothing is said."""
    if not learned:
        return {}
    mine = learned["tasks"].get(task)
    seen = set() if mine is None else set(mine["keys"].split())
    of = "test" if learned["split"] == "test-inputs" else learned["split"]
    return {
        "learned_split": learned["split"],
        "learned_rows": len(seen),
        "learned_from": None if mine is None else mine["rows"],
        "answers": learned["answers"],
        "transductive": (mine is not None and split == of)
        or any(key.hex()[:DIGITS] in seen for key in keys),
        "task_known": False,
        "extra_numbers": 0,
        "encoder_passes": 0 if mine is None else mine["encoder_passes"],
    }
