"""How models are scored, and what a model to score is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from breadcrumbs.merging.executors import RETRIES
from breadcrumbs.plan.recipe import Recipe


@dataclass(frozen=True)
class Corrected:
    """A model, and the path of the corrections (`corrections.heads`) to put behind it, or of a
    router (`routing.router`). head_given: see `Router`."""

    model: str | Recipe
    heads: str
    head_given: bool = False


#: A model to score: a path or hub id, or what is to be merged; corrected, perhaps.
Spec = str | Recipe | Corrected


@dataclass(frozen=True)
class Settings:
    """How to score. results: file of rows, or None. workers: processes, 0 for one a core. on: where
    instead, such as ``ray`` (`executors.named`). retries: how often something is scored again whose
    worker was lost. device, precision, cache: see `Scorer`. plugins: files of methods that recipes
    may name."""

    results: str | None = None
    workers: int = 0
    device: str = "auto"
    precision: str = "auto"
    cache: Path | None = None
    plugins: tuple[str, ...] = ()
    on: str | None = None
    retries: int = RETRIES
