"""What is learned, by name, and its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.tune.learn.weights.lessons import LOSSES

PER = ("tensor", "model")
#: How Frank-Wolfe chooses a model: by <gradient, its weights>, or by the sum of cosines of tensors.
ORACLES = ("paper", "code")


@dataclass(frozen=True)
class Settings:
    """kind: by name. per: whether a model has one weight, or one of each tensor. loss: `LOSSES`, or
    ``hard``. steps, rate, batch (rows of a task in a step), temperature (of answers): of Adam.

    heads: whether each task's head is learned besides. ranks: whether it is learned which singular
    triplets stay. oracle, rate (of the first step): of
    Frank-Wolfe.
    """

    kind: str = "adamerging"
    per: str = "tensor"
    loss: str = "kl"
    steps: int = 200
    rate: float = 5e-3
    batch: int = 16
    temperature: float = 1.0
    heads: bool = False
    ranks: bool = False
    oracle: str = ""


_KINDS = {
    "adamerging": Settings(),
    "symerge": Settings("symerge", heads=True),
    "adarank": Settings("adarank", ranks=True),
    "frank-wolfe": Settings("frank-wolfe", "model", steps=10, rate=0.03, oracle="paper"),
}
NAMES = tuple(_KINDS)
_NUMBERS = {"steps": int, "rate": float, "batch": int, "temperature": float}
_ADAM = ("steps", "rate", "batch", "temperature", "hard")
_KNOWN = {
    "adamerging": _ADAM,
    "symerge": _ADAM,
    "adarank": _ADAM,
    "frank-wolfe": ("steps", "rate", "temperature", "hard", "oracle"),
}


def make(
    name: str, answers: str, per: str | None = None, given: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings of a kind; SuiteError for what there is not.

    answers: what is known of rows, which says the loss. given: numbers of the kind by name, as
    text; ``hard`` is true or false.
    """
    if name not in _KINDS:
        raise SuiteError(
            f"there is nothing to learn called {name!r}.{suggestion(name, NAMES)} Give one of"
            f" {', '.join(NAMES)}."
        )
    found = replace(_KINDS[name], loss=LOSSES[answers])
    if per is not None:
        if per not in PER:
            raise SuiteError(f"per: {per!r} is not possible. Give one of {', '.join(PER)}.")
        found = replace(found, per=per)
    for key, text in (given or {}).items():
        found = _with(found, key, text)
    if found.heads and answers == "none":
        raise SuiteError(
            f"{name}: learns heads, which entropy alone would make sure of anything. Give --answers"
            " expert, or labels."
        )
    return found


def _with(settings: Settings, key: str, text: str) -> Settings:
    known = _KNOWN[settings.kind]
    where = f"{settings.kind}: {key}"
    if key not in known:
        raise SuiteError(
            f"{settings.kind}: has no number {key!r}.{suggestion(key, known)} It has"
            f" {', '.join(known)}."
        )
    if key == "oracle":
        if text not in ORACLES:
            raise SuiteError(f"{where}: {text!r} is not possible. Give {' or '.join(ORACLES)}.")
        return replace(settings, oracle=text)
    if key == "hard":
        if text not in ("true", "false"):
            raise SuiteError(f"{where}: {text!r} is neither true nor false.")
        if text == "true" and settings.loss != "kl":
            raise SuiteError(f"{where}: is of the experts' answers. Give --answers expert.")
        return replace(settings, loss="hard" if text == "true" else settings.loss)
    try:
        value = _NUMBERS[key](text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        what = "a whole number of 1 or more" if _NUMBERS[key] is int else "a number above 0"
        raise SuiteError(f"{where}: {text!r} is not possible. Give {what}.")
    return replace(settings, **{key: value})
