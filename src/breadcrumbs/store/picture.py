"""What stands on the page of a store's log: its revisions, and what it held at each."""

from __future__ import annotations

from breadcrumbs.errors import counted
from breadcrumbs.pages import charts, lines
from breadcrumbs.pages.page import Page, Section, Table
from breadcrumbs.store.history import History, Revision
from breadcrumbs.store.store import Store


def of(store: Store) -> Page:
    """Return the page of a store's history."""
    log, settings = store.log(), store.settings
    now = store.entries()
    history = store.ledger.history()
    held = weights(history)
    facts = [("base", settings.base_name), ("method", settings.method)]
    facts += [(key, str(value)) for key, value in settings.parameters.items()]
    columns = ("revision", "time", "change", "task", "weight", "author", "message")
    table = Table(columns, [_row(revision) for revision in log])
    counts = [("tasks", r.number, len(entries)) for r, entries in history.states()]
    counts = [("tasks", 0, 0)] * (history.first <= 1) + counts
    figures = []
    if log:
        records = [{"x": str(h["number"]), "y": h["name"], "value": h["weight"]} for h in held]
        names = list(dict.fromkeys(h["name"] for h in held))
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
        f"A merged model that is kept up to date: {counted(len(log), 'change')},"
        f" {counted(len(now), 'task')} now.",
        [("revisions", str(len(log))), ("tasks", str(len(now))), ("method", settings.method)],
        [
            Section(
                "History",
                "Each revision adds, replaces or removes a task, sets its weight, or goes back to"
                " an earlier revision.",
                facts,
                figures,
            ),
            Section("Revisions", tables=[table]),
        ],
    )


def weights(history: History) -> list[dict]:
    """Return what each revision held: number, name and weight of each task."""
    return [
        {"number": revision.number, "name": entry.name, "weight": entry.weight}
        for revision, entries in history.states()
        for entry in entries
    ]


def _row(revision: Revision) -> tuple:
    """Return a line of the table of revisions."""
    reverted = revision.target is not None
    what = f"to revision {revision.target}" if reverted else revision.name
    weight = "" if reverted else revision.weight
    by = (revision.author, revision.message)
    return (str(revision.number), revision.time, revision.action, what, weight, *by)
