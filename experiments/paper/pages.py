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
    if not path.exists():
        return "Not measured yet."
    found = json.loads(path.read_text())
    return importlib.import_module(f"experiments.paper.{name}").table(found) + made(found)


def made(found: dict[str, Any]) -> str:
    """Return how numbers were made, as a line."""
    each = fmean(found["seconds"].values()) / 60
    number = len(found["seeds"])
    over = f"Mean ± standard error over {number} seeds" if number > 1 else "One seed"
    return (
        f"\n\n{over} of fine-tuning; {found['suite']}."
        f" `{found['command']}`; {each:.0f} min a seed ({found['machine']})."
    )
