"""The kinds of corrections, by name, and what each has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.evaluate.corrections.affine import Affine
from breadcrumbs.evaluate.corrections.blocks import Blocks
from breadcrumbs.evaluate.corrections.head import Head
from breadcrumbs.evaluate.corrections.lowrank import LowRank
from breadcrumbs.evaluate.corrections.seen import Seen

#: How they are named, and the default first.
NAMES = ("affine", "lowrank:16", "head", "blocks:16")


class Kind(Protocol):
    """A correction. least: rows that it needs.

    Numbers that are all 0, or a head's own, change no bit of an answer.
    """

    name: str
    least: int

    @property
    def answers(self) -> tuple[str, ...]:
        """What it can learn from."""
        ...

    def fit(self, seen: Seen) -> dict[str, np.ndarray]:
        """Return the numbers of a task, by name, float32."""
        ...

    def features(self, numbers: Mapping[str, Any], features: Any) -> Any:
        """Return what is to be answered from."""
        ...

    def head(self, numbers: Mapping[str, Any], head: Any) -> Any:
        """Return the head that answers."""
        ...


def make(name: str) -> Kind:
    """Return the kind of a name: ``affine``, ``head``, and with a rank or without ``lowrank:RANK``
    and ``blocks:RANK``."""
    kind, colon, rank = name.partition(":")
    ranked = {"lowrank": LowRank, "blocks": Blocks}
    if kind in ranked and (not colon or (rank.isdecimal() and 1 <= int(rank) <= 4096)):
        return ranked[kind](int(rank)) if colon else ranked[kind]()
    if name in ("affine", "head"):
        return Affine() if name == "affine" else Head()
    raise SuiteError(
        f"there is no correction {name!r}.{suggestion(name, NAMES)} There are affine,"
        " lowrank:RANK (such as lowrank:16), head and blocks:RANK."
    )
