"""Rows of results in a model card, as hubs read them: `model-index`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from breadcrumbs.errors import CheckpointError, ResultsError, counted, listing
from breadcrumbs.evaluate.results.results import Results, Row

README = "README.md"


def rows_of(model: str, hash: str, results: str, split: str = "test") -> list[Row]:
    """Return what the weights of a hash score, the latest row of each task; ResultsError if none.

    model: what messages call it.
    """
    with Results(results, readonly=True) as kept:
        found = kept.select(model=hash, split=split)
    if not found:
        raise ResultsError(
            f"{results}: has no {split} rows of {model}, whose weights have the hash"
            f" {hash[:12]}. Score it first: breadcrumbs evaluate {model} --results {results}"
        )
    return list({(row.suite, row.task): row for row in found}.values())


def update(
    folder: Path, rows: Sequence[Row] = (), said: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write rows and other lines of front matter into the model card of a folder; return all of it.

    said: by key, such as ``license``; a value of None is left as it is. CheckpointError without a
    card, or for one that cannot be read.
    """
    from huggingface_hub import EvalResult, ModelCard

    path = folder / README
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no model card. Give a folder that a merge wrote.")
    try:
        card = ModelCard.load(path)
    except Exception as error:  # of several libraries: no YAML, or no mapping
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: its front matter cannot be read ({why}). Fix it.") from None
    data: Any = card.data  # whose attributes are what the front matter has
    for key, value in (said or {}).items():
        if value is not None:
            setattr(data, key, value)
    if (said or {}).get("base_model"):
        data.base_model_relation = "merge"
    if rows:
        tag = data.pipeline_tag or ""
        data.model_name = data.model_name or folder.resolve().name
        data.eval_results = [
            EvalResult(
                task_type=tag if tag.endswith("classification") else "other",
                dataset_type=row.task,
                dataset_name=f"{row.task} of {row.suite}",
                dataset_split=row.split,
                dataset_revision=row.rows,
                metric_type=row.metric,
                metric_value=round(row.value, 6),
                metric_args={"standard_error": round(row.stderr, 6), "rows": row.items},
            )
            for row in rows
        ]
    if rows or any(value is not None for value in (said or {}).values()):
        card.save(path)
    return data.to_dict()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def summary(folder: Path, rows: Sequence[Row], front: dict[str, Any]) -> str:
    """Return in a line what a card says now."""
    parts = [f"license {front.get('license', 'not stated')}"]
    base = _listed(front["base_model"]) if front.get("base_model") else []
    parts.append(f"base_model {listing(base)}" if base else "no base_model, since no id is known")
    parts += [f"{counted(len(rows), 'row')} in model-index"] if rows else []
    return f"{folder / README}: {'; '.join(parts)}"
