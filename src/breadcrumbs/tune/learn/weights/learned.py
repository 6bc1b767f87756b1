"""Learn weights of a recipe from a few rows: what comes out is a recipe, and heads perhaps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint.hashing import model_hash
from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.corrections.heads import DIGITS, Heads
from breadcrumbs.evaluate.data.drawn import Draw
from breadcrumbs.evaluate.scoring.keys import digest
from breadcrumbs.merging import opening
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.plan.recipe import Recipe, to_mapping
from breadcrumbs.tune.learn.heads import expert
from breadcrumbs.tune.learn.weights import family as families
from breadcrumbs.tune.learn.weights import ranks, vertices
from breadcrumbs.tune.learn.weights.kinds import Settings
from breadcrumbs.tune.learn.weights.learning import Ended, Learning
from breadcrumbs.tune.learn.weights.lessons import Lesson, lessons
from breadcrumbs.version import __version__

if TYPE_CHECKING:
    from breadcrumbs.evaluate.scoring.scoring import Scorer
    from breadcrumbs.evaluate.suite import Suite


@dataclass(frozen=True)
class Learned:
    """What was learned. recipe: merges without data. heads: behind that merge, if any are.

    weights: (models, tensors) as in the recipe, of ``models`` and ``tensors`` by name. losses: of
    each step, before it. numbers: how many weights were learned.
    """

    recipe: Recipe
    heads: Heads | None
    weights: np.ndarray
    models: list[str]
    tensors: list[str]
    losses: list[float]
    numbers: int

    @property
    def encoder_passes(self) -> int:
        """How many rows went through an encoder, there and back counted once."""
        return sum(task["encoder_passes"] for task in self.recipe.learned["tasks"].values())


def learn(
    suite: Suite,
    recipe: Recipe,
    draw: Draw,
    settings: Settings,
    *,
    tasks: Sequence[str] = (),
    experts: Mapping[str, str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    cache: Path | None = None,
    threads: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Learned:
    """Return a recipe with learned weights.

    draw: rows of each task, and what is known of them, as `settings` expect. tasks: names; all
    unless told. experts: by task, the model whose answers are the goal; the suite's fine-tuned ones
    unless told. device, precision, cache: see `Scorer`. RecipeError, SuiteError, SplitError.
    """
    from breadcrumbs.evaluate.scoring.scoring import Scorer, featured
    from breadcrumbs.modules import devices

    if settings.heads:
        featured(suite.foundation)
    names = sorted(dict.fromkeys(tasks) or [task.name for task in suite.tasks])
    for name in experts or {}:
        suite.task(name)
    paths: dict[str, str] = {}
    if draw.answers == "expert":
        also = " --answers none,"
        paths = {name: expert(suite.task(name), experts or {}, also) for name in names}
    opened = draw.opened(suite)
    devices.require_torch()
    where = devices.device(device)
    precision = devices.precision(precision, where)
    with ExitStack() as stack:
        plan = stack.enter_context(opening.opened(recipe))
        families.check(plan)
        scorer = Scorer(opened, device=str(where), precision=precision, cache=cache, train=True)
        if model_hash(plan.base) != scorer.keys.base:
            raise SuiteError(f"{recipe.base}: is not the base of the suite, {suite.base}.")
        progress(0, settings.steps, "what is known of the rows")
        found = lessons(scorer, draw, [opened.task(name) for name in names], paths, cache)
        if settings.ranks:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="breadcrumbs-"))
            family = ranks.Ranked(plan, scorer.slots, Path(folder), threads)
        else:
            family = families.Family(plan, scorer.slots, threads)
        if settings.oracle:
            ended = vertices.run(family, scorer, found, settings, progress)
        else:
            key = _key(scorer, family, found, draw, settings, paths)
            learning = Learning(family, scorer, found, draw, settings, cache, key)
            ended = learning.run(progress)
        weights = families.rounded(ended.weights)
        made = family.learned(weights, settings.per)
    passes = {it.name: ended.rows[it.name] + len(it.rows) * bool(paths) for it in found}
    made = replace(made, learned=_told(found, draw, settings, passes))
    heads = None
    if settings.heads:
        heads = _heads(scorer, made, found, draw, ended, paths, passes)
    numbers = len(family.models) if settings.per == "model" else weights.size
    return Learned(made, heads, weights, family.models, family.names, ended.losses, numbers)


def _key(
    scorer: Scorer,
    family: families.Family,
    found: Sequence[Lesson],
    draw: Draw,
    settings: Settings,
    paths: Mapping[str, str],
) -> str:
    """Return a digest of all that the steps depend on, but for how many there are."""
    keys = scorer.keys
    told = {name: value for name, value in asdict(settings).items() if name != "steps"}
    return digest(
        {
            "version": __version__,
            "recipe": to_mapping(replace(family.recipe, inputs=(), made_by="")),
            "start": family.start.tolist(),
            "models": [keys.of(model.path) for model in family.recipe.models],
            "base": [keys.base, keys.foundation, keys.precision, str(scorer.device)],
            "draw": draw.to_mapping(),
            "rows": {lesson.name: lesson.rows.rows.digest for lesson in found},
            "heads": {lesson.name: keys.head(lesson.name) for lesson in found},
            "experts": {name: keys.of(path) for name, path in paths.items()},
            "settings": told,
        }
    )


def _told(
    found: Sequence[Lesson], draw: Draw, settings: Settings, passes: Mapping[str, int]
) -> dict[str, Any]:
    """Return what the recipe says of the rows."""
    tasks = {
        lesson.name: {
            "rows": lesson.rows.rows.digest,
            "keys": " ".join(key.hex()[:DIGITS] for key in lesson.rows.keys),
            "encoder_passes": passes[lesson.name],
        }
        for lesson in found
    }
    return {"as": settings.kind, "loss": settings.loss, **draw.to_mapping(), "tasks": tasks}


def _heads(
    scorer: Scorer,
    made: Recipe,
    found: Sequence[Lesson],
    draw: Draw,
    ended: Ended,
    paths: Mapping[str, str],
    passes: Mapping[str, int],
) -> Heads:
    """Return the heads that were learned, bound to what the recipe merges."""
    with Sweep(made.base, keep=0) as sweep:
        hash_ = model_hash(sweep.merged(made))
    about = {
        "as": "head",
        "model": hash_,
        "base": scorer.keys.base,
        "foundation": scorer.keys.foundation,
        "draw": draw.to_mapping(),
        "tasks": {
            lesson.name: {
                "labels": list(lesson.task.labels),
                "expert": scorer.keys.of(paths[lesson.name]) if paths else None,
                "rows": lesson.rows.rows.digest,
                "keys": [key.hex()[:DIGITS] for key in lesson.rows.keys],
                "encoder_passes": passes[lesson.name],
            }
            for lesson in found
        },
    }
    return Heads(about, ended.heads)
