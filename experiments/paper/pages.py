"""What pages get of each figure: its table, out of experiments/results/NAME.json."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper import standings

RESULTS = Path(__file__).resolve().parent.parent / "results"
FIGURES = ("fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "fig9")
NAMES = (
    "frontier",
    *FIGURES,
    "table2",
    "tall",
    "votes",
    "alpha",
    "encodings",
    "store",
    "compressed",
)
#: docs/paper.md shows one suite of the table, docs/table.md all.
FILES = {"frontier": "frontier-text8"}
#: What docs/table.md shows of all suites.
TABLES = {
    "untuned": standings.untuned,
    "gains": standings.gains,
    "suites": lambda every: "\n\n".join(map(_suite, every)),
    "missing": standings.missing,
}


def path(name: str) -> Path:
    """Return the file of results of a figure."""
    return RESULTS / f"{FILES.get(name, name)}.json"


def filled(name: str) -> str:
    """Return the table of one figure, with how it was made; a word where nothing was measured."""
    return table(name, path(name)) if path(name).exists() else "Not measured yet."


def table(name: str, path: Path) -> str:
    """Return the table of a figure out of a file of results, and a line on how it was made."""
    found = json.loads(path.read_text())
    return f"{importlib.import_module(f'experiments.paper.{name}').table(found)}\n\n{_made(found)}"


def frontier(name: str) -> str:
    """Return one of `TABLES`, or the leaders, over all suites that were measured."""
    make = standings.leaders if name == "leaders" else TABLES[name]
    return make(_every())


def suite_of(name: str) -> str:
    """Return what `frontier` measured of a suite, and of adapters that were trained on it."""
    return "\n\n".join(_suite(found) for found in _every() if found["suite"].startswith(name))


def _every() -> list[dict[str, Any]]:
    every = [json.loads(path.read_text()) for path in RESULTS.glob("frontier-*.json")]
    return sorted(every, key=_place)


def _place(found: dict[str, Any]) -> tuple[int, str]:
    suite = found["suite"].partition(",")[0]
    order = standings.ORDER
    return (order.index(suite) if suite in order else len(order)), found["suite"]


def _suite(found: dict[str, Any]) -> str:
    return f"### {found['suite']}\n\n{standings.table(found)}\n\n{_made(found)}"


def _made(found: dict[str, Any]) -> str:
    each = fmean(found["seconds"].values()) / 60
    number = len(found["seeds"])
    over = f"Mean ± standard error over {number} seeds" if number > 1 else "One seed"
    return (
        f"{over} of fine-tuning; {found['suite']}."
        f" `{found['command']}`; {each:.0f} min a seed ({found['machine']})."
    )
