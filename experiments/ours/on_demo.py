"""Methods untuned on the test rows of `breadcrumbs demo`: `... ours.on_demo polar iso_c`."""

from __future__ import annotations

import json
import sys
from statistics import fmean
from typing import Any

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.demo.model import accuracy, load_family


def main() -> None:
    family = load_family()
    own = {
        task: accuracy(dict(checkpoint.open(path)), task, "test")
        for task, path in family.finetuned.items()
    }
    models = [str(family.finetuned[task]) for task in own]
    for method in sys.argv[1:]:
        name, _, given = method.partition(":")
        pairs = (one.split("=") for one in given.split(",") if one)
        values: dict[str, Any] = {key: float(value) for key, value in pairs}
        merged = dict(breadcrumbs.merge(str(family.base), models, method=name, **values))
        value = fmean(accuracy(merged, task, "test") / own[task] for task in own)
        row = {"suite": "demo", "tasks": len(own), "step": method, "value": round(100 * value, 2)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
