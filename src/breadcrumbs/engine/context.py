"""All that arithmetic may use: what is to be done, with what, where, and what is known."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from breadcrumbs import kernels
from breadcrumbs.engine.facts import Facts, UnitId
from breadcrumbs.engine.workspace import Workspace
from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.plan import Plan


@dataclass(frozen=True)
class Context:
    """kernel: see `kernels.choose`. replay: whether steps are wanted before their factor, so that
    they can be replayed with another (`replay.Steps`). begins: bytes of segments that may be held
    at a time which are merged before their ranks are known. keeps: bytes of cuts that stay in the
    facts when what they are of is merged. once: returns what a function finds that reads some of
    the model, or what it found in an earlier run: the calls come in the same order in every one."""

    plan: Plan
    space: Workspace = field(default_factory=Workspace)
    facts: Facts = field(default_factory=Facts)
    kernel: str = "auto"
    replay: bool = False
    begins: int = 0
    keeps: int = 0
    once: Callable[[Callable[[], Any]], Any] = field(default=lambda find: find())
    _held: list[int] = field(default_factory=lambda: [0])
    _kept: list[int] = field(default_factory=lambda: [0])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        kernels.check(self.kernel)

    def forget(self, unit: UnitId, names: Iterable[str]) -> None:
        """Drop what is large of a unit that is merged, unless its cuts are to be kept."""
        cuts = self.facts.cuts.get(unit)
        with self._lock:
            if cuts is not None and self._kept[0] + cuts.nbytes <= self.keeps:
                self._kept[0] += cuts.nbytes
            else:
                self.facts.cuts.pop(unit, None)
        self.facts.forget(names)

    def hold(self, size: int) -> bool:
        """Take so many bytes of what `begins` allows, or give them back; return if there are."""
        with self._lock:
            if size > 0 and self._held[0] + size > self.begins:
                return False
            self._held[0] += size
            return True

    @functools.cached_property
    def kernels(self) -> Kernels:
        """The kernels; imported when first asked for, while other threads read and hash."""
        return kernels.choose(self.kernel)

    def kernels_for(self, dtype: np.dtype) -> Kernels:
        """Return the kernels that take raw weights of a dtype."""
        if dtype != np.float64:
            return self.kernels
        return kernels.choose(self.kernel, wide=True)
