"""Figures that are the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: One colour a method, safe for the colour-blind (Okabe and Ito).
COLOURS = {
    "breadcrumbs": "#0072B2",
    "breadcrumbs (authors)": "#56B4E9",
    "task_arithmetic": "#D55E00",
    "ties": "#009E73",
    "tsv_m": "#CC79A7",
    "iso_c": "#E69F00",
    "random_sparsed": "#999999",
}
NAMES = {
    "breadcrumbs": "Breadcrumbs",
    "breadcrumbs (authors)": "Breadcrumbs (authors' variant)",
    "task_arithmetic": "Task Arithmetic",
    "ties": "TIES",
    "tsv_m": "TSV-M",
    "iso_c": "Iso-C",
    "random_sparsed": "random mask",
}


@contextmanager
def drawn(path: Path, width: float = 5.0, height: float = 3.4, **axes: Any) -> Iterator[Any]:
    """Give a figure and its axes, ``(figure, axes)``, and write it as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style: dict[Any, Any] = {
        "svg.hashsalt": "breadcrumbs",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
    }
    with plt.rc_context(style):
        figure, made = plt.subplots(figsize=(width, height), layout="constrained", **axes)
        yield figure, made
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
