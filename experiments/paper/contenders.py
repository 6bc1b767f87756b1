"""The methods of the table, and what is tried of each: the same care for all.

A contender is a method with its published settings. Tuned is alpha, or what stands for it, from a
short list that its published value or the best of other suites lies in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.paper.drawing import NAMES
from experiments.paper.family import grid

from breadcrumbs.methods.parameters import AUTO, Factor
from breadcrumbs.methods.registry import get

#: Alphas of sums of task vectors (by three tasks each is too far), of masks, of matrices.
SUMS = (0.05, 0.1, 0.2, 0.3, 0.5)
MASKS = (0.3, 0.5, 0.7, 1.0, 1.3)
MATRICES = (0.5, 0.75, 1.0, 1.25, 1.5)
#: Of what is as long as a mean.
MEANS = (0.5, 1.0, 1.5, 2.0, 3.0)
#: Of a sum of which one in eight or ten entries is left.
SPARSE = (0.3, 0.5, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Contender:
    """A method of the table. values: its published settings, where the defaults are others.

    tried: what is chosen from on validation rows, besides `values`; nothing, where it has no alpha.
    data: whether it needs statistics of data, so that it is no contender but stands beside.
    """

    name: str
    method: str
    values: dict[str, Any] = field(default_factory=dict)
    tried: Sequence[dict[str, Any]] = ()
    data: bool = False

    @property
    def called(self) -> str:
        """How tables call it."""
        return NAMES.get(self.name, f"`{self.name}`")

    @property
    def untuned(self) -> dict[str, Any]:
        """The parameters without a choice: as published; alpha 1, where none was published."""
        declared = get(self.method).parameters.get("alpha")
        given = {} if declared is None or declared.default != AUTO else {"alpha": 1.0}
        return {**given, **self.values}

    @property
    def automatic(self) -> dict[str, Any] | None:
        """The same with alpha found from the weights, if the method can."""
        declared = get(self.method).parameters.get("alpha")
        return {**self.values, "alpha": AUTO} if isinstance(declared, Factor) else None

    @property
    def comes(self) -> str:
        """Which of the two it is as it comes: ``auto`` or ``untuned``."""
        declared = get(self.method).parameters.get("alpha")
        return "auto" if declared is not None and declared.default == AUTO else "untuned"

    @property
    def choices(self) -> list[dict[str, Any]]:
        """What is tried on validation rows."""
        return [{**self.values, **one} for one in self.tried]


def _of(
    method: str,
    alphas: Sequence[float] = (),
    name: str = "",
    data: bool = False,
    tried: Sequence[dict[str, Any]] = (),
    **values: Any,
) -> Contender:
    return Contender(name or method, method, values, tried or grid(alpha=alphas), data)


_AUTHORS = "breadcrumbs (authors)"
#: The most telling and the cheapest first: what a run measures first.
CONTENDERS = {
    one.name: one
    for one in (
        _of("task_arithmetic", SUMS),
        _of("breadcrumbs", MASKS),
        _of("ties", MASKS),
        _of("task_arithmetic+svc", MATRICES, alpha=1.0),
        _of("tsv_m", MATRICES),
        _of("iso_c", MATRICES),
        _of("polar", tried=grid(length=(1.0, 1.5, 2.0, 2.5, 3.0))),
        _of("wudi", MATRICES),
        _of("dc", (0.5, 1.0, 1.5, 2.0, 2.5)),
        _of("cart", tried=grid(scale=(0.5, 1.0, 1.5, 2.0, 2.5))),
        _of("average"),
        _of("iso_cts", MATRICES),
        _of("tsv_m+svc", MATRICES, svc_least=1),
        _of("consensus", SUMS),
        _of("breadcrumbs", MASKS, name=_AUTHORS, variant="authors"),
        _of("breadcrumbs_ties", MASKS),
        _of("task_arithmetic+boost", SUMS),
        _of("low_rank+sum", SUMS),
        _of("wudi", MATRICES, name="wudi (ridge)", solver="ridge"),
        _of("wudi", MATRICES, name="actmat", solver="ridge", ridge=0, normalize="none"),
        _of("magnitude", MASKS),
        _of("pcb", (0.5, 0.8, 1.0, 1.2, 1.5)),
        _of("star", MASKS),
        _of("sce"),
        _of("dare_linear", SUMS),
        _of("dare_ties", MASKS),
        _of("della", MASKS),
        _of("magmax", MASKS),
        _of("survivors", SUMS),
        _of("geometric_median"),
        _of("model_stock"),
        _of("multislerp"),
        _of("ram", MEANS),
        _of("ramplus_tl", MEANS),
        _of("lines", tried=grid(alpha=(0.05, 0.1, 0.2), beta=(0.1, 0.3))),
        _of("localize_and_stitch", MASKS),
        _of("cabs", SPARSE),
        _of("tatr", SUMS),
        _of("della_linear", SUMS),
        _of("negmerge", (1.0, 2.0, 4.0, 8.0, 16.0)),
        _of("awd", SUMS),
        _of("emr"),
        _of("karcher"),
        _of("tvq", SUMS),
        _of("rtvq", SUMS),
        _of("random_sparsed", SPARSE),
        _of("bottom_masking", MASKS),
        _of("top_masking", SUMS),
        _of("fisher", data=True),
        _of("regmean", data=True),
        _of("wudi", MATRICES, name="wudi (adam)", solver="adam"),
    )
}
#: What a quick look leaves out: minutes of optimisation.
SLOW = ("wudi (adam)",)
