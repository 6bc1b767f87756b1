"""Learn corrections behind a frozen merged model, one task after the other.

Rows go through the merged model and through the task's expert once each, and their features are
kept (cache, ``features``), so that another kind, or the same after an interruption, costs no pass.
One module is in memory, which weights are put into.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint import cache as kept
from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.corrections import kinds
from breadcrumbs.evaluate.corrections.blocks import Blocks
from breadcrumbs.evaluate.corrections.heads import DIGITS, Heads
from breadcrumbs.evaluate.corrections.seen import Seen
from breadcrumbs.evaluate.data.drawn import Draw, Drawn
from breadcrumbs.evaluate.scoring.keys import beside, digest
from breadcrumbs.taskfile import view

if TYPE_CHECKING:
    from breadcrumbs.evaluate.data.task import Task
    from breadcrumbs.evaluate.scoring.scoring import Scorer
    from breadcrumbs.evaluate.suite import Suite


def learn(
    suite: Suite,
    model: str,
    draw: Draw,
    *,
    kind: str = "affine",
    tasks: Sequence[str] = (),
    experts: Mapping[str, str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    cache: Path | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Heads:
    """Return a correction of each task behind a model, learned from the rows that are drawn.

    model: a path or hub id. kind: see `corrections.kinds.make`. tasks: names; all unless told.
    experts: by task, the model whose features are the goal; the suite's fine-tuned ones unless
    told. device, precision, cache: see `Scorer`. SuiteError, SplitError.
    """
    from breadcrumbs.evaluate.scoring.scoring import Scorer, featured
    from breadcrumbs.modules import devices

    made = kinds.make(kind)
    if draw.answers not in made.answers:
        raise SuiteError(
            f"{made.name}: is learned from answers: {' or '.join(made.answers)}, not"
            f" {draw.answers}."
        )
    answering = featured(suite.foundation)
    names = list(dict.fromkeys(tasks)) or [task.name for task in suite.tasks]
    found = {name: expert(suite.task(name), experts or {}) for name in names}
    for name in experts or {}:
        suite.task(name)
    opened = draw.opened(suite)
    devices.require_torch()
    where = devices.device(device)
    precision = devices.precision(precision, where)
    if isinstance(made, Blocks):
        from breadcrumbs.tune.learn.blocks import surgery

        told = {"device": where, "precision": precision, "progress": progress}
        return surgery.learn(suite, model, draw, made, found, **told)
    scorer = Scorer(opened, device=str(where), precision=precision, cache=cache)
    hash_ = scorer.keys.of(model)
    about: dict[str, Any] = {
        "as": made.name,
        "model": hash_,
        "base": scorer.keys.base,
        "foundation": scorer.keys.foundation,
        "draw": draw.to_mapping(),
        "tasks": {},
    }
    numbers: dict[str, Mapping[str, np.ndarray]] = {}
    for done, name in enumerate(names):
        task = opened.task(name)
        rows = draw.rows_of(task)
        rows.need(made.least, name, f"an {made.name} correction" if kind == "affine" else kind)
        progress(2 * done, 2 * len(names), f"{name}: the model's features")
        own = _features(scorer, task, rows, model, cache)
        progress(2 * done + 1, 2 * len(names), f"{name}: the expert's features")
        labelled = draw.answers == "labels"
        goal = own if labelled else _features(scorer, task, rows, found[name], cache)
        seen = Seen(name, draw, own, goal, scorer.head(task), answering.answer, rows.rows.labels)
        numbers[name] = made.fit(seen)
        about["tasks"][name] = {
            "labels": list(task.labels),
            "expert": None if labelled else scorer.keys.of(found[name]),
            "rows": rows.rows.digest,
            "keys": [key.hex()[:DIGITS] for key in rows.keys],
            "encoder_passes": len(rows) * (1 if labelled else 2),
        }
    progress(2 * len(names), 2 * len(names), "done")
    return Heads(about, numbers)


def expert(task: Task, experts: Mapping[str, str]) -> str:
    """Return the model that is given for a task, or the suite's; SuiteError if there is none."""
    path = experts.get(task.name, task.finetuned)
    if path is None:
        raise SuiteError(
            f"task {task.name!r} has no `finetuned` model to learn from. Give --expert"
            f" {task.name}=MODEL, or leave the task out with --task."
        )
    return path


def _features(scorer: Scorer, task: Task, rows: Drawn, path: str, cache: Path | None) -> np.ndarray:
    """Return features (rows, width) of a model: from the cache, or computed now."""
    keys = scorer.keys
    hash_ = keys.of(path)
    of = [hash_, keys.base, keys.foundation, keys.precision, [key.hex() for key in rows.keys]]
    key = digest([*of, beside(scorer.suite.base)])
    content = kept.read(cache, "features", key)
    if content is not None:
        return np.load(io.BytesIO(content), allow_pickle=False)
    with view.open_model(scorer.suite.base, path) as state:
        found = scorer.features(task, rows.rows, state, hash_)
    if not np.isfinite(found).all():
        raise SuiteError(f"task {task.name!r}: {path}: gives features that are no numbers.")
    out = io.BytesIO()
    np.save(out, found)
    kept.write(cache, "features", key, out.getvalue())
    return found
