"""Frank-Wolfe: step after step towards the model that the gradient points at.

Chen et al., "FW-Merging: Scaling Model Merging with Frank-Wolfe Optimization", ICCV 2025,
arXiv:2503.12649, the hard variant. The gradient is of all rows; then, over the models,

    paper   the least  <g, theta_t>
    code    the least  sum over tensors of cos(g, theta_t), as their program has it

and ``theta <- theta + s (theta_t - theta)``, s = rate * 2 / (i + 2) at step i from 0 on: theirs is
0.1 * 0.3 * 2 / (i + 2), 10 steps, from task arithmetic 0.3. With ``per: tensor`` each tensor
chooses by itself. It is a step of weights alone: they all shrink by 1 - s, and the chosen model's
grows by s. A tensor whose gradient or weights are 0 has a cosine of 0 here, not NaN. The models are
those of the recipe, with what its transform leaves of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs.errors import TrainingError
from breadcrumbs.tune.learn.weights import family as families
from breadcrumbs.tune.learn.weights.learning import Ended
from breadcrumbs.tune.learn.weights.lessons import Lesson, backward

if TYPE_CHECKING:
    from breadcrumbs.engine.terms import Terms
    from breadcrumbs.engine.vectors import Chunk
    from breadcrumbs.evaluate.scoring.scoring import Scorer
    from breadcrumbs.tune.learn.weights.family import Family
    from breadcrumbs.tune.learn.weights.kinds import Settings


def run(
    family: Family,
    scorer: Scorer,
    lessons: Sequence[Lesson],
    settings: Settings,
    tell: Callable[[int, int, str], None],
) -> Ended:
    """Return the weights after all steps."""
    if settings.per == "model":
        families.by_model(family)
    weights, losses = family.start.copy(), list[float]()
    chosen = {id(parameter) for parameter in family.parameters()}
    for parameter in scorer.module.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
    for step in range(settings.steps):
        family.put(weights)
        scorer.module.zero_grad(set_to_none=False)
        losses.append(
            sum(
                backward(scorer, lesson, np.arange(len(lesson.rows)), settings.loss,
                         temperature=settings.temperature)
                for lesson in lessons
            )
        )  # fmt: skip
        scores = choose(family, weights, settings.oracle)
        if settings.per == "model":
            scores = np.broadcast_to(scores.sum(1, keepdims=True), scores.shape)
        if not np.isfinite(scores).all():
            raise TrainingError(f"step {step + 1}: the gradient is no number.")
        best, share = scores.argmin(0), settings.rate * 2 / (step + 2)
        weights *= 1 - share
        weights[best, np.arange(weights.shape[1])] += share
        names = ", ".join(sorted({family.models[t] for t in best.tolist()}))
        tell(step + 1, settings.steps, f"loss {losses[-1]:.4f}, towards {names}")
    rows = {lesson.name: settings.steps * len(lesson.rows) for lesson in lessons}
    return Ended(weights, {}, losses, rows)


def choose(family: Family, weights: np.ndarray, oracle: str) -> np.ndarray:
    """Return what the oracle finds of models and tensors (models, tensors): the least is best."""
    number = len(family.models)
    found = family.scanned(weights, _products, 3 + 3 * number)
    gg, gb, bb = found[:, :3].T
    gp, bp, pp = found[:, 3:].reshape(len(found), 3, number).transpose(1, 2, 0)
    inner = gb + gp  # of the gradient with base + part
    if oracle == "paper":
        return inner
    lengths = np.sqrt(gg * np.maximum(bb + 2 * bp + pp, 0))
    return np.divide(inner, lengths, out=np.zeros_like(inner), where=lengths > 0)


def _products(gradient: np.ndarray, terms: Terms, chunk: Chunk, parts: np.ndarray) -> np.ndarray:
    found, base = np.zeros((3, terms.number)), chunk.base
    found[:, terms.who] = parts @ gradient, parts @ base, np.einsum("tn,tn->t", parts, parts)
    return np.concatenate([[gradient @ gradient, gradient @ base, base @ base], found.ravel()])
