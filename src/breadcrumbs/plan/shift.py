"""Whether the rows of a tied embedding moved alike, which masks ranked over all of it do not bear.

A shift of all rows of a head alike changes no softmax over it, and Adam makes one in most
fine-tunings: small in every entry, and most of the squared length. Entries ranked over the whole
table or model keep it in some rows and cut it in others, where it shows. `breadcrumbs` and its like
rank each row. `ties` ranks the model, as published: where an embedding is the head, too, that may
end below the base, and is warned of.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.checkpoint.tables import is_table
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.plan.plan import Plan, TensorPlan

#: Rows that are read of a table, spread evenly.
ROWS = 256
#: Share of the squared change that a shift has, above which the rows moved alike. Fine-tunings
#: by Adam had 0.4 to 0.8, those by SGD 0.00, and embeddings that are no head 0.00.
ALIKE = 0.3


def warning(plan: Plan) -> str:
    """Return what is said of a tied embedding whose rows are ranked together, or nothing."""
    tables = [t for t in plan.tensors if is_table(t.name) and len(t.base.shape) == 2 and not t.tied]
    if len(tables) != 1 or tables[0].copied or plan.lowered.band is None:
        return ""
    (table,) = tables
    together = {own.values.get("granularity") for own in table.own} - {"row"}
    if not together or not any(own.weight for own in table.own):
        return ""
    share = shared(table)
    if share < ALIKE:
        return ""
    return (
        f"the rows of {table.name} moved alike ({share:.0%} of its change is one shift of all rows)"
        " and are ranked together, so the result may do worse than the base: give granularity row,"
        " or take method tsv_m or average"
    )


def shared(table: TensorPlan) -> float:
    """Return the share of the squared change of a table that is one shift of all its rows."""
    rows, width = table.base.shape
    found = []
    for row in np.unique(np.linspace(0, rows - 1, min(rows, ROWS)).astype(int)):
        base = _read(table.base, int(row) * width, width)
        change = np.zeros_like(base)
        for model, own in zip(table.models, table.own, strict=True):
            if model is not None:
                change += own.weight * (_read(model, int(row) * width, width) - base)
        found.append(change)
    changes = np.nan_to_num(np.array(found), nan=0.0, posinf=0.0, neginf=0.0)
    square = float(np.sum(changes**2))
    return float(np.sum(changes.sum(axis=0) ** 2)) / len(changes) / square if square else 0.0


def _read(tensor: Tensor, start: int, n: int) -> np.ndarray:
    found = np.empty(n, DTYPES[tensor.dtype])
    tensor.read_into(start, found)
    return found.astype(np.float64)
