"""Tasks of small tables, and what reading them must give or refuse."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data import declared
from breadcrumbs.evaluate.data.task import Rows, Split, Task

RECORDS = [{"text": f"text {i}, 'ä'", "label": ("spam", "ham", "other")[i % 3]} for i in range(60)]


def task(folder: Path, **entry: Any) -> Task:
    """Return the task of a declaration; columns are `text` and `label` unless told."""
    return declared.read({"task": "t", **entry}, folder, "base", "suite.yaml: tasks[0]")[0].task


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write records as a table of the kind that the file's ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(records), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        pytest.importorskip("datasets").Dataset.from_list(records).to_parquet(str(path))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, records[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(records)
    return path


def refused(expected: str, folder: Path, split: Split = "train", **entry: Any) -> str:
    """Check that reading a split is refused, on one line that names the task."""
    with pytest.raises(SuiteError, match=expected) as error:
        task(folder, **entry).rows(split)
    text = str(error.value)
    assert text.startswith("task 't': ") and "\n" not in text
    return text


def pairs(rows: Rows, labels: Any) -> list[tuple[Any, str]]:
    return [(x, labels[y]) for x, y in zip(rows.inputs, rows.labels, strict=True)]


def png(color: tuple[int, int, int], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (4, 3), color).save(buffer, kind)
    return buffer.getvalue()
