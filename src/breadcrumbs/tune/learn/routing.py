"""Learn which task a row is of, from features of a frozen merged model, and what answers it.

What is known of a row is the task that it was drawn from, and nothing else. Features are kept, as
those of corrections are: a router that leads to corrections costs no pass besides theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.evaluate.corrections import heads as corrections
from breadcrumbs.evaluate.data.drawn import Draw
from breadcrumbs.evaluate.learned import DIGITS
from breadcrumbs.evaluate.routing import experts as sent
from breadcrumbs.evaluate.routing import logistic
from breadcrumbs.evaluate.routing.router import KINDS, Router
from breadcrumbs.taskfile import view
from breadcrumbs.tune.learn.heads import _features as features
from breadcrumbs.tune.learn.heads import expert

if TYPE_CHECKING:
    import os

    from breadcrumbs.evaluate.suite import Suite


def learn(
    suite: Suite,
    model: str,
    draw: Draw,
    *,
    kind: str = "logistic",
    tasks: Sequence[str] = (),
    experts: Mapping[str, str] | None = None,
    heads: str | os.PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    cache: Path | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Router:
    """Return a router between tasks behind a model, learned from the rows that are drawn.

    model: a path or hub id. tasks: names, two or more; all unless told. experts: by task, the model
    or task file that answers rows of it; the suite's fine-tuned models unless told. heads: a file
    of corrections that do instead, learned behind the same model. device, precision, cache: see
    `Scorer`. SuiteError, SplitError.
    """
    from breadcrumbs.evaluate.scoring.scoring import Scorer, featured
    from breadcrumbs.modules import devices

    if kind not in KINDS:
        raise SuiteError(
            f"there is no router {kind!r}.{suggestion(kind, KINDS)} There is {', '.join(KINDS)}."
        )
    if draw.answers != "none":
        raise SuiteError("a router is learned from rows without answers. Give answers: none.")
    featured(suite.foundation)
    behind = None if heads is None else corrections.load(heads)
    if behind is not None:
        behind.check_outside()
    if behind is not None and experts:
        raise SuiteError("a router leads to corrections or to experts. Give one of the two.")
    names = list(dict.fromkeys(tasks)) or [task.name for task in suite.tasks]
    if len(names) < 2:
        raise SuiteError("a router chooses between tasks. Give two or more.")
    for name in experts or {}:
        suite.task(name)
    found = {} if behind else {name: expert(suite.task(name), experts or {}) for name in names}
    opened = draw.opened(suite)
    devices.require_torch()
    where = devices.device(device)
    precision = devices.precision(precision, where)
    scorer = Scorer(opened, device=str(where), precision=precision, cache=cache)
    hash_ = scorer.keys.of(model)
    if behind is not None:
        behind.check(hash_, scorer.keys.base, scorer.keys.foundation, model)
        for name in names:
            behind.check_task(name, opened.task(name).labels)
    seen, told = [], []
    for done, name in enumerate(names):
        progress(done, len(names), f"{name}: the model's features")
        task = opened.task(name)
        rows = draw.rows_of(task)
        rows.need(2, name, f"a {kind} router")
        seen.append(features(scorer, task, rows, model, cache))
        which, numbers = None, 0
        if behind is None:
            with view.open_model(suite.base, model) as merged:
                which, numbers = sent.identity(found[name], suite.base, merged, hash_)
        told.append(
            {
                "name": name,
                "labels": list(task.labels),
                "rows": rows.rows.digest,
                "keys": [key.hex()[:DIGITS] for key in rows.keys],
                "encoder_passes": len(rows),
                "expert": which,
                "numbers": numbers,
            }
        )
    about: dict[str, Any] = {
        "as": kind,
        "model": hash_,
        "base": scorer.keys.base,
        "foundation": scorer.keys.foundation,
        "draw": draw.to_mapping(),
        "tasks": told,
        "heads": None if behind is None else behind.digest,
    }
    progress(len(names), len(names), "done")
    return Router(about, logistic.fit(seen), found, behind)
