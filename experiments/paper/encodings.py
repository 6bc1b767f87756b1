"""Encodings of task files: what they weigh, what they lose, and what that costs in accuracy.

Each fine-tuning is packed twice: cut by Breadcrumbs, and whole. Each file is scored alone, on its
own task, and all are merged: the sum of what the files hold, times an alpha that is chosen on
validation rows for each encoding. Alone, alpha is 1, or chosen as well: of `ternary` that is the
scale that ComPEFT (Yadav et al., arXiv:2311.13171) chooses.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper.drawing import drawn
from experiments.paper.family import Family, say
from experiments.paper.tables import by_seed, markdown, percent

from breadcrumbs import checkpoint, tasks
from breadcrumbs.plan.recipe import Model, Recipe

#: What is packed: transforms with their parameters, and encodings.
CUTS: dict[str, dict[str, Any]] = {
    "breadcrumbs": {"transform": "breadcrumbs", "variant": "authors", "beta": 0.9, "gamma": 0.99},
    "whole": {"transform": "none"},
}
ENCODINGS = {
    "breadcrumbs": ("exact", "int8", "int4", "ternary", "tvq:bits=4", "tvq:bits=2"),
    "whole": (
        *("exact", "int8", "int4", "ternary", "tvq:bits=4", "tvq:bits=2"),
        *("tsv", "tsv:rank=16", "tsv:energy=0.5"),
    ),
}
ALPHAS = {
    "breadcrumbs": (0.3, 0.5, 0.7, 1.0, 1.3, 1.6),
    "whole": (0.1, 0.2, 0.3, 0.4, 0.5, 0.7),
}
ALONE = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)


def measure(family: Family) -> dict[str, Any]:
    """Return size, error and scores by cut and encoding."""
    result: dict[str, Any] = {}
    for cut, encodings in ENCODINGS.items():
        for encoding in encodings:
            with tempfile.TemporaryDirectory() as folder:
                found = _of(family, Path(folder), cut, encoding)
            result[f"{cut} {encoding}"] = found
            say(f"{cut:12} {encoding:14} {found}")
    return result


def _of(family: Family, folder: Path, cut: str, encoding: str) -> dict[str, Any]:
    files, sizes, errors = {}, [], []
    for name in family.tasks:
        files[name] = folder / f"{name}.safetensors"
        model = family.model(name)
        options = {**CUTS[cut], "encoding": encoding, "name": name}
        said = tasks.pack(family.suite.base, model, files[name], threads=1, **options)
        with checkpoint.open(model) as opened:
            whole = sum(tensor.nbytes for tensor in opened.tensors.values())
        trained = sum(tensor.size for tensor in said.tensors.values())
        nbytes = files[name].stat().st_size
        sizes.append((nbytes / whole, 8 * nbytes / trained))
        errors.append(said.error["relative"] if said.error else 0.0)
    found: dict[str, Any] = {
        "share": fmean(share for share, _ in sizes),
        "bits": fmean(bits for _, bits in sizes),
        "error": fmean(errors),
    }
    tried = [_recipe(family, {n: f}, a) for n, f in files.items() for a in ALONE]
    own = [[name] for name in files for _ in ALONE]
    scored = family.scores(tried, "validation", own, f"{encoding} alone")
    chosen = []
    for number, name in enumerate(files):
        mine = scored[number * len(ALONE) : (number + 1) * len(ALONE)]
        best = max(range(len(ALONE)), key=lambda i: (mine[i].raw, -abs(ALONE[i] - 1)))
        chosen.append((name, ALONE[best]))
    each = [[name] for name in files]
    plain = family.scores([_recipe(family, {n: files[n]}, 1.0) for n in files], "test", each)
    best_ = family.scores([_recipe(family, {n: files[n]}, a) for n, a in chosen], "test", each)
    found["alone"] = fmean(one.mean for one in plain)
    found["alone, chosen"] = fmean(one.mean for one in best_)
    found["scales"] = dict(chosen)
    best, _ = family.best([_recipe(family, files, a) for a in ALPHAS[cut]], f"{encoding} merged")
    (test,) = family.scores([best.recipe], "test")
    found |= {"alpha": best.recipe.parameters["alpha"], "merged": test.mean}
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in found.items()}


def _recipe(family: Family, files: dict[str, Path], alpha: float) -> Recipe:
    """Return the recipe that adds up what files hold."""
    models = tuple(Model(str(path), name=name) for name, path in files.items())
    return Recipe(family.suite.base, models, "task_arithmetic", {"alpha": alpha})


def table(found: dict[str, Any]) -> str:
    """Return what task files weigh, lose and score, by encoding."""
    every, rows = by_seed(found), []
    for name in every[0]:
        mine = [one[name] for one in every]
        cut, _, encoding = name.partition(" ")
        rows.append(
            [
                {"breadcrumbs": "10 %", "whole": "all"}[cut],
                f"`{encoding}`",
                f"{fmean(one['share'] for one in mine):.3f}",
                f"{fmean(one['bits'] for one in mine):.2f}",
                percent([one["error"] for one in mine]),
                percent([one["alone"] for one in mine]),
                percent([one["alone, chosen"] for one in mine]),
                percent([one["merged"] for one in mine]),
            ]
        )
    head = ["kept", "encoding", "of the model's bytes", "bits a trained weight", "lost, %"]
    return markdown([*head, "alone, %", "alone, scale chosen, %", "merged, %"], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw accuracy against size, alone and merged."""
    seeds = by_seed(found)
    with drawn(folder / "encodings.svg", 8.0, ncols=2) as (_, axes):
        for axis, key in zip(axes, ("alone", "merged"), strict=True):
            for cut, marker in (("breadcrumbs", "o"), ("whole", "s")):
                names = [name for name in seeds[0] if name.startswith(f"{cut} ")]
                x = [fmean(one[name]["bits"] for one in seeds) for name in names]
                y = [100 * fmean(one[name][key] for one in seeds) for name in names]
                axis.plot(x, y, marker, label={"breadcrumbs": "10 % kept", "whole": "all"}[cut])
                for name, *point in zip(names, x, y, strict=True):
                    axis.annotate(name.partition(" ")[2], point, fontsize=6)
            axis.set_xscale("log")
            axis.set_title(key)
            axis.set_xlabel("bits a trained weight")
            axis.set_ylabel("normalised accuracy, %")
        axes[0].legend()
