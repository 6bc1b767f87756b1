"""The table: what every method without data scores untuned, with `alpha: auto`, and tuned.

On all tasks of a suite, or its first ones where `SIZES` of `experiments.paper.standings` says so.
Tuned is chosen on validation rows (`experiments.paper.contenders` says from what); each of the
three is scored on test rows once. What was measured is not measured again, so the same command goes
on after an interruption.
`fisher` and `regmean` need `python -m experiments.paper.gather` first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.paper.contenders import CONTENDERS, Contender
from experiments.paper.demo import Demo
from experiments.paper.family import Family, say
from experiments.paper.standings import SIZES, table

from breadcrumbs.errors import listing
from breadcrumbs.merging.sweep import Sweep

__all__ = ["draw", "measure", "steps", "table"]

#: What is measured, all methods of one before the next: what needs no choice, what does, seconds.
PARTS = ("untuned", "tuned", "cost")
Cell = dict[str, Any]


def measure(
    family: Family | Demo,
    methods: Sequence[str] = (),
    numbers: Sequence[int] = (),
    parts: Sequence[str] = PARTS,
) -> dict[str, Any]:
    """Return what `steps` come to."""
    found = list(steps(family, {}, methods, numbers, parts))
    return found[-1] if found else {}


def steps(
    family: Family | Demo,
    known: Mapping[str, Any],
    methods: Sequence[str] = (),
    numbers: Sequence[int] = (),
    parts: Sequence[str] = PARTS,
) -> Iterator[dict[str, Any]]:
    """Measure one part of one method after the other, and yield all that is known after each.

    known: what was yielded before. methods, numbers (of tasks), parts: these alone; all unless
    told. By number of tasks: ``base`` and ``methods``, each a cell with its parts.
    """
    wrong = [name for name in methods if name not in CONTENDERS]
    if wrong:
        raise SystemExit(f"--methods: no {listing(wrong)}. There are {listing(CONTENDERS, 99)}.")
    found = {size: {**column} for size, column in known.items()}
    sizes = numbers or SIZES.get(family.suite.name, (len(family.tasks),))
    for part in parts:
        for size in sizes:
            tasks = family.tasks[:size]
            column = found.setdefault(str(size), {"methods": {}})
            if "base" not in column:
                column |= _ends(family, tasks)
            for name in methods or CONTENDERS:
                one = CONTENDERS[name]
                known_part = part in column["methods"].get(name, ())
                if known_part or not _possible(family, one, tasks, part):
                    continue
                cell = column["methods"].setdefault(name, {})
                began = time.monotonic()
                cell |= _MEASURED[part](family, one, tasks)
                _said(size, name, part, cell, time.monotonic() - began)
                yield {size: {**it} for size, it in found.items()}


def _ends(family: Family | Demo, tasks: Sequence[str]) -> dict[str, Any]:
    """Return what the base and the fine-tuned models score, as it is and over the latter."""
    own, base = family.own("test"), family.base("test")
    mean = sum(base[task] / own[task] for task in tasks) / len(tasks)
    raws = [sum(one[task] for task in tasks) / len(tasks) for one in (base, own)]
    return {"base": [round(mean, 5), round(raws[0], 5)], "fine-tuned": round(raws[1], 5)}


def _possible(family: Family | Demo, one: Contender, tasks: Sequence[str], part: str) -> bool:
    """Return whether there is anything to choose, and whether there are statistics it needs."""
    if part == "tuned" and not one.tried:
        return False
    models = family.recipe(one.method, tasks).models
    return not one.data or all(
        model.statistics is not None and os.path.isfile(model.statistics) for model in models
    )


def _untuned(family: Family | Demo, one: Contender, tasks: Sequence[str]) -> Cell:
    """Return the test scores without a choice."""
    asked = {"untuned": one.untuned, "auto": one.automatic}
    asked = {part: values for part, values in asked.items() if values is not None}
    recipes = [family.recipe(one.method, tasks, **values) for values in asked.values()]
    scored = family.scores(recipes, "test", [tasks] * len(recipes), one.name)
    return {part: _scores(score) for part, score in zip(asked, scored, strict=True)}


def _tuned(family: Family | Demo, one: Contender, tasks: Sequence[str]) -> Cell:
    """Return the test score of what is best on validation rows, and what was tried."""
    recipes = [family.recipe(one.method, tasks, **values) for values in one.choices]
    tried = family.scores(recipes, "validation", [tasks] * len(recipes), one.name)
    number = max(range(len(tried)), key=lambda i: tried[i].mean)
    (test,) = family.scores([recipes[number]], "test", [tasks])
    return {
        "tuned": _scores(test),
        "chosen": one.tried[number],
        "validation": round(tried[number].mean, 5),
        "tried": [
            [*values.values(), round(score.mean, 5)]
            for values, score in zip(one.tried, tried, strict=True)
        ],
    }


def _cost(family: Family | Demo, one: Contender, tasks: Sequence[str]) -> Cell:
    """Return the processor seconds of the merge in memory, on one thread, as it comes."""
    values = one.automatic if one.comes == "auto" else one.untuned
    with Sweep(family.suite.base, keep=0) as sweep:
        sweep.merged(family.recipe("average", tasks))  # which opens the models
        began = time.process_time()
        sweep.merged(family.recipe(one.method, tasks, **values or {}))
        return {"cost": round(time.process_time() - began, 3)}


_MEASURED = {"untuned": _untuned, "tuned": _tuned, "cost": _cost}


def _scores(scored: Any) -> list[float]:
    """Return the mean over tasks, normalised and as it is."""
    return [round(scored.mean, 5), round(scored.raw, 5)]


def _said(size: int, name: str, part: str, cell: Cell, seconds: float) -> None:
    shown = {key: cell[key] for key in (part, "auto", "chosen") if cell.get(key) is not None}
    say(f"{size:3} {name:24} {shown} {seconds:.0f} s")


def draw(found: dict[str, Any], folder: Path) -> None:
    """Nothing is drawn: docs/table.md has the tables."""
