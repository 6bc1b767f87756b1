"""What docs/paper.md gets of each figure: its table, out of experiments/results/NAME.json."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from statistics import fmean
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "results"
FIGURES = ("fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "fig9")
NAMES = (
    "table1",
    *FIGURES,
    "table2",
    "tall",
    "votes",
    "alpha",
    "encodings",
    "store",
    "compressed",
)


def filled(name: str) -> str:
    """Return the table of one figure, with how it was made; a word where nothing was measured."""
    path = RESULTS / f"{name}.json"
    return table(name, path) if path.exists() else "Not measured yet."


def table(name: str, path: Path) -> str:
    """Return the table of a figure out of a file of results, and a line on how it was made."""
    found = json.loads(path.read_text())
    return f"{importlib.import_module(f'experiments.paper.{name}').table(found)}\n\n{_made(found)}"


def _made(found: dict[str, Any]) -> str:
    each = fmean(found["seconds"].values()) / 60
    number = len(found["seeds"])
    over = f"Mean ± standard error over {number} seeds" if number > 1 else "One seed"
    return (
        f"{over} of fine-tuning; {found['suite']}."
        f" `{found['command']}`; {each:.0f} min a seed ({found['machine']})."
    )
