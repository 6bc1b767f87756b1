"""Learn corrections behind a frozen merged model, one task after the other.

Rows go through the merged model and through the task's expert once each, and their features are
kept (cache, ``features``), so that another kind, or the same after an interruption, costs no pass.
One module is in memory of each process, which weights are put into; there is this one, or as many
as an executor has (`on`).
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from breadcrumbs.evaluate.scoring.keys import Keys, beside, digest
from breadcrumbs.evaluate.scoring.scoring import featured
from breadcrumbs.merging import executors
from breadcrumbs.merging.executors import RETRIES, Unit, machines, values
from breadcrumbs.taskfile import view

if TYPE_CHECKING:
    from breadcrumbs.evaluate.data.task import Task
    from breadcrumbs.evaluate.scoring.scoring import Scorer
    from breadcrumbs.evaluate.suite import Suite

#: What processes import: once, by the one that all others are forked from.
NEEDED = ["torch", __name__]
#: Packages whose versions corrections depend on.
PACKAGES = ("torch", "transformers", "tokenizers")
LEARN = Unit("task", "Give fewer processes, or machines with more memory.", error=SuiteError)


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
    on: str | None = None,
    retries: int = RETRIES,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Heads:
    """Return a correction of each task behind a model, learned from the rows that are drawn.

    model: a path or hub id. kind: see `corrections.kinds.make`. tasks: names; all unless told.
    experts: by task, the model whose features are the goal; the suite's fine-tuned ones unless
    told. device, precision, cache: see `Scorer`. on: where, such as ``processes:2``
    (`executors.named`), a task a call; here, one after the other, unless told. retries: how often
    one is learned again whose worker was lost. SuiteError, SplitError.
    """
    from breadcrumbs.modules import devices

    made = kinds.make(kind)
    if draw.answers not in made.answers:
        raise SuiteError(
            f"{made.name}: is learned from answers: {' or '.join(made.answers)}, not"
            f" {draw.answers}."
        )
    featured(suite.foundation)
    names = list(dict.fromkeys(tasks)) or [task.name for task in suite.tasks]
    found = experts_of(suite, names, experts or {})
    opened = draw.opened(suite)
    devices.require_torch()
    where = devices.device(device)
    precision = devices.precision(precision, where)
    if isinstance(made, Blocks):
        if on is not None:
            raise SuiteError(f"{made.name}: learns block by block, in one process. Leave --on out.")
        from breadcrumbs.tune.learn.blocks import surgery

        told = {"device": where, "precision": precision, "progress": progress}
        return surgery.learn(suite, model, draw, made, found, **told)
    setup = Setup(opened, model, draw, kind, str(where), precision, cache)
    jobs = [Job(name, found[name]) for name in names]
    learned: dict[str, Learned] = {}
    total = len(names)

    def sent(job: Job, news: str) -> None:
        progress(len(learned), total, f"{job.task}: {news}")

    if on is None:
        here = Learner(setup)
        every = ((job, here.learn(job, partial(sent, job))) for job in jobs)
    else:
        every = _elsewhere(setup, jobs, sent, on, int(where.type != "cpu"), retries)
    for job, one in every:
        learned[job.task] = one
        progress(len(learned), total, f"{job.task}: done")
    of = {**learned[names[0]].of, "as": made.name, "draw": draw.to_mapping()}
    about = {**of, "tasks": {name: learned[name].about for name in names}}
    return Heads(about, {name: learned[name].numbers for name in names})


@dataclass(frozen=True)
class Setup:
    """What corrections are learned with. needs: what a process's machine must have, if it is
    another one. Others: as for `learn`."""

    suite: Suite
    model: str
    draw: Draw
    kind: str
    device: str
    precision: str
    cache: Path | None
    key: str = ""
    needs: machines.Needs | None = None


@dataclass(frozen=True)
class Job:
    """A task, and the model to learn from."""

    task: str
    expert: str


@dataclass(frozen=True)
class Learned:
    """The correction of a task. of: what the corrections of all tasks are of."""

    of: Mapping[str, str]
    about: Mapping[str, Any]
    numbers: Mapping[str, np.ndarray]


class Learner:
    """Learns corrections in this process, one after the other."""

    def __init__(self, setup: Setup):
        from breadcrumbs.evaluate.scoring.scoring import Scorer

        self.setup, self.kind = setup, kinds.make(setup.kind)
        self.scorer = Scorer(
            setup.suite, device=setup.device, precision=setup.precision, cache=setup.cache
        )

    def learn(self, job: Job, send: Callable[[str], None]) -> Learned:
        """Return the correction of a task. send: is told what is being done."""
        setup, scorer, name = self.setup, self.scorer, job.task
        draw, keys, kind = setup.draw, scorer.keys, self.kind
        answering = featured(setup.suite.foundation)
        task = setup.suite.task(name)
        rows = draw.rows_of(task)
        rows.need(
            kind.least, name, f"an {kind.name} correction" if setup.kind == "affine" else setup.kind
        )
        send("the model's features")
        own = _features(scorer, task, rows, setup.model, setup.cache)
        send("the expert's features")
        labelled = draw.answers == "labels"
        goal = own if labelled else _features(scorer, task, rows, job.expert, setup.cache)
        seen = Seen(name, draw, own, goal, scorer.head(task), answering.answer, rows.rows.labels)
        about = {
            "labels": list(task.labels),
            "expert": None if labelled else keys.of(job.expert),
            "rows": rows.rows.digest,
            "keys": [key.hex()[:DIGITS] for key in rows.keys],
            "encoder_passes": len(rows) * (1 if labelled else 2),
        }
        return Learned(_of(keys, setup.model), about, kind.fit(seen))


def _of(keys: Keys, model: str) -> dict[str, str]:
    """Return hashes of what corrections are bound to."""
    return {"model": keys.of(model), "base": keys.base, "foundation": keys.foundation}


def _elsewhere(
    setup: Setup,
    jobs: Sequence[Job],
    sent: Callable[[Job, str], None],
    on: str,
    gpus: int,
    retries: int,
) -> Iterator[tuple[Job, Learned]]:
    """Yield jobs with what was learned, by other processes."""
    keys = Keys(setup.suite, setup.precision)
    with executors.opened(on, needed=NEEDED, gpus=gpus, retries=retries) as executor:
        setup = replace(setup, key=secrets.token_hex(8))
        if not executor.here:
            paths = [str(setup.suite.path or ""), setup.suite.base, setup.model]
            needs = machines.needs(
                [path for path in (*paths, *(job.expert for job in jobs)) if path],
                packages=PACKAGES,
                storage="the suite and its models",
            )
            executor.everywhere(machines.check, needs, LEARN)
            setup = replace(setup, needs=needs)
        for job, one in values(executor.each(partial(_learn, setup), jobs, LEARN, sent)):
            rows = setup.draw.rows_of(setup.suite.task(job.task)).rows.digest
            if (one.of, one.about["rows"]) != (_of(keys, setup.model), rows):
                raise SuiteError(
                    f"task {job.task!r}: a worker took another model, base or rows than there are"
                    " here. Let nothing write to them, and give all machines the same files."
                )
            yield job, one


#: What this process learns with, by the key of its setup.
_learner: tuple[str, Learner] | None = None


def _learn(setup: Setup, job: Job, send: Callable[[str], None]) -> Learned:
    global _learner
    if setup.needs is not None:
        machines.check(setup.needs)
    if _learner is None or _learner[0] != setup.key:
        import torch

        torch.set_num_threads(1)
        _learner = None
        _learner = setup.key, Learner(setup)
    return _learner[1].learn(job, send)


def experts_of(suite: Suite, names: Sequence[str], experts: Mapping[str, str]) -> dict[str, str]:
    """Return the models of tasks by name; SuiteError where one is missing, or of no task."""
    found = {name: expert(suite.task(name), experts) for name in names}
    for name in experts:
        suite.task(name)
    return found


def expert(task: Task, experts: Mapping[str, str], also: str = "") -> str:
    """Return the model that is given for a task, or the suite's; SuiteError if there is none.

    also: what else may be done about that.
    """
    path = experts.get(task.name, task.finetuned)
    if path is None:
        raise SuiteError(
            f"task {task.name!r} has no `finetuned` model to learn from. Give --expert"
            f" {task.name}=MODEL,{also} or leave the task out with --task."
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
