"""Weights of one merge: given by name, or by age.

By age they are those of an exponential moving average of the tasks in the order in which they were
added, as in Dziadzio et al., "How to Merge Your Multimodal Models Over Time?" (TIME), CVPR 2025,
arXiv:2412.06712, which deploys such an average of the models seen so far. Of n tasks the t-th has

    w_t = beta^(n - t) / (1 + beta + ... + beta^(n - 1)),

so that they sum to 1, and with `task_arithmetic` and alpha 1 the merged model is the average
``m_t = m_(t-1) + (model_t - m_(t-1)) / (1 + beta + ... + beta^(t-1))``, ``m_1 = model_1``: each new
model has a share of about 1 - beta. beta 1 is the mean, 0 the latest model alone. The paper also
begins each fine-tuning from the average, which is not for a store to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from breadcrumbs.checkpoint.tensors import shown
from breadcrumbs.errors import RecipeError, StoreError, listing, suggestion
from breadcrumbs.store.history import Entry

#: What weights by age begin with.
AGE = "ema:"


def weighted(entries: Sequence[Entry], weights: Sequence[str] | Mapping[str, float]) -> list[Entry]:
    """Return tasks with other weights than the store's.

    weights: name -> weight; or texts, ``NAME=WEIGHT``, and ``ema:BETA`` for weights by age, which
    come first whatever the order. A task of weight 0 is absent, and has no age.
    """
    given, betas = (dict(weights), []) if isinstance(weights, Mapping) else _parsed(weights)
    found = list(entries)
    if len(betas) > 1:
        raise RecipeError(f"weights: {AGE}BETA is there {len(betas)} times. Give one.")
    if betas:
        found = _by_age(found, betas[0])
    names = [entry.name for entry in found]
    for name, weight in given.items():
        if name not in names:
            more = f"It has {listing(names)}." if names else "It has none."
            raise StoreError(f"weights: there is no task {name!r}.{suggestion(name, names)} {more}")
        if not math.isfinite(weight):
            raise RecipeError(f"weights: {name}={weight} is not a finite number.")
    return [replace(one, weight=given.get(one.name, one.weight)) for one in found]


def said(entries: Sequence[Entry], weights: Sequence[str] | Mapping[str, float]) -> tuple[str, ...]:
    """Return what is to be said of a merge with other weights: which they are, and the cost."""
    if not weights:
        return ()
    each = ", ".join(f"{shown(one.name)} {one.weight:.4g}" for one in entries)
    return (f"weights of this merge alone: {each}. They take all task files, no running sum",)


def _by_age(entries: Sequence[Entry], beta: float) -> list[Entry]:
    present = sum(entry.weight != 0 for entry in entries)
    powers = [beta**age for age in range(present)]
    whole, found = math.fsum(powers), []
    for entry in entries:
        weight = powers.pop() / whole if entry.weight != 0 else 0.0
        found.append(replace(entry, weight=weight))
    return found


def _parsed(texts: Sequence[str]) -> tuple[dict[str, float], list[float]]:
    given: dict[str, float] = {}
    betas: list[float] = []
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals and text.startswith(AGE):
            beta = _number(text, text.removeprefix(AGE))
            if not 0 <= beta <= 1:
                raise RecipeError(f"weights: {text}: beta is from 0 to 1. Give {AGE}0.5.")
            betas.append(beta)
        elif not name:
            raise RecipeError(f"weights: {text!r} says nothing. Give {AGE}0.5 or NAME=WEIGHT.")
        else:
            given[name] = _number(text, value)
    return given, betas


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise RecipeError(f"weights: {text}: {value!r} is not a number.") from None
