"""Fig. 9: how much the parameters matter: alpha by beta, beta by gamma."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.paper.drawing import drawn
from experiments.paper.family import Family
from experiments.paper.tables import by_seed, markdown

ALPHAS = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6)
BETAS = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95)
GAMMAS = (0.97, 0.98, 0.99, 0.993, 1.0)
GAMMA, ALPHA = 0.99, 0.5


def measure(family: Family) -> dict[str, Any]:
    """Return validation scores: alpha by beta at gamma 0.99, beta by gamma at alpha 0.5."""
    first = [
        family.recipe("breadcrumbs", beta=beta, gamma=GAMMA, alpha=alpha)
        for alpha in ALPHAS
        for beta in BETAS
    ]
    second = [
        family.recipe("breadcrumbs", beta=beta, gamma=gamma, alpha=ALPHA)
        for beta in BETAS
        for gamma in GAMMAS
        if beta < gamma
    ]
    found = family.scores([*first, *second], "validation", saying="fig9")
    rows = [{**one.recipe.parameters, "value": round(one.mean, 5)} for one in found]
    return {"alpha_beta": rows[: len(first)], "beta_gamma": rows[len(first) :]}


def average(found: dict[str, Any], part: str, across: str, up: str) -> dict[tuple, float]:
    """Return (across, up) -> mean over seeds."""
    cells: dict[tuple, list[float]] = {}
    for seed in by_seed(found):
        for row in seed[part]:
            cells.setdefault((row[across], row[up]), []).append(row["value"])
    return {key: sum(values) / len(values) for key, values in cells.items()}


def table(found: dict[str, Any]) -> str:
    """Return how much the parameters matter."""
    cells = average(found, "alpha_beta", "alpha", "beta")
    rows = []
    for beta in sorted({beta for _, beta in cells}):
        mine = {alpha: value for (alpha, b), value in cells.items() if b == beta}
        best = max(mine, key=mine.__getitem__)
        good = [alpha for alpha, value in mine.items() if value > mine[best] - 0.02]
        rows.append(
            [
                f"{beta:g}",
                f"{100 * mine[best]:.1f} at {best:g}",
                f"{min(good):g} to {max(good):g}",
                f"{100 * mine[max(mine)]:.1f}",
            ]
        )
    last = max(alpha for alpha, _ in cells)
    return markdown(["beta", "best", "alpha within 2 points of it", f"at alpha {last:g}"], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw both maps."""
    with drawn(folder / "fig9.svg", 9.0, 3.8, ncols=2) as (_, axes):
        parts = (("alpha_beta", "alpha", "beta"), ("beta_gamma", "gamma", "beta"))
        for axis, (part, across, up) in zip(axes, parts, strict=True):
            cells = average(found, part, across, up)
            columns, rows = sorted({x for x, _ in cells}), sorted({y for _, y in cells})
            values = [[100 * cells.get((x, y), float("nan")) for x in columns] for y in rows]
            shown = axis.imshow(values, origin="lower", aspect="auto", cmap="viridis")
            for i, line in enumerate(values):
                for j, value in enumerate(line):
                    dark = shown.norm(value) < 0.5
                    settings = {"ha": "center", "va": "center", "fontsize": 7}
                    axis.text(j, i, f"{value:.1f}", color="white" if dark else "black", **settings)
            axis.set_xticks(range(len(columns)), [f"{x:g}" for x in columns])
            axis.set_yticks(range(len(rows)), [f"{y:g}" for y in rows])
            axis.set_xlabel(across)
            axis.set_ylabel(up)
            axis.grid(False)
        axes[0].set_title(f"gamma {GAMMA}")
        axes[1].set_title(f"alpha {ALPHA}")
