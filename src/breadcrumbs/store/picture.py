"""What stands on the page of a store's log: its revisions, and what it held at each."""

from __future__ import annotations

from collections.abc import Sequence

from breadcrumbs.pages import charts, lines
from breadcrumbs.pages.page import Page, Section, Table
from breadcrumbs.store.ledger import Revision, replay
from breadcrumbs.store.store import Store


def of(store: Store) -> Page:
    """Return the page of a store's history."""
    log, settings = store.log(), store.settings
    now = store.entries()
    held = weights(log)
    facts = [("base", settings.base_name), ("method", settings.method)]
    facts += [(key, str(value)) for key, value in settings.parameters.items()]
    rows = [(str(r.number), r.time, r.action, r.name, r.weight, r.task[:12]) for r in log]
    table = Table(("revision", "time", "change", "task", "weight", "BLAKE3"), rows)
    counts = [("tasks", 0, 0)] + [
        ("tasks", r.number, sum(1 for one in held if one["number"] == r.number)) for r in log
    ]
    figures = []
    if log:
        records = [{"x": str(h["number"]), "y": h["name"], "value": h["weight"]} for h in held]
        names = list(dict.fromkeys(r.name for r in log))
        figures = [
            charts.heat(
                "tasks",
                "Which tasks the model held",
                "Columns are revisions, rows tasks; the colour is the task's weight, and an empty"
                " place means that it was not in the model.",
                records,
                x=("revision", [str(r.number) for r in log]),
                y=("", names),
                value=("weight", ".2~f"),
                tips=[("value", "weight", ".3~f")],
                table=Table(
                    ("revision", "task", "weight"),
                    [(r["x"], r["y"], r["value"]) for r in records],
                ),
            ),
            lines.curves(
                "growth",
                "How many tasks",
                "The number of tasks in the model after each revision.",
                counts,
                x="revision",
                y="tasks",
                series="",
                form="d",
                best=False,
                step=True,
                whole=True,
            ),
        ]
    return Page(
        f"History of {store.folder.name}",
        "store log",
        f"A merged model that is kept up to date: {len(log)} changes, {len(now)} tasks now.",
        [("revisions", str(len(log))), ("tasks", str(len(now))), ("method", settings.method)],
        [
            Section(
                "History",
                "Each revision adds or removes a task, or sets its weight.",
                facts,
                figures,
            ),
            Section("Revisions", tables=[table]),
        ],
    )


def weights(log: Sequence[Revision]) -> list[dict]:
    """Return what each revision held: number, name and weight of each task."""
    return [
        {"number": revision.number, "name": entry.name, "weight": entry.weight}
        for i, revision in enumerate(log)
        for entry in replay(log[: i + 1])
    ]
