"""All that arithmetic may use: what is to be done, with what, where, and what is known."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from types import ModuleType

from breadcrumbs import kernels
from breadcrumbs.engine.facts import Facts
from breadcrumbs.engine.workspace import Workspace
from breadcrumbs.plan import Plan


@dataclass(frozen=True)
class Context:
    """kernel: see `kernels.choose`. replay: whether steps are wanted before their factor, so that
    they can be replayed with another (`replay.Steps`)."""

    plan: Plan
    space: Workspace = field(default_factory=Workspace)
    facts: Facts = field(default_factory=Facts)
    kernel: str = "auto"
    replay: bool = False

    @functools.cached_property
    def kernels(self) -> ModuleType:
        """The kernels; imported when first asked for, while other threads read and hash."""
        return kernels.choose(self.plan.entries, self.kernel)
