"""Archives: all fine-tunings in one file, and what each of them scores when it is rebuilt."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper.choosing import mean, summary
from experiments.paper.drawing import drawn
from experiments.paper.family import Family, say
from experiments.paper.tables import by_seed, markdown, percent

import breadcrumbs
from breadcrumbs.tune import scales

#: Ways to compress: method and parameters of `breadcrumbs.compress`.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "tall, scale 0.4": ("tall", {}),
    "tall, scale chosen": ("tall", {"scale": None}),
    "tall on TIES": ("tall", {"on": "ties"}),
    "emr": ("emr", {}),
    "tsv": ("tsv", {}),
}


def measure(family: Family) -> dict[str, Any]:
    """Return sizes and what rebuilt models score, normalised, by way and task."""
    models = [family.model(name) for name in family.tasks]
    result: dict[str, Any] = {
        "models": sum(map(family.nbytes, family.tasks)),
        "ways": {},
    }
    for way, (method, given) in WAYS.items():
        parameters = dict(given)
        if "scale" in given:
            chosen = scales.search(family.recipe("tall_mask"), family.pool)
            parameters["scale"] = [chosen[name] for name in family.tasks]
        with tempfile.TemporaryDirectory() as folder:
            archive, output = Path(folder, "all.safetensors"), Path(folder, "model")
            breadcrumbs.compress(
                family.suite.base, models, archive, method=method, names=family.tasks, **parameters
            )
            values = {}
            for name in family.tasks:
                breadcrumbs.extract(archive, name, output, force=True)
                values |= family.on(str(output), [name])
            found = {"bytes": archive.stat().st_size, "normalised": values}
        result["ways"][way] = found | {key: parameters[key] for key in given}
        say(f"{way}: {result['ways'][way]}")
    return result


def table(found: dict[str, Any]) -> str:
    """Return what archives weigh, and what each rebuilt model scores."""
    every = by_seed(found)
    tasks = list(next(iter(every[0]["ways"].values()))["normalised"])
    whole = fmean(one["models"] for one in every)
    rows = [["the models", f"{whole / 1e6:.1f} MB", *["100"] * (1 + len(tasks))]]
    for way in every[0]["ways"]:
        mine = [one["ways"][way] for one in every]
        values = [one["normalised"] for one in mine]
        means = [fmean(one.values()) for one in values]
        each = [f"{100 * fmean(one[task] for one in values):.1f}" for task in tasks]
        size = f"{fmean(one['bytes'] for one in mine) / 1e6:.1f} MB"
        rows.append([way, size, percent(means), *each])
    return markdown(["", "bytes beside the base", "normalised, %", *tasks], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw what is kept of the accuracy against bytes."""
    seeds = by_seed(found)
    with drawn(folder / "compressed.svg") as (_, axis):
        for way in seeds[0]["ways"]:
            mine = [seed["ways"][way] for seed in seeds]
            value, error = summary([mean(one["normalised"]) for one in mine])
            size = sum(one["bytes"] for one in mine) / len(mine) / 1e6
            axis.errorbar(size, 100 * value, 100 * error, marker="o", label=way)
        axis.set_xlabel("MB beside the base")
        axis.set_ylabel("normalised accuracy, %")
        axis.legend()
