"""The figure of the README: `python -m experiments.readme` measures the demo's family and draws it.

Mean accuracy over six tasks against alpha, of Task Arithmetic and of Breadcrumbs, on all test
images of `breadcrumbs demo`; rings are what a method does as it comes, lines what
needs no alpha. ``--draw`` only draws again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper.drawing import COLOURS, NAMES, drawn

from breadcrumbs import demo
from breadcrumbs.demo.model import accuracy, load_family
from breadcrumbs.merging import api

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "readme.json"
FIGURE = HERE.parent / "docs" / "figures" / "readme.svg"
ALPHAS = [round(0.1 * step, 1) for step in range(1, 16)]
#: Where labels begin.
END = 1.53
INK, MUTED, GRID = "#1b2330", "#56617a", "#e3e7ee"


def measure() -> dict[str, Any]:
    """Return the rows of the demo by name, and mean accuracies by method and alpha."""
    family, found = load_family(), demo.run()
    models = [str(path) for path in family.finetuned.values()]
    curves: dict[str, dict[float, float]] = {}
    for method in demo.SWEPT:
        curves[method] = {}
        for alpha in ALPHAS:
            merged = api.merge(str(family.base), models, method=method, alpha=alpha)
            curves[method][alpha] = fmean(accuracy(merged, task) for task in family.tasks)
    rows = {
        row.name: {"mean": row.mean, "size": row.size, "alpha": row.alpha} for row in found.rows
    }
    return {"images": found.images, "rows": rows, "curves": curves}


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw a measurement: letters as outlines on a white card, alike on light and dark pages."""
    import matplotlib
    from matplotlib.patches import FancyBboxPatch

    rows = found["rows"]
    with drawn(path, 9.0, 4.0) as (figure, axes):
        matplotlib.rcParams["svg.fonttype"] = "path"
        figure.patch.set_alpha(0)
        card = FancyBboxPatch((0.004, 0.008), 0.992, 0.984, "round,pad=0,rounding_size=0.015")
        card.set(transform=figure.transFigure, mutation_aspect=9.0 / 4.0)
        card.set(facecolor="white", edgecolor=GRID, zorder=-1)
        figure.add_artist(card)
        figure.get_layout_engine().set(rect=(0.02, 0.04, 0.96, 0.92))
        _lines(axes, rows)
        for method, curve in found["curves"].items():
            colour, row = COLOURS[method], rows[method]
            x, y = [float(alpha) for alpha in curve], [100 * mean for mean in curve.values()]
            axes.plot(x, y, color=colour, linewidth=2.6, clip_on=False, zorder=3)
            ring = {"markersize": 9, "markerfacecolor": "white", "markeredgewidth": 2.2}
            axes.plot(row["alpha"], 100 * row["mean"], "o", color=colour, zorder=4, **ring)
            axes.text(
                END, y[-1] + 0.4, NAMES[method], color=colour, va="center", size=11, weight="bold"
            )
        title = (
            f"{len(demo.ASKED)} image classifiers merged into one:"
            " accuracy by how far the merge steps from the base"
        )
        axes.set_title(title, loc="left", fontsize=11.5, color=INK, pad=12)
        axes.set(xlim=(0, 1.5), ylim=(20, 86), yticks=range(20, 81, 20))
        axes.set_xticks([0, 0.5, 1, 1.5], ["0", "0.5", "1", "1.5"])
        axes.set_xlabel("alpha, the length of the step; rings: the default", color=MUTED)
        axes.set_ylabel(f"accuracy, %, {found['images']} test images", color=MUTED)
        axes.tick_params(colors=MUTED, length=0, pad=7)
        axes.grid(axis="x", visible=False)
        for spine in axes.spines.values():
            spine.set_color(GRID)


def _lines(axes: Any, rows: dict[str, Any]) -> None:
    """Draw what needs no alpha as lines, with their numbers at the right."""
    files = len(demo.ASKED)
    for name, label, colour, shift in (
        ("fine-tuned", f"the {files} models themselves, {_size(rows, 'fine-tuned')}", INK, 1.2),
        ("compress", f"all {files} in one file, {_size(rows, 'compress')}", "#00795c", -1.2),
        ("tsv_m", f"one model by TSV-M, {_size(rows, 'tsv_m')}", "#a03b7d", 0),
        ("base", "the base", MUTED, -1.8),
    ):
        mean = 100 * rows[name]["mean"]
        axes.axhline(mean, color=colour, linewidth=1.4, linestyle=(0, (4, 3)))
        text = f"{mean:.1f}  {label}"
        axes.text(END, mean + shift, text, color=colour, va="center", size=10)


def _size(rows: dict[str, Any], name: str) -> str:
    return f"{rows[name]['size'] / 1e6:.2f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.readme", description=__doc__)
    parser.add_argument("--draw", action="store_true", help="only draw what was measured")
    if not parser.parse_args().draw:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
    draw(json.loads(RESULTS.read_text()), FIGURE)


if __name__ == "__main__":
    main()
