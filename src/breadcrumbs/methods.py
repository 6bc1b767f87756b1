"""The table of methods: name -> transform, aggregate, defaults, paper.

A method is a named pair of a transform and an aggregate with its published defaults. To add one:
write the file of its transform or aggregate, a line here, and a row in the contract test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from breadcrumbs import parameters
from breadcrumbs.aggregates import Linear
from breadcrumbs.aggregates.mean import MEAN
from breadcrumbs.aggregates.sum import scaled_sum
from breadcrumbs.errors import RecipeError, suggestion
from breadcrumbs.parameters import Parameter, Values
from breadcrumbs.transforms import Band, Everything, Transform
from breadcrumbs.transforms.bottom_masking import BOTTOM_MASKING
from breadcrumbs.transforms.breadcrumbs import BREADCRUMBS
from breadcrumbs.transforms.random_mask import RANDOM_MASK
from breadcrumbs.transforms.top_masking import TOP_MASKING


@dataclass(frozen=True)
class Method:
    """One way to merge.

    summary: one line. formula: plain text. paper: where it was published. notes: what the paper
    leaves open and where other programs differ.
    """

    name: str
    transform: Transform
    aggregate: Linear
    summary: str
    formula: str
    paper: str
    notes: str = ""

    @property
    def parameters(self) -> dict[str, Parameter]:
        return {**self.transform.parameters, **self.aggregate.parameters}

    def complete(self, given: Mapping[str, Any]) -> Values:
        """Return ``given`` checked, with defaults for the rest; RecipeError names what is wrong."""
        values = parameters.parse(f"method {self.name}", self.parameters, given)
        ours = {k: v for k, v in values.items() if k in self.transform.parameters}
        others = {k: v for k, v in values.items() if k in self.aggregate.parameters}
        return (
            parameters.defaults(self.transform.parameters)
            | parameters.defaults(self.aggregate.parameters)
            | self.transform.check(ours)
            | others
        )

    def stated(self, given: Mapping[str, Any]) -> Values:
        """Return ``given`` with the defaults that hold besides it, to be written and read back."""
        values = self.complete(given)
        replaces = self.transform.replaces if isinstance(self.transform, Band) else {}
        replaced = {name for key in given for name in replaces.get(key, ())}
        return {k: v for k, v in values.items() if k not in replaced} | parameters.parse(
            f"method {self.name}", self.parameters, given
        )


_BREADCRUMBS_PAPER = "Davari and Belilovsky, Model Breadcrumbs, ECCV 2024, arXiv:2312.06795"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "breadcrumbs",
            BREADCRUMBS,
            scaled_sum(1.0),
            "cut both tails of each task vector, tensor by tensor, and add the rest",
            "base + alpha * sum_t weight_t * m_t * tau_t, "
            "m_t = [floor(beta n) < rank |tau_t| <= n - floor((1 - gamma) n)]",
            _BREADCRUMBS_PAPER,
            "Published settings: ViT-B/32 beta .90 gamma .99; B/16 .90/.992; L/14 .85/.99;"
            " 200 tasks .85/.993. alpha is not printed; a remark of the authors gives 1 at .90/.99."
            " Entries rank by (magnitude, position), so the number kept is exact."
            " mergekit names the fraction of largest entries cut `gamma`: 0.01 there is 0.99 here.",
        ),
        Method(
            "task_arithmetic",
            Everything(),
            scaled_sum(0.3),
            "add the task vectors",
            "base + alpha * sum_t weight_t * tau_t",
            "Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, arXiv:2212.04089",
            "alpha .3 is the value published for use without validation data."
            " A negative alpha takes tasks away.",
        ),
        Method(
            "average",
            Everything(),
            MEAN,
            "the (weighted) mean of the models",
            "sum_t weight_t * model_t / sum_t weight_t",
            "Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482",
            "The base lends the layout and is no part of the mean. Weights are normalised.",
        ),
        Method(
            "bottom_masking",
            BOTTOM_MASKING,
            scaled_sum(1.0),
            "keep the largest entries of each task vector, outliers included (ablation)",
            "base + alpha * sum_t weight_t * m_t * tau_t, "
            "m_t = [rank |tau_t| > n - floor(density n)]",
            _BREADCRUMBS_PAPER + ", Fig. 7",
            "alpha is not published.",
        ),
        Method(
            "top_masking",
            TOP_MASKING,
            scaled_sum(0.3),
            "cut only the largest entries of each task vector (ablation)",
            "base + alpha * sum_t weight_t * m_t * tau_t, "
            "m_t = [rank |tau_t| <= n - floor(outliers n)]",
            _BREADCRUMBS_PAPER + ", Fig. 7",
            "alpha is not published; the default is that of task_arithmetic.",
        ),
        Method(
            "random_sparsed",
            RANDOM_MASK,
            scaled_sum(1.0),
            "keep entries at random, without rescaling (ablation)",
            "base + alpha * sum_t weight_t * m_t * tau_t, m_t iid Bernoulli(density)",
            _BREADCRUMBS_PAPER + ", Table 1",
            "alpha is not published. The draws depend on the seed, the name of the model and the"
            " name of the tensor alone.",
        ),
    )
}


def get(name: str) -> Method:
    """Return the method of that name; RecipeError suggests the nearest."""
    if not isinstance(name, str) or name not in METHODS:
        raise RecipeError(
            f"there is no method {name!r}.{suggestion(str(name), METHODS)}"
            f" `breadcrumbs methods` lists them all: {', '.join(METHODS)}."
        )
    return METHODS[name]
