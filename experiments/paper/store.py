"""A store of task files: every fine-tuning put in, three taken out, each revision scored.

After each change the merged model is written, compared bit for bit with the merge of the fine-tuned
checkpoints of the tasks that are in, and scored on the test rows of these tasks.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper.choosing import mean
from experiments.paper.drawing import drawn
from experiments.paper.family import Family, say
from experiments.paper.tables import by_seed, markdown, percent

import breadcrumbs
from breadcrumbs.checkpoint.hashing import model_hash
from breadcrumbs.store import Store

#: As Table 1 chose on validation rows for eight tasks.
PARAMETERS = {"variant": "authors", "beta": 0.85, "gamma": 0.993, "alpha": 0.5}
#: Positions of the tasks that are taken out.
REMOVED = (1, 4, 6)


def measure(family: Family) -> dict[str, Any]:
    """Return a row for each revision, and what verifying the last one found."""
    changes = [("add", name) for name in family.tasks]
    changes += [("remove", family.tasks[i]) for i in REMOVED if i < len(family.tasks) - 1]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store")
        with Store.create(path, family.suite.base, **PARAMETERS) as store:
            for action, name in changes:
                began = time.perf_counter()
                if action == "add":
                    store.add(name, family.model(name))
                else:
                    store.remove(name)
                row = {"action": action, "name": name, "seconds": time.perf_counter() - began}
                rows.append(row | _model(family, store, Path(folder)))
                say(f"store: {rows[-1]}")
            verified = store.verify()
            sizes = {task.said["name"]: task.bytes for task in store.ledger.tasks().values()}
    return {
        "rows": rows,
        "bytes": sizes,
        "bytes of a model": [family.nbytes(name) for name in sizes],
        "verified": verified.hash == rows[-1]["hash"],
        "blocks": verified.blocks,
    }


def _model(family: Family, store: Store, folder: Path) -> dict[str, Any]:
    """Write the merged model of a store; return how it scores, and whether it is the right one."""
    names = [entry.name for entry in store.entries()]
    output = folder / "merged"
    began = time.perf_counter()
    store.merge(output, force=True)
    seconds = time.perf_counter() - began
    models = [family.model(name) for name in names]
    method = store.settings.method
    again = breadcrumbs.merge(family.suite.base, models, method=method, **PARAMETERS)
    found = model_hash(output)
    return {
        "tasks": names,
        "merge seconds": seconds,
        "hash": found,
        "same bits": found == model_hash(again),
        "normalised": mean(family.on(str(output), names)),
    }


def table(found: dict[str, Any]) -> str:
    """Return what a store holds after each change, and what that scores."""
    every, rows = by_seed(found), []
    for number, row in enumerate(every[0]["rows"]):
        mine = [one["rows"][number] for one in every]
        sizes = [one["bytes"][row["name"]] for one in every]
        times = [fmean(one[key] for one in mine) for key in ("seconds", "merge seconds")]
        rows.append(
            [
                f"{row['action']} {row['name']}",
                str(len(row["tasks"])),
                f"{fmean(sizes) / 1e6:.2f} MB" if row["action"] == "add" else "",
                *(f"{seconds:.1f} s" for seconds in times),
                "yes" if all(one["same bits"] for one in mine) else "NO",
                percent([one["normalised"] for one in mine]),
            ]
        )
    head = ["change", "tasks", "task file", "time", "writing the model"]
    shown = markdown([*head, "bits of the merged checkpoints", "normalised, %"], rows)
    models = [size for one in every for size in one["bytes of a model"]]
    good = all(one["verified"] for one in every)
    said = "found the same" if good else "DID NOT FIND the same"
    text = (
        f"A fine-tuned checkpoint is {fmean(models) / 1e6:.1f} MB. `store verify` {said} bits from"
        f" scratch, and {every[0]['blocks']} blocks of the sum whole."
    )
    return f"{shown}\n\n{text}"


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw the score after each change."""
    seeds = by_seed(found)
    rows = seeds[0]["rows"]
    with drawn(folder / "store.svg", 6.0) as (_, axis):
        for seed in seeds:
            axis.plot([100 * row["normalised"] for row in seed["rows"]], "o-", color="#0072B2")
        signs = {"add": "+", "remove": "-"}
        labels = [f"{signs[row['action']]} {row['name']}" for row in rows]
        axis.set_xticks(range(len(rows)), labels, rotation=45, ha="right")
        axis.set_ylabel("normalised accuracy of what is in, %")
