"""A suite on disk: one table a task, suite.yaml, and sources.json with the packages' hashes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

import yaml
from experiments.suites.splits import Splits
from experiments.suites.tasks import Suite


def suite(out: Path, name: str, of: Suite, tasks: Mapping[str, Splits], sources: Mapping) -> None:
    """Write the tables of the tasks, and the suite that names them."""
    (out / "data").mkdir(parents=True, exist_ok=True)
    for task, splits in tasks.items():
        (out / "data" / f"{task}.csv").write_text(table(splits), encoding="utf-8", newline="")
    declared = {
        "suite": name,
        "foundation": dict(of.foundation),
        "base": of.base or "base",
        "tasks": [
            {"task": one.name, "data": f"data/{one.name}.csv", "text": "text", "label": "label"}
            | dict(one.more)
            for one in of.tasks
        ],
    }
    (out / "suite.yaml").write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")
    said = json.dumps(sources, indent=2, sort_keys=True)
    (out / "sources.json").write_text(said + "\n", encoding="utf-8")


def table(splits: Splits) -> str:
    """Return the rows of all splits as CSV: text, label, split."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("text", "label", "split"))
    for split, examples in splits.items():
        writer.writerows((example.text, example.label, split) for example in examples)
    return text.getvalue()


def counts(splits: Splits) -> str:
    """Return how many rows of each split, and how many classes there are, in one line."""
    rows = ", ".join(f"{len(examples)} {split}" for split, examples in splits.items())
    return f"{rows}, {len({e.label for e in splits['train']})} classes"
